"""``unival data pack``: tables of your own, with their pictures, films or sounds, become rows of a task."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from .data_schemas import SCHEMAS
from .files import refuse_existing
from .light import light
from .pack_rows import MEDIA, TOOL, Rows
from .pack_sources import Source, open_source
from .pack_tasks import MEANINGS, TYPES, Packing
from .row_writer import Summary, write_rows

KEYS = ("id", "image_id", "caption", "question", "answers", "objects", "expression", "box", "hypothesis", "label")
"""Fields whose names are flags; that of the medium is --image-key."""


def run_pack(args: argparse.Namespace) -> int:
    """Write the rows, print what they hold and what to do next."""
    packing = packing_of(args)
    refuse_existing(args.output, args.overwrite)
    if args.workers < 1:
        raise light("errors").ConfigError(f"--workers is {args.workers}, but at least 1 is needed")
    source = open_source(args.data, args.split)
    _check_names(source, packing)
    paths = args.paths or packing.meaning.medium != "image"
    if args.images is not None and not args.images.is_dir():
        raise light("errors").ConfigError(f"--images {args.images} is no folder")
    folder = args.images or (args.data if args.data.is_dir() else args.data.parent)
    rows = Rows(source, packing, folder, paths, args.on_bad_row == "skip")
    summary = write_rows(
        args.output,
        rows,
        inputs=_inputs(args, source, folder),
        workers=args.workers,
        paths=paths,
        on_bad=args.on_bad_row,
        overwrite=args.overwrite,
        tool=TOOL,
        media=MEDIA[packing.meaning.medium],
    )
    for line in report(args.output, summary, rows, folder if paths else None):
        print(line)
    return 0


def packing_of(args: argparse.Namespace) -> Packing:
    """What the flags ask for. Raises ConfigError."""
    bad = light("errors").ConfigError
    if args.task == "image_gen":
        raise bad(
            "rows of image_gen hold codes: pack the pictures with --task caption, then encode the rows with "
            "dataset_tools/encode_pictures.py"
        )
    if (args.task == "unify_task") != (args.row_type is not None):
        raise bad(f"--row-type is needed for --task unify_task, and for no other: {', '.join(TYPES)}")
    meaning = MEANINGS[args.task] if args.row_type is None else TYPES[args.row_type]
    constant = {} if args.row_type is None else _constant_cells(args)
    keys = {what: name for what in KEYS if (name := getattr(args, f"{what}_key")) is not None}
    if "premise" in meaning.may and "caption" in keys:
        keys["premise"] = keys.pop("caption")
    used = {"id", "image_id", meaning.text, *meaning.needs, *meaning.may}
    unused = [_flag(what) for what in keys if what not in used]
    if args.box_format and "box" not in meaning.needs:
        unused.append("--box-format")
    if args.join and meaning.text != "caption":
        unused.append("--join")
    if args.dataset and args.row_type is None:
        unused.append("--dataset")
    if unused:
        raise bad(f"{', '.join(unused)}: not for --task {args.task}; leave it out")
    if args.image_key:
        keys[meaning.medium] = args.image_key
    return Packing(args.task, meaning, keys, args.box_format or "xyxy", args.join, constant)


def _constant_cells(args: argparse.Namespace) -> dict[str, str]:
    """Of pretraining rows: which cells a type does not fill, the data set and the type."""
    empty = dict.fromkeys(("caption", "question", "refs", "objects"), "")
    return {**empty, "dataset": args.dataset or "", "type": args.row_type}


def _flag(what: str) -> str:
    name = {"premise": "caption", "film": "image", "sound": "image"}.get(what, what)
    return f"--{name.replace('_', '-')}-key"


def _check_names(source: Source, packing: Packing) -> None:
    """Raises DataError if the table tells by its names that it lacks something."""
    missing = packing.missing(source.names) if source.names else []
    if missing:
        meaning = packing.meaning
        needed = (meaning.medium, meaning.text, *meaning.needs)
        raise light("errors").DataError(
            f"{source.path} must name the columns {', '.join(packing.names(what)[0] for what in needed)}; it has "
            f"{', '.join(map(str, source.names))}: say which one is meant with {', '.join(map(_flag, missing))}"
        )


def _inputs(args: argparse.Namespace, source: Source, folder: Path) -> dict[str, Any]:
    """What the bytes of the output depend on."""
    from .unfinished_output import fingerprint

    flags = {name: value for name, value in vars(args).items() if name.endswith("_key")}
    more = ("task", "row_type", "dataset", "box_format", "join", "on_bad_row")
    files = [fingerprint(path) for path in source.files]
    return {"files": files, "folder": str(folder.resolve()), **flags, **{name: getattr(args, name) for name in more}}


# -------------------------------------------------------------------------------- report


def report(output: Path, summary: Summary, rows: Rows, folder: Path | None) -> list[str]:
    """What was written and what was not, and the command that checks it."""
    packing = rows.packing
    media = summary.media or rows.contents
    lines = [f"{output}: {summary.rows} rows, {media} {MEDIA[packing.meaning.medium]}, {rows.words} words"]
    if rows.unusable:
        reasons = ", ".join(f"{what} {count}" for what, count in rows.unusable.most_common())
        lines.append(f"records left out: {rows.unusable.total()} ({reasons})")
    if summary.bad:
        lines.append(f"rows left out: {summary.bad} ({MEDIA[packing.meaning.medium]} that are missing or damaged)")
    command = ["unival", "data", "validate", str(output), "--task", packing.task]
    command += ["--selected-cols", SCHEMAS[packing.task].selected_cols]
    if folder is not None:
        command += ["--read-from-img-path"] * (packing.meaning.medium == "image") + ["--image-dir", str(folder)]
    return [*lines, f"next: {shlex.join(command)}"]
