"""``unival data answers``: the most frequent answers of rows become the set that a model may answer with."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from .answer_set import frequent_answers, numbered, parse_answers
from .data_schemas import SCHEMAS
from .data_validate import parse_columns
from .files import atomic_output, progress, refuse_existing
from .light import light

QUESTION_TYPES = ("qa", "video_qa")
"""Types of pretraining rows that have answers."""
SHOWN = 10


def run_answers(args: argparse.Namespace) -> int:
    """Count, write the set and print what it covers."""
    bad = light("errors").ConfigError
    if args.min_count < 1 or (args.top is not None and args.top < 1):
        raise bad("--min-count and --top must be at least 1")
    if args.output.suffix not in (".json", ".txt"):
        raise bad(f"--output {args.output}: the name must end in .json, or in .txt for an answer a line")
    refuse_existing(args.output, args.overwrite)
    rows = Counter(_all_rows(args))  # rows with the same answers are alike
    counts: Counter[str] = Counter()
    for answers, number in rows.items():
        for answer in answers if args.all_answers else answers[:1]:
            counts[answer] += number
    chosen = frequent_answers(counts, args.min_count, args.top)
    if not chosen:
        raise bad(f"none of {len(counts)} answers stands in {args.min_count} rows: lower --min-count")
    _write(args, chosen)
    for line in report(args.output, rows, counts, chosen):
        print(line)
    return 0


def _all_rows(args: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    schema = SCHEMAS[args.task]
    columns = parse_columns(args.selected_cols or schema.selected_cols)
    if len(columns) != len(schema.columns):
        raise light("errors").ConfigError(f"--selected-cols needs {len(schema.columns)} columns: {schema.describe()}")
    # In rows of pretraining the answers stand in the column that boxes have in other types.
    place = [name for name, _ in schema.columns].index("refs" if args.task == "unify_task" else "answers")
    for path in args.files:
        yield from rows_of(path, columns[place], columns[-1] if args.task == "unify_task" else None)


def rows_of(path: Path, column: int, type_column: int | None = None) -> Iterator[tuple[str, ...]]:
    """The answers of every row, the surest first; with a column of types, of rows with questions only.

    Raises DataError that names the row.
    """
    table = light("data.tsv").TsvTable(path, [column] if type_column is None else [column, type_column])
    if len(table) == 0:
        raise light("errors").DataError(f"{path} is empty: give a table with at least one row")
    for row in progress(range(len(table)), len(table), path.name):
        if type_column is None or table.cell(row, 1) in QUESTION_TYPES:
            yield answers_of(table.cell(row, 0), table.where(row, 0))


def answers_of(cell: str, where: str) -> tuple[str, ...]:
    """The answers of a cell, the surest first. Raises DataError."""
    found = sorted(parse_answers(cell, where), key=lambda pair: -pair[0])
    return tuple(answer for _, answer in found)


def _write(args: argparse.Namespace, answers: Sequence[str]) -> None:
    as_json = args.output.suffix == ".json"
    text = json.dumps(numbered(answers), ensure_ascii=False, indent=1) if as_json else "\n".join(answers)
    with atomic_output(args.output, args.overwrite) as out:
        out.write(text.encode("utf-8") + b"\n")


def report(output: Path, rows: Counter[tuple[str, ...]], counts: Counter[str], chosen: Sequence[str]) -> list[str]:
    """How many answers, the most frequent ones, and what the set covers."""
    known, total = set(chosen), rows.total()
    learned = sum(number for answers, number in rows.items() if answers[0] in known)
    some = sum(number for answers, number in rows.items() if not known.isdisjoint(answers))
    first = ", ".join(f"{answer} {counts[answer]}" for answer in chosen[:SHOWN])
    return [
        f"{output}: {len(chosen)} of {len(counts)} answers, in {counts[chosen[-1]]} to {counts[chosen[0]]} rows each",
        f"  most frequent: {first}",
        f"  rows whose surest answer is in the set: {_share(learned, total)}",
        f"  rows with some answer in the set:       {_share(some, total)}",
    ]


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole:.1f} %)"
