"""CSV and TSV tables for ``unival data pack``, also as spreadsheet programs write them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .light import light
from .pack_sources import Found, Source, not_utf8

DELIMITERS = {".csv": (",", ";", "\t"), ".tsv": ("\t",)}
"""By suffix; semicolons are what Excel writes in countries where numbers have a decimal comma."""
_NAMED = re.compile(r"sep=(.)\r?\n?")
"""A first line that tells the delimiter to spreadsheet programs."""


def open_csv(path: Path) -> Source:
    """The table, whose first line that is not blank names the fields. Raises DataError."""
    delimiter = _delimiter(path)
    names = _names(path, delimiter)
    if not names:
        raise light("errors").DataError(f"{path} is empty: its first line must name the columns, as in image,caption")
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise light("errors").DataError(
            f"{path}:1 names the column {twice[0]!a} twice: rename one of them; several captions of a picture are rows"
        )
    return Source(path, (path,), partial(_read, path, delimiter), names)


def _delimiter(path: Path) -> str:
    """The first one that divides the line of names."""
    with path.open(encoding="utf-8-sig", newline="") as handle:
        if named := _NAMED.match(handle.readline()):
            return named[1]
    candidates = DELIMITERS[path.suffix.lower()]
    for delimiter in candidates:
        try:
            if len(_names(path, delimiter)) > 1:
                return delimiter
        except light("errors").DataError:  # quotes that end before another delimiter
            continue
    return candidates[0]


def _names(path: Path, delimiter: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in next(_lines(path, delimiter), (0, []))[1])


def _read(path: Path, delimiter: str, content: bool = True) -> Iterator[Found]:
    lines = _lines(path, delimiter)
    names = tuple(name.strip() for name in next(lines)[1])
    more = f"more cells than the first line names: put texts with {delimiter!r} between quotes"
    for number, cells in lines:
        fields = dict(zip(names, cells, strict=False))  # a line may end early
        yield Found(fields, f"{path}:{number}", more if any(map(str.strip, cells[len(names) :])) else "")


def _lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of the lines that are not blank. Raises DataError."""
    with path.open(encoding="utf-8-sig", newline="") as handle:
        skipped = 1 if _NAMED.match(handle.readline()) else 0
        if not skipped:
            handle.seek(0)
        rows, begin = csv.reader(handle, delimiter=delimiter, strict=True), 1
        try:
            for cells in rows:
                if any(map(str.strip, cells)):
                    yield rows.line_num + skipped, cells
                begin = rows.line_num + skipped + 1
        except csv.Error as error:
            raise light("errors").DataError(
                f'{path}:{begin}: not valid CSV ({error}): close the quotes, and write " twice inside of them'
            ) from error
        except UnicodeDecodeError as error:
            raise not_utf8(path) from error
