"""Files that a path may have meant that leads to none."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from pathlib import Path


def similar_file(path: Path, cell: str) -> Path | None:
    """What is there with nearly the name of a missing file, or None.

    Args:
        path: where the file should be.
        cell: the end of this path that stands in a table.
    """
    with suppress(OSError):  # a folder that may not be read has nothing to offer
        return _without_first_folders(path, cell) or _written_in_another_way(path)
    return None


def _without_first_folders(path: Path, cell: str) -> Path | None:
    """The cell may repeat the folder that paths start in."""
    parts = Path(cell).parts
    if path.parts[-len(parts) :] != parts:
        return None
    start = Path(*path.parts[: -len(parts)])
    tails = (start.joinpath(*parts[k:]) for k in range(1, len(parts)))
    return next((tail for tail in tails if tail.is_file()), None)


def _written_in_another_way(path: Path) -> Path | None:
    """Capital letters, the form of accents or the ending may differ, in folders, too."""
    missing = [path]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    here = missing[-1].parent
    for name in (each.name for each in reversed(missing)):
        found = _nearest(here, name)
        if found is None:
            return None
        here = here / found
    return here if here.is_file() else None


def _nearest(folder: Path, name: str) -> str | None:
    names = sorted(each.name for each in folder.iterdir())
    for form in (_plain, _stem):
        if found := next((each for each in names if form(each) == form(name)), None):
            return found
    return None


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return _plain(Path(name).stem)
