"""Output files that appear whole or not at all, and the progress bar of the commands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

T = TypeVar("T")


@contextmanager
def atomic_output(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """A binary file that takes the name ``path`` when the block ends without an error, and vanishes otherwise."""
    refuse_existing(path, overwrite)
    scratch = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with scratch.open("wb") as handle:
            yield handle
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise FileExistsError if ``path`` exists and may not be replaced."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or add --overwrite")


def progress(rows: Iterable[T], total: int | None, label: str, unit: str = "row") -> Iterable[T]:
    """Rows with a progress bar on the error stream; no bar where that is not a terminal."""
    from tqdm import tqdm

    return tqdm(rows, total=total, desc=label, unit=unit, disable=None)
