"""What ``unival data validate`` found: bad cells, counts of them by kind, and statistics of a file."""

from __future__ import annotations

import json
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

DEFECTS = (
    *("blank row", "too few columns", "too many columns", "cut-off row", "repeated id"),
    *("empty cell", "not UTF-8", "mangled text", "control character", "overlong text", "no word", "empty caption"),
    *("not base64", "not a picture", "damaged picture", "oversized picture", "bad path", "missing file"),
    *("unreadable film", "unreadable sound"),
    *("no answer", "bad confidence", "repeated answer", "answer outside the set"),
    *("not a box", "reversed box", "box without area", "box outside the picture", "unknown label", "unknown type"),
    *("bad code", "codes of no square", "wrong number of codes"),
)
"""Kinds of defects, as ``--report`` names them."""

MOST_TEXTS = 10_000
"""So many different texts are counted; more would fill the memory where every row holds another one."""


class Fault(NamedTuple):
    """What is wrong with a cell: its kind, by which defects are counted, and a sentence with the remedy."""

    kind: str
    reason: str


class BadCell(NamedTuple):
    """Rows count from 1, columns from 0 as in ``--selected-cols``; column None = the row as a whole."""

    row: int
    column: int | None
    kind: str
    reason: str

    def line(self, path: Path) -> str:
        """``file:row:column: reason``."""
        place = f"{path}:{self.row}" if self.column is None else f"{path}:{self.row}:{self.column}"
        return f"{place}: {self.reason}"

    def record(self, path: Path) -> bytes:
        """A line of JSON."""
        return (json.dumps({"file": str(path), **self._asdict()}, ensure_ascii=False) + "\n").encode("utf-8")


def _spreads() -> defaultdict[str, Counter[int]]:
    return defaultdict(Counter)


def _tallies() -> defaultdict[str, Counter[str]]:
    return defaultdict(Counter)


@dataclass
class Report:
    """What a range of rows holds.

    Attributes:
        rows: number of rows.
        crlf_rows: rows that end in ``\\r\\n``.
        bad: bad cells.
        key_hashes: one 64-bit number a row, so that the keys of millions of rows fit in memory.
        spreads: by name, how often each number occurs.
        tallies: by name, how often each text occurs.
    """

    rows: int = 0
    crlf_rows: int = 0
    bad: list[BadCell] = field(default_factory=list)
    key_hashes: array[int] = field(default_factory=lambda: array("Q"))
    spreads: defaultdict[str, Counter[int]] = field(default_factory=_spreads)
    tallies: defaultdict[str, Counter[str]] = field(default_factory=_tallies)

    def add(self, other: Report) -> None:
        """Take over the counts of the rows that follow; the bad cells are left to the caller, who prints them."""
        self.rows += other.rows
        self.crlf_rows += other.crlf_rows
        self.key_hashes.extend(other.key_hashes)
        for name, numbers in other.spreads.items():
            self.spreads[name].update(numbers)
        for name, texts in other.tallies.items():
            known = self.tallies[name]
            for text, count in texts.items():
                known[text if text in known or len(known) < MOST_TEXTS else "(others)"] += count


class Findings:
    """The bad cells of one file: prints the first ones, writes all to the report file, and counts them by kind.

    Args:
        path: the file.
        rows: its number of rows.
        shown: so many are printed; 0: all.
        out: where all of them are written, as lines of JSON.
    """

    def __init__(self, path: Path, rows: int, shown: int, out: BinaryIO | None) -> None:
        self.path, self.shown, self.out = path, shown, out
        self._is_bad = bytearray(rows)
        self._counts: Counter[str] = Counter()
        self._first_rows: dict[str, int] = {}

    @property
    def bad_rows(self) -> int:
        """Number of rows with at least one bad cell."""
        return self._is_bad.count(1)

    def add(self, cells: Iterable[BadCell]) -> None:
        """Take these bad cells."""
        from tqdm import tqdm

        for cell in cells:
            if not self.shown or self._counts.total() < self.shown:
                tqdm.write(cell.line(self.path), file=sys.stdout)
            if self.out is not None:
                self.out.write(cell.record(self.path))
            self._is_bad[cell.row - 1] = 1
            self._counts[cell.kind] += 1
            self._first_rows[cell.kind] = min(cell.row, self._first_rows.get(cell.kind, cell.row))

    def summary(self) -> Iterator[str]:
        """Lines that tell how many of each kind there are, and how many were not printed."""
        total = self._counts.total()
        if self.shown and total > self.shown:
            remedy = "" if self.out is not None else "; --max-errors 0 prints all, --report FILE writes them"
            yield f"  {total - self.shown} more bad cells are not printed{remedy}"
        width = max(map(len, self._counts), default=0) + 1
        for kind, count in sorted(self._counts.items(), key=lambda item: (-item[1], item[0])):
            yield f"  {kind + ':':<{width}} {count}, first in row {self._first_rows[kind]}"


# -------------------------------------------------------------------------------- statistics


def statistics(report: Report, media: tuple[str, ...]) -> list[str]:
    """The lines printed after the check of a file: numbers, those of pictures, films and sounds last, then texts."""
    names = sorted(report.spreads, key=lambda name: name.startswith(media))
    width = max(map(len, names), default=0) + 1
    lines = [f"  {name + ':':<{width}} {_spread(report.spreads[name])}" for name in names]
    lines += [f"  {name}: {_most_common(counts)}" for name, counts in report.tallies.items() if counts]
    if 0 < report.crlf_rows < report.rows:
        lines.append(f"  line ends: {report.crlf_rows} rows end in \\r\\n, the others in \\n; both are read")
    return lines


def _most_common(counts: Counter[str], shown: int = 10) -> str:
    """``yes 3, no 2``: the most frequent ones, alphabetically where equal."""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = f" and {len(order) - shown} more" if len(order) > shown else ""
    return ", ".join(f"{text} {count}" for text, count in order[:shown]) + rest


def _spread(counts: Counter[int]) -> str:
    total = counts.total()
    mean = sum(value * count for value, count in counts.items()) / total
    return f"{min(counts)} to {max(counts)}, median {_median(counts)}, mean {mean:.1f}"


def _median(counts: Counter[int]) -> int:
    """The lower median."""
    seen, half = 0, (counts.total() + 1) // 2
    for value in sorted(counts):
        seen += counts[value]
        if seen >= half:
            return value
    raise ValueError("no values")
