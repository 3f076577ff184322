"""Moves rows of position tables between configurations of other sizes.

A row number means something different for every table size: position id ``row * bucket_size + column + 1``, bucket of a
pair of cells, bucket of a distance. A table of another size is therefore rebuilt by meaning. The original code appends
random rows to a short picture table without moving any, so that cells get the vectors of other cells, and rejects
relative-position tables of other sizes; both are replaced here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor

from ...modules.positions import grid_ids, num_image_buckets, token_buckets

Rows = tuple[Tensor, Tensor]
"""Row numbers (int64, equally many) of the new and of the old table that mean the same."""

CLASS_BUCKETS = 3
"""Buckets of pairs with the class position, the last rows of a relative-position table of pictures."""


def text_rows(old: int, new: int) -> Rows | None:
    """Rows of two text position tables with ``old`` and ``new`` rows: by number."""
    rows = torch.arange(min(old, new))
    return rows, rows


def type_rows(old: int, new: int) -> Rows | None:
    """Rows of two tables of modality types: text, then patches of any kind or pictures, films, sounds.

    Only from the table of two types into that of all: the other way would drop what films and sounds have learned.
    """
    if old > new:
        return None
    return torch.arange(new), torch.arange(new).clamp(max=old - 1)


def cell_rows(old: int, new: int) -> Rows | None:
    """Rows of two picture position tables that belong to the same grid cell, the class position first."""
    sides = math.isqrt(max(old - 1, 0)), math.isqrt(max(new - 1, 0))
    if any(side < 1 or side * side + 1 != rows for side, rows in zip(sides, (old, new), strict=True)):
        return None
    common, start = min(sides), torch.zeros(1, dtype=torch.int64)
    old_ids, new_ids = (torch.cat([start, grid_ids(common, common, side)]) for side in sides)
    return new_ids, old_ids


def offset_rows(old: int, new: int) -> Rows | None:
    """Rows of two relative-position tables of pictures with the same (row offset, column offset)."""
    sides = _bucket_side(old), _bucket_side(new)
    if not all(sides):
        return None
    reach = min(sides) - 1
    offsets = torch.arange(-reach, reach + 1)

    def rows(side: int) -> Tensor:
        shifted = offsets + side - 1
        pairs = shifted[:, None] * (2 * side - 1) + shifted[None, :]
        return torch.cat([pairs.flatten(), num_image_buckets(side) - CLASS_BUCKETS + torch.arange(CLASS_BUCKETS)])

    return rows(sides[1]), rows(sides[0])


def _bucket_side(rows: int) -> int:
    """Grid side of a relative-position table of pictures with that many rows, 0 if there is none."""
    side = (math.isqrt(max(rows - CLASS_BUCKETS, 0)) + 1) // 2
    return side if side and num_image_buckets(side) == rows else 0


def distance_rows(old: int, new: int) -> Rows | None:
    """Rows of two relative-position tables of text: a new bucket gets the old bucket of its middle distance."""
    if old % 2 == 0 or new % 2 == 0:
        return None
    old_size, new_size = (old + 1) // 2, (new + 1) // 2
    old_bucket, new_bucket = token_buckets(old_size)[:, 0], token_buckets(new_size)[:, 0]  # distances 0, 1, 2, …
    counts = new_bucket.unique_consecutive(return_counts=True)[1]
    middle = counts.cumsum(0) - 1 - counts // 2
    ahead, source = new_bucket[middle], old_bucket[middle]
    behind, behind_source = 2 * (new_size - 1) - ahead, 2 * (old_size - 1) - source
    return torch.cat([ahead, behind]), torch.cat([source, behind_source])


TABLES: dict[str, Callable[[int, int], Rows | None]] = {
    r"(en|de)coder\.embed_positions\.weight": text_rows,
    r"(en|de)coder\.embed_(image|video|audio)_positions\.weight": cell_rows,
    r"(en|de)coder\.image_rel_pos_table_list\.\d+\.weight": offset_rows,
    r"(en|de)coder\.token_rel_pos_table_list\.\d+\.weight": distance_rows,
    r"encoder\.type_embedding\.weight": type_rows,
}
"""Which rows of two tables mean the same, by the table's name."""


def resized(key: str, old: Tensor, own: Tensor) -> Tensor | None:
    """The table ``key`` of a checkpoint in the size of the model's.

    Args:
        key: name in the state dict.
        old: the checkpoint's table, rows x width.
        own: the model's table; rows without a counterpart keep its values.

    Returns:
        A new tensor with the rows of ``own`` and dtype and device of ``old``; None: no such table, or another width.
    """
    rule = next((rule for pattern, rule in TABLES.items() if re.fullmatch(pattern, key)), None)
    if rule is None or old.dim() != 2 or old.shape[1:] != own.shape[1:]:
        return None
    rows = rule(len(old), len(own))
    if rows is None:
        return None
    new_rows, old_rows = rows
    table = own.detach().to(device=old.device, dtype=old.dtype, copy=True)
    table[new_rows] = old[old_rows]
    return table
