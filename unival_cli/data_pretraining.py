"""``unival data pretraining``: rows of the finetuning tasks become rows of multitask pretraining."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from .data_schemas import FILE_COLUMNS, ROW_TYPES, SEPARATOR
from .files import atomic_output, progress, refuse_existing
from .light import light

COLUMNS = FILE_COLUMNS["unify_task"]
TYPE_OF_TASK = {
    "caption": "caption",
    "vqa_gen": "qa",
    "refcoco": "visual_grounding",
    "video_caption": "video_caption",
    "video_vqa_gen": "video_qa",
    "audio_caption": "audio_caption",
}
"""Type of the rows that become of each task's; text-only tasks and statements have none."""
MEDIA = ("image", "film", "sound")
PLACES = {"expression": "caption", "answers": "refs", "box": "refs", **dict.fromkeys(MEDIA, "medium")}
"""Where a column goes that has another name in pretraining."""
FORGET_ROWS = 4096
"""Rows after which the pages that were read are given back, so that the memory does not grow with the file."""


def run_pretraining(args: argparse.Namespace) -> int:
    """Write the rows and print their number and the next command."""
    if not args.dataset.strip() or any(mark in args.dataset for mark in "\t\r\n"):
        raise light("errors").ConfigError(f"--dataset {args.dataset!r}: name the data set in one line without tabs")
    refuse_existing(args.output, args.overwrite)
    for path in args.files:
        if args.output.exists() and args.output.samefile(path):
            raise light("errors").ConfigError(f"{args.output} is an input; write the rows to another file")
    rows = 0
    with atomic_output(args.output, args.overwrite) as out:
        for path in args.files:
            for cells in converted(path, args.task, args.dataset):
                out.write(b"\t".join([str(rows).encode(), *cells]) + b"\n")
                rows += 1
    print(f"{args.output}: {rows} rows of type {TYPE_OF_TASK[args.task]}")
    media = "" if "image" in FILE_COLUMNS[args.task] else " --image-dir DIR"
    print(f"next: unival data validate {args.output} --task unify_task{media}")
    return 0


def converted(path: Path, task: str, dataset: str) -> Iterator[list[bytes]]:
    """All cells but the id of the rows that become of a file's rows.

    Raises DataError: a row has other columns, or an empty cell that its type needs.
    """
    names = FILE_COLUMNS[task]
    table = light("data.tsv").TsvTable(path, tuple(range(len(names))))
    if len(table) == 0:
        raise light("errors").DataError(f"{path} is empty: give a table with at least one row")
    row_type = TYPE_OF_TASK[task]
    needed = {name for name, (_, kind) in zip(COLUMNS, ROW_TYPES[row_type], strict=True) if kind not in ("any", "id")}
    for row in progress(range(len(table)), len(table), path.name):
        cells = dict.fromkeys(COLUMNS, b"")
        for name, cell in zip(names, table.cells_bytes(row), strict=True):
            if (place := PLACES.get(name, name)) in cells:
                cells[place] = cell
        cells |= {"dataset": dataset.encode("utf-8"), "type": row_type.encode()}
        captions = cells["caption"].split(SEPARATOR.encode())
        for caption in captions:
            cells["caption"] = caption.strip()
            if empty := [name for name in COLUMNS if name in needed and not cells[name].strip()]:
                raise light("errors").DataError(f"{table.where(row)}: {empty[0]} is empty: write it or remove the row")
            yield [cells[name] for name in COLUMNS[1:]]
        if row % FORGET_ROWS == 0:
            table.forget()
