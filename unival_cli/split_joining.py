"""Rows of a part of ``unival data split`` that are joined into one row for each picture; pictures stay in the file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .data_schemas import SEPARATOR
from .light import light


@dataclass(slots=True)
class _Group:
    """The first row, by its place in the file and a hash of what its group has in common, and the texts of all."""

    start: int
    row: int
    common: bytes
    texts: list[bytes]


class JoinedRows:
    """Collects the rows of a part. Memory holds their texts and a few hundred bytes for each group.

    Args:
        path: the file, for reading first rows again.
        group: column by which rows belong together.
        column: whose texts are joined; all others but the id, column 0, must be equal in a group.
    """

    def __init__(self, path: Path, group: int, column: int) -> None:
        self.path, self.group, self.column = path, group, column
        self._groups: dict[bytes, _Group] = {}

    def add(self, line: bytes, start: int, row: int) -> None:
        """Take a line that begins at this byte of the file. Raises DataError if it cannot be joined."""
        cells, where = _cells(line), f"{self.path}:{row}"
        if len(cells) <= self.column:
            raise _bad(f"{where} has {len(cells)} columns, but --join-col {self.column} is needed (from 0)")
        text = cells[self.column].strip()
        if not text or text.endswith(b"&"):
            fault = "ends with &, the mark between texts" if text else "is empty"
            raise _bad(f"{where}: column {self.column} {fault}: correct it or remove the row")
        common = self._common(cells)
        group = self._groups.setdefault(cells[self.group], _Group(start, row, common, []))
        if group.common != common:
            raise _bad(f"{where}{self._difference(cells, group)}: such rows are not joined; correct them or the flags")
        group.texts.append(text)

    @property
    def rows(self) -> int:
        """How many rows they become."""
        return len(self._groups)

    def write(self, handle: BinaryIO) -> None:
        """Write a row for each group in the order of their first rows."""
        with self.path.open("rb") as file:
            for group in self._groups.values():
                file.seek(group.start)
                line = file.readline()
                cells = _cells(line)
                end = line[len(b"\t".join(cells)) :]
                cells[self.column] = SEPARATOR.encode().join(group.texts)
                handle.write(b"\t".join(cells) + (end or b"\n"))

    def _common(self, cells: list[bytes]) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        for number, cell in enumerate(cells):
            if number not in (0, self.column):
                digest.update(b"%d\t%b\t" % (len(cell), cell))
        return digest.digest()

    def _difference(self, cells: list[bytes], group: _Group) -> str:
        with self.path.open("rb") as file:
            file.seek(group.start)
            first = _cells(file.readline())
        if len(first) != len(cells):
            return f" has {len(cells)} columns, row {group.row} {len(first)}, with the same column {self.group}"
        pairs = enumerate(zip(cells, first, strict=True))
        number = next(k for k, (one, other) in pairs if k not in (0, self.column) and one != other)
        return f": column {number} differs from row {group.row}, with the same column {self.group}"


def _cells(line: bytes) -> list[bytes]:
    return line.rstrip(b"\r\n").split(b"\t")


def _bad(message: str) -> ValueError:
    error: ValueError = light("errors").DataError(message)
    return error
