"""Pictures of rows as squares of one size, for the tools that train on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.files import progress
from unival_cli.light import light


def read_squares(
    paths: Sequence[Path], columns: Sequence[int], size: int, check: Callable[[list[str], str], None] | None = None
) -> tuple[Tensor, list[list[str]]]:
    """The pictures of all rows, uint8 ``(N, 3, size, size)``, and the other cells of each.

    Args:
        paths: the tables.
        columns: of the picture, then of the other cells.
        size: side of the squares in pixels.
        check: gets the other cells of each row, and the place of the first for messages; raises where they are wrong.

    Raises:
        DataError: a file or a picture cannot be used, or there are no rows.
    """
    images, planes = light("data.image"), light("data.resize").planes
    tables = [light("data.tsv").TsvTable(path, tuple(columns)) for path in paths]
    pictures = torch.empty(sum(map(len, tables)), 3, size, size, dtype=torch.uint8)
    if not len(pictures):
        raise light("errors").DataError(f"{paths[0]} is empty: give a table with at least one row")
    cells: list[list[str]] = []
    for path, table in zip(paths, tables, strict=True):
        for i in progress(range(len(table)), len(table), path.name):
            picture, *others = table.row(i)
            if check is not None:
                check(others, table.where(i, 1))
            square = images.read_cell_image(picture, table.where(i, 0)).resize((size, size), Image.Resampling.BICUBIC)
            pictures[len(cells)] = torch.from_numpy(planes(square).copy())
            cells.append(others)
    return pictures, cells
