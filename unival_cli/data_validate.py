"""``unival data validate``: check every row, in one or more processes, and print what is wrong and what is there."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .data_cells import CODE_SPAN, MEDIA, BadCell, CellChecker, CodeRule, Report
from .data_schemas import SCHEMAS, Schema
from .files import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from unival_plugin.data.tsv import TsvTable

CHUNK = 128  # rows that a process checks before it reports


@dataclass(frozen=True)
class RowChecker:
    """Checks the rows of one table; goes to the worker processes, so it holds nothing but small values."""

    table: TsvTable
    schema: Schema
    cells: CellChecker

    def check_range(self, rows: range) -> Report:
        """Check these rows (numbers from 0)."""
        report = Report(rows=len(rows))
        for row in rows:
            self._check_row(row, report)
        return report

    def _check_row(self, row: int, report: Report) -> None:
        from unival_plugin.errors import DataError

        report.key_hashes.append(_hash(f"row {row}, no usable key"))
        try:
            cells = [self.table.cell_bytes(row, k) for k in range(len(self.schema.columns))]
        except DataError as error:
            report.bad.append(BadCell(row + 1, None, str(error).removeprefix(self.table.where(row)).lstrip()))
            return
        texts: dict[int, str] = {}
        size = None
        for k, ((name, kind), cell) in enumerate(zip(self.schema.of_row(cells), cells, strict=True)):
            try:
                texts[k] = _text(name, kind, cell)
                if kind in MEDIA:
                    size = self.cells.medium(kind, texts[k], self.table.where(row, k), report)
                elif reason := self.cells.fault(name, kind, texts[k], size, report):
                    raise DataError(reason)
            except DataError as error:
                reason = str(error).removeprefix(self.table.where(row, k)).lstrip(": ")
                report.bad.append(BadCell(row + 1, self.table.columns[k], reason))
        if all(k in texts for k in self.schema.key):
            report.key_hashes[-1] = _hash("\t".join(["key", *(texts[k] for k in self.schema.key)]))


def _text(name: str, kind: str, cell: bytes) -> str:
    """Text of a cell. Raises DataError if it is no text, or empty where it must not be."""
    from unival_plugin.errors import DataError

    try:
        text = cell.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 (byte {error.start} of the cell)") from error
    if kind not in ("any", "type") and not text.strip():
        raise DataError(f"{name} is empty")
    return text


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


# -------------------------------------------------------------------------------- command


def run_validate(args: argparse.Namespace) -> int:
    """Check all files; 1 if any row is bad."""
    from unival_plugin.errors import ConfigError

    usual = SCHEMAS[args.task]
    columns = parse_columns(args.selected_cols or usual.selected_cols)
    schema = usual.with_columns(len(columns))
    if schema is None:
        numbers = " or ".join(map(str, sorted(len(each.columns) for each in (usual, *usual.others))))
        raise ConfigError(f"--selected-cols needs {numbers} columns for {args.task}: {usual.describe()}")
    if args.workers < 1 or (args.limit is not None and args.limit < 1):
        raise ConfigError("--workers and --limit must be at least 1")
    if args.read_from_img_path and args.image_dir is None:
        raise ConfigError("--read-from-img-path needs --image-dir, the folder in which the paths start")
    cells = CellChecker(args.image_dir, args.read_from_img_path, _answers(args), _code_rule(schema, columns, args))
    return int(any([_validate_file(path, schema, columns, cells, args) for path in args.files]))


def _code_rule(schema: Schema, columns: tuple[int, ...], args: argparse.Namespace) -> CodeRule:
    """What --code-dict-size and --code-image-size say; without the latter all rows must be like the first good one."""
    from unival_plugin.errors import ConfigError

    size, side = args.code_dict_size, args.code_image_size
    if not schema.has("codes"):
        if size is not None or side is not None:
            raise ConfigError("--code-dict-size and --code-image-size are for columns with codes: leave them out")
        return CodeRule()
    if size is not None and size < 1:
        raise ConfigError("--code-dict-size must be at least 1")
    rule = CodeRule() if size is None else CodeRule(size)
    if side is None:
        return _first_codes(args.files[0], schema, columns, rule)
    if side < CODE_SPAN or side % CODE_SPAN:
        raise ConfigError(f"--code-image-size {side} is no multiple of {CODE_SPAN}, the pixels that a code spans")
    return replace(rule, number=(side // CODE_SPAN) ** 2, owner=f"a picture of --code-image-size {side}")


def _first_codes(path: Path, schema: Schema, columns: tuple[int, ...], rule: CodeRule) -> CodeRule:
    """The rule with the number of codes of the first row that keeps it."""
    from unival_plugin.data.tsv import TsvTable
    from unival_plugin.errors import DataError

    table = TsvTable(path, columns)
    place = [kind for _, kind in schema.columns].index("codes")
    for row in range(len(table)):
        with suppress(DataError):
            text = table.cell(row, place)
            if text.strip() and rule.fault(text) is None:
                return replace(rule, number=len(text.split()), owner=f"row {row + 1} of {path}")
    return rule


def _answers(args: argparse.Namespace) -> frozenset[str] | None:
    """The answer set that --answers names."""
    from unival_plugin.errors import ConfigError

    if args.answers is None:
        return None
    if not SCHEMAS[args.task].has("answers"):
        raise ConfigError(f"--answers is for tasks with answers, not for {args.task}: leave it out")
    if not args.answers.is_file():
        raise ConfigError(f"--answers {args.answers} does not exist: name a JSON or text file of answers")
    from unival_plugin.data.answers import read_answers

    return frozenset(read_answers(args.answers))


def parse_columns(text: str) -> tuple[int, ...]:
    """``"0,4,2"`` -> (0, 4, 2). Raises ConfigError."""
    from unival_plugin.errors import ConfigError

    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ConfigError(f"--selected-cols is {text!r}, but must be numbers with commas, as in 0,4,2")
    return tuple(int(part) for part in text.split(","))


def _validate_file(
    path: Path, schema: Schema, columns: tuple[int, ...], cells: CellChecker, args: argparse.Namespace
) -> bool:
    """Check one file, print its bad rows and statistics; whether there were bad rows."""
    from unival_plugin.data.tsv import TsvTable
    from unival_plugin.errors import DataError

    table = TsvTable(path, columns)
    if len(table) == 0:
        raise DataError(f"{path} is empty")
    checker = RowChecker(table, schema, cells)
    total = len(table) if args.limit is None else min(args.limit, len(table))
    whole = Report()
    bad_rows: set[int] = set()
    with _mapper(args.workers) as mapped:
        chunks = [range(start, min(start + CHUNK, total)) for start in range(0, total, CHUNK)]
        for report in progress(mapped(checker.check_range, chunks), len(chunks), path.name, f"x{CHUNK} rows"):
            bad_rows.update(_print_bad(path, report.bad))
            whole.add(report)
    bad_rows.update(_print_bad(path, _repeated_keys(table, schema, whole.key_hashes)))
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


def _repeated_keys(table: TsvTable, schema: Schema, hashes: array[int]) -> list[BadCell]:
    """Every row whose key an earlier row has. Equal hashes only point to candidates; the keys themselves decide."""
    import numpy as np

    values = np.frombuffer(hashes, dtype=np.uint64)
    order = np.argsort(values, kind="stable")
    same = values[order[1:]] == values[order[:-1]]
    names = " and ".join(schema.columns[k][0] for k in schema.key[1:])
    others = f" with the same {names}" if names else ""
    first_rows: dict[tuple[str, ...], int] = {}
    bad = []
    for row in sorted({*order[1:][same].tolist(), *order[:-1][same].tolist()}):
        key = tuple(table.cell(row, k) for k in schema.key)
        if key in first_rows:
            bad.append(
                BadCell(row + 1, table.columns[0], f"id {key[0]!r}{others} is also in row {first_rows[key] + 1}")
            )
        first_rows.setdefault(key, row)
    return bad


# -------------------------------------------------------------------------------- statistics


def statistics(path: Path, report: Report, bad_rows: int) -> list[str]:
    """The lines printed after the check of a file."""
    lines = [f"{path}: {report.rows} rows checked, {bad_rows} bad"]
    names = sorted(report.spreads, key=lambda name: name.startswith(("picture", *MEDIA)))  # texts first
    width = max(map(len, names), default=0) + 1
    lines += [f"  {name + ':':<{width}} {_spread(report.spreads[name])}" for name in names]
    for name, counts in report.tallies.items():
        if counts:
            lines.append(f"  {name}: {_most_common(counts)}")
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
