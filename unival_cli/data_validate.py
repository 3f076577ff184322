"""``unival data validate``: check every row, in one or more processes, and print what is wrong and what is there."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from .data_cells import CODE_SPAN, MEDIA, CellChecker, CodeRule
from .data_report import Fault, Findings, Report, statistics
from .data_rows import CHUNK, Job, Rows, checking, repeated_keys
from .data_schemas import SCHEMAS, Schema
from .files import atomic_output, progress
from .light import light


def run_validate(args: argparse.Namespace) -> int:
    """Check all files; 1 if any row is bad."""
    usual = SCHEMAS[args.task]
    columns = parse_columns(args.selected_cols or usual.selected_cols)
    schema = usual.with_columns(len(columns))
    if schema is None:
        numbers = " or ".join(map(str, sorted(len(each.columns) for each in (usual, *usual.others))))
        raise light("errors").ConfigError(
            f"--selected-cols needs {numbers} columns for {args.task}: {usual.describe()}"
        )
    if args.workers < 1 or (args.limit is not None and args.limit < 1):
        raise light("errors").ConfigError("--workers and --limit must be at least 1")
    if args.max_errors < 0:
        raise light("errors").ConfigError("--max-errors must not be negative; 0 prints all")
    if args.read_from_img_path and args.image_dir is None:
        raise light("errors").ConfigError("--read-from-img-path needs --image-dir, the folder in which the paths start")
    cells = CellChecker(args.image_dir, args.read_from_img_path, _answers(args), _code_rule(schema, columns, args))
    with _report_file(args) as out:
        jobs = (_job(path, schema, columns, cells) for path in args.files)
        return int(any([_validate_file(job, out, args) for job in jobs]))


def _code_rule(schema: Schema, columns: tuple[int, ...], args: argparse.Namespace) -> CodeRule:
    """What --code-dict-size and --code-image-size say; without the latter all rows must be like the first good one."""
    size, side = args.code_dict_size, args.code_image_size
    if not schema.has("codes"):
        if size is not None or side is not None:
            raise light("errors").ConfigError(
                "--code-dict-size and --code-image-size are for columns with codes: leave them out"
            )
        return CodeRule()
    if size is not None and size < 1:
        raise light("errors").ConfigError("--code-dict-size must be at least 1")
    rule = CodeRule() if size is None else CodeRule(size)
    if side is None:
        return _first_codes(args.files[0], schema, columns, rule)
    if side < CODE_SPAN or side % CODE_SPAN:
        raise light("errors").ConfigError(
            f"--code-image-size {side} is no multiple of {CODE_SPAN}, the pixels that a code spans"
        )
    return replace(rule, number=(side // CODE_SPAN) ** 2, owner=f"a picture of --code-image-size {side}")


def _first_codes(path: Path, schema: Schema, columns: tuple[int, ...], rule: CodeRule) -> CodeRule:
    """The rule with the number of codes of the first row that keeps it."""
    rows = Rows(path)
    width, place = rows.usual_width(), columns[[kind for _, kind in schema.columns].index("codes")]
    for row in range(len(rows)):
        cells = rows.split(row, rows.line(row), width)
        text = "" if isinstance(cells, Fault) or place >= width else cells[place].decode("utf-8", "replace")
        if text.strip() and rule.fault(text) is None:
            return replace(rule, number=len(text.split()), owner=f"row {row + 1} of {path}")
    return rule


def _answers(args: argparse.Namespace) -> frozenset[str] | None:
    """The answer set that --answers names."""
    if args.answers is None:
        return None
    if not SCHEMAS[args.task].has("answers"):
        raise light("errors").ConfigError(f"--answers is for tasks with answers, not for {args.task}: leave it out")
    if not args.answers.is_file():
        raise light("errors").ConfigError(
            f"--answers {args.answers} does not exist: name a JSON or text file of answers"
        )
    return frozenset(light("data.answer_files").read_answers(args.answers))


def parse_columns(text: str) -> tuple[int, ...]:
    """``"0,4,2"`` -> (0, 4, 2). Raises ConfigError."""
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise light("errors").ConfigError(f"--selected-cols is {text!r}, but must be numbers with commas, as in 0,4,2")
    return tuple(int(part) for part in text.split(","))


def _validate_file(job: Job, out: BinaryIO | None, args: argparse.Namespace) -> bool:
    """Check one file, print its bad rows and statistics; whether there were bad rows."""
    rows = len(Rows(job.path))
    total = rows if args.limit is None else min(args.limit, rows)
    findings, whole = Findings(job.path, total, args.max_errors, out), Report()
    chunks = (range(start, min(start + CHUNK, total)) for start in range(0, total, CHUNK))
    with checking(job, args.workers) as check:
        for report in progress(check(chunks), -(-total // CHUNK), job.path.name, f"x{CHUNK} rows"):
            findings.add(report.bad)
            whole.add(report)
    findings.add(repeated_keys(job, whole.key_hashes))
    print(f"{job.path}: {total} rows checked, {findings.bad_rows} bad")
    for line in [*findings.summary(), *statistics(whole, MEDIA)]:
        print(line)
    return findings.bad_rows > 0


def _job(path: Path, schema: Schema, columns: tuple[int, ...], cells: CellChecker) -> Job:
    """Raises DataError if the file is empty or has too few columns."""
    rows = Rows(path)
    error = light("errors").DataError
    if len(rows) == 0:
        raise error(f"{path} is empty: give a file with at least one row")
    width = rows.usual_width()
    if max(columns) >= width:
        raise error(
            f"{path} has {width} columns (highest column is {width - 1}), but column {max(columns)} is selected: "
            "correct --selected-cols or --task"
        )
    return Job(path, columns, schema, cells, width)


@contextmanager
def _report_file(args: argparse.Namespace) -> Iterator[BinaryIO | None]:
    """The file of --report, which appears when all files were checked."""
    if args.report is None:
        yield None
        return
    if any(args.report.exists() and path.exists() and path.samefile(args.report) for path in args.files):
        raise light("errors").ConfigError(f"--report {args.report} is a data file: give another name")
    with atomic_output(args.report, args.overwrite) as out:
        yield out
