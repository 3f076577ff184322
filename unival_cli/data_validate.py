"""``unival data validate``: check every row, in one or more processes, and print what is wrong and what is there."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .data_schemas import SCHEMAS, Schema
from .files import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from unival_plugin.data.tsv import TsvTable

CHUNK = 128  # rows that a process checks before it reports


class BadCell(NamedTuple):
    """Rows count from 1, columns from 0 as in ``--selected-cols``; column None = the row as a whole."""

    row: int
    column: int | None
    reason: str

    def line(self, path: Path) -> str:
        """``file:row:column: reason``."""
        place = f"{path}:{self.row}" if self.column is None else f"{path}:{self.row}:{self.column}"
        return f"{place}: {self.reason}"


@dataclass
class Report:
    """What a range of rows holds. ``id_hashes`` has one 64-bit number a row, so that millions of ids fit in memory."""

    rows: int = 0
    bad: list[BadCell] = field(default_factory=list)
    id_hashes: array[int] = field(default_factory=lambda: array("Q"))
    words: Counter[int] = field(default_factory=Counter)
    captions: Counter[int] = field(default_factory=Counter)
    widths: Counter[int] = field(default_factory=Counter)
    heights: Counter[int] = field(default_factory=Counter)

    def add(self, other: Report) -> None:
        """Take over the counts of the rows that follow; the bad rows are left to the caller, who prints them."""
        self.rows += other.rows
        self.id_hashes.extend(other.id_hashes)
        for name in ("words", "captions", "widths", "heights"):
            getattr(self, name).update(getattr(other, name))


@dataclass(frozen=True)
class RowChecker:
    """Checks the rows of one table; goes to the worker processes, so it holds nothing but small values."""

    table: TsvTable
    schema: Schema
    image_dir: Path | None
    from_path: bool

    def check_range(self, rows: range) -> Report:
        """Check these rows (numbers from 0)."""
        report = Report(rows=len(rows))
        for row in rows:
            self._check_row(row, report)
        return report

    def _check_row(self, row: int, report: Report) -> None:
        from unival_plugin.errors import DataError

        report.id_hashes.append(_hash(f"row {row}, no usable id"))
        try:
            cells = [self.table.cell_bytes(row, k) for k in range(len(self.schema.columns))]
        except DataError as error:
            report.bad.append(BadCell(row + 1, None, str(error).removeprefix(self.table.where(row)).lstrip()))
            return
        for k, cell in enumerate(cells):
            reason = self._fault(row, k, cell, report)
            if reason is not None:
                report.bad.append(BadCell(row + 1, self.table.columns[k], reason))

    def _fault(self, row: int, k: int, cell: bytes, report: Report) -> str | None:
        """What is wrong with selected cell ``k``, or None."""
        from unival_plugin.errors import DataError

        name, kind = self.schema.columns[k]
        where = self.table.where(row, k)
        try:
            text = cell.decode("utf-8")
            if not text.strip():
                return f"{name} is empty"
            if kind == "id":
                report.id_hashes[-1] = _hash(f"id {text}")
            elif kind == "image":
                self._check_image(text, where, report)
            else:
                return _check_captions(text, report)
        except UnicodeDecodeError as error:
            return f"{name} is not UTF-8 (byte {error.start} of the cell)"
        except DataError as error:
            return str(error).removeprefix(where).lstrip(": ")
        return None

    def _check_image(self, cell: str, where: str, report: Report) -> None:
        from unival_plugin.data.image import read_cell_image

        picture = read_cell_image(cell, where, self.image_dir, self.from_path)
        report.widths[picture.width] += 1
        report.heights[picture.height] += 1


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def _check_captions(text: str, report: Report) -> str | None:
    captions = text.split("&&")
    if not all(caption.strip() for caption in captions):
        return "one of the captions between && is empty"
    report.captions[len(captions)] += 1
    report.words.update(len(caption.split()) for caption in captions)
    return None


# -------------------------------------------------------------------------------- command


def run_validate(args: argparse.Namespace) -> int:
    """Check all files; 1 if any row is bad."""
    from unival_plugin.errors import ConfigError

    schema = SCHEMAS[args.task]
    columns = parse_columns(args.selected_cols or schema.selected_cols)
    if len(columns) != len(schema.columns):
        raise ConfigError(f"--selected-cols needs {len(schema.columns)} columns for {args.task}: {schema.describe()}")
    if args.workers < 1 or (args.limit is not None and args.limit < 1):
        raise ConfigError("--workers and --limit must be at least 1")
    if args.read_from_img_path and args.image_dir is None:
        raise ConfigError("--read-from-img-path needs --image-dir, the folder in which the paths start")
    return int(any([_validate_file(path, schema, columns, args) for path in args.files]))


def parse_columns(text: str) -> tuple[int, ...]:
    """``"0,4,2"`` -> (0, 4, 2). Raises ConfigError."""
    from unival_plugin.errors import ConfigError

    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ConfigError(f"--selected-cols is {text!r}, but must be numbers with commas, as in 0,4,2")
    return tuple(int(part) for part in text.split(","))


def _validate_file(path: Path, schema: Schema, columns: tuple[int, ...], args: argparse.Namespace) -> bool:
    """Check one file, print its bad rows and statistics; whether there were bad rows."""
    from unival_plugin.data.tsv import TsvTable
    from unival_plugin.errors import DataError

    table = TsvTable(path, columns)
    if len(table) == 0:
        raise DataError(f"{path} is empty")
    checker = RowChecker(table, schema, args.image_dir, args.read_from_img_path)
    total = len(table) if args.limit is None else min(args.limit, len(table))
    whole = Report()
    bad_rows: set[int] = set()
    with _mapper(args.workers) as mapped:
        chunks = [range(start, min(start + CHUNK, total)) for start in range(0, total, CHUNK)]
        for report in progress(mapped(checker.check_range, chunks), len(chunks), path.name, f"x{CHUNK} rows"):
            bad_rows.update(_print_bad(path, report.bad))
            whole.add(report)
    bad_rows.update(_print_bad(path, _repeated_ids(table, whole.id_hashes)))
    for line in statistics(path, whole, len(bad_rows)):
        print(line)
    return bool(bad_rows)


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[[Callable[[range], Report], Iterable[range]], Iterable[Report]]]:
    """``map`` in this process or, in order, in several."""
    if workers == 1:
        yield map
        return
    with multiprocessing.get_context().Pool(workers) as pool:
        yield pool.imap


def _print_bad(path: Path, bad: list[BadCell]) -> Iterator[int]:
    from tqdm import tqdm

    for cell in bad:
        tqdm.write(cell.line(path), file=sys.stdout)
        yield cell.row


def _repeated_ids(table: TsvTable, hashes: array[int]) -> list[BadCell]:
    """Every row whose id an earlier row has. Equal hashes only point to candidates; the ids themselves decide."""
    import numpy as np

    values = np.frombuffer(hashes, dtype=np.uint64)
    order = np.argsort(values, kind="stable")
    same = values[order[1:]] == values[order[:-1]]
    first_rows: dict[str, int] = {}
    bad = []
    for row in sorted({*order[1:][same].tolist(), *order[:-1][same].tolist()}):
        text = table.cell(row, 0)
        if text in first_rows:
            bad.append(BadCell(row + 1, table.columns[0], f"id {text!r} is also in row {first_rows[text] + 1}"))
        first_rows.setdefault(text, row)
    return bad


# -------------------------------------------------------------------------------- statistics


def statistics(path: Path, report: Report, bad_rows: int) -> list[str]:
    """The lines printed after the check of a file."""
    lines = [f"{path}: {report.rows} rows checked, {bad_rows} bad"]
    if report.captions:
        lines.append(f"  captions a row:  {_spread(report.captions)}")
        lines.append(f"  words a caption: {_spread(report.words)}")
    if report.widths:
        lines.append(f"  picture width:   {_spread(report.widths)}")
        lines.append(f"  picture height:  {_spread(report.heights)}")
    return lines


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
