"""``unival data show``: some rows of a file, as texts or as a sheet of pictures with their texts and boxes."""

from __future__ import annotations

import argparse
import base64
import binascii
import io
import random
from collections.abc import Sequence
from pathlib import Path

from .data_schemas import SCHEMAS, Schema
from .data_validate import parse_columns
from .files import refuse_existing
from .light import light

LONGEST = 300
"""Characters of a text that are shown."""


def run_show(args: argparse.Namespace) -> int:
    """Print the rows, or draw them."""
    bad = light("errors").ConfigError
    schema, columns = _schema_of(args)
    if args.number < 1 or args.start < 1:
        raise bad("the number of rows and --start must be at least 1")
    if any(value is not None and value < 1 for value in (args.columns, args.cell)):
        raise bad("--columns and --cell must be at least 1")
    if args.random and args.start != 1:
        raise bad("--start is not for --random; leave one of them out")
    folder = args.image_dir or args.file.parent
    table = light("data.tsv").TsvTable(args.file, columns)
    rows = chosen_rows(len(table), args.number, args.start, args.seed if args.random else None)
    if not rows:
        raise bad(f"{args.file} has {len(table)} rows; there is none from --start {args.start} on")
    if args.output is None:
        for row in rows:
            print("\n".join([f"row {row + 1}", *described(table.row(row), schema, folder, args.read_from_img_path)]))
        return 0
    draw(args, columns, rows, folder)
    print(f"{args.output}: {len(rows)} rows")
    return 0


def _schema_of(args: argparse.Namespace) -> tuple[Schema, tuple[int, ...]]:
    usual = SCHEMAS[args.task]
    columns = parse_columns(args.selected_cols or usual.selected_cols)
    schema = usual.with_columns(len(columns))
    if schema is None:
        raise light("errors").ConfigError(f"--selected-cols does not fit {args.task}: {usual.describe()}")
    return schema, columns


def chosen_rows(total: int, number: int, start: int, seed: int | None) -> list[int]:
    """Numbers (from 0) of rows: those from row ``start`` (counted from 1) on or, with a seed, random ones, in order."""
    if seed is None:
        return list(range(start - 1, min(total, start - 1 + number)))
    return sorted(random.Random(seed).sample(range(total), min(total, number)))


# -------------------------------------------------------------------------------- in the terminal


def described(cells: Sequence[str], schema: Schema, folder: Path, from_path: bool) -> list[str]:
    """A line for each cell of a row; of pictures, films and sounds what they are."""
    columns = schema.of_row([cell.encode("utf-8") for cell in cells])
    width = max(len(name) for name, _ in columns)
    lines = []
    for (name, kind), cell in zip(columns, cells, strict=True):
        if kind in ("film", "sound") or (kind == "image" and from_path):
            cell = _file(cell, folder)
        elif kind == "image":
            cell = _picture(cell)
        elif kind == "codes":
            cell = f"{len(cell.split())} codes: {cell}"
        cell = " && ".join(part.strip() for part in cell.split("&&"))
        text = cell if len(cell) <= LONGEST else f"{cell[: LONGEST - 3]}..."
        lines.append(f"  {name + ':':<{width + 1}} {text}".rstrip())
    return lines


def _picture(cell: str) -> str:
    """``JPEG 640 x 480, 34 kB`` of a picture in base64; what is wrong is for ``unival data validate`` to say."""
    from PIL import Image

    try:
        data = base64.b64decode(cell.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return f"no picture in base64: {cell[:40]!a}"
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return f"{picture.format} {picture.width} x {picture.height}, {_size(len(data))}"
    except Exception:  # Pillow's readers raise nearly every type on damaged bytes
        return f"no picture that can be read, {_size(len(data))}"


def _file(cell: str, folder: Path) -> str:
    path = folder / cell
    return f"{cell} ({_size(path.stat().st_size) if path.is_file() else f'missing in {folder}'})"


def _size(count: int) -> str:
    return f"{count} bytes" if count < 1000 else f"{count / 1000:.0f} kB"


# -------------------------------------------------------------------------------- as a sheet


def draw(args: argparse.Namespace, columns: Sequence[int], rows: Sequence[int], folder: Path) -> None:
    """Write the sheet. Raises ConfigError for rows without pictures, DataError for bad ones."""
    from .sheet import contact_sheet
    from .sheet_rows import TASKS, items_from_table

    if args.task == "image_gen":
        raise light("errors").ConfigError("rows of image_gen hold codes, no pictures: leave --output out to see them")
    refuse_existing(args.output, args.overwrite)
    task = TASKS["caption" if args.task == "unify_task" else args.task]
    try:
        items = items_from_table(args.file, columns, None, len(rows), args.task, folder, rows, args.read_from_img_path)
    except ValueError as error:
        raise light("errors").DataError(str(error)) from error
    sheet = contact_sheet(items, args.columns or task.columns, args.cell or task.cell)
    scratch = args.output.with_name(f".{args.output.name}.tmp")
    try:
        sheet.save(scratch, "PNG")
        scratch.replace(args.output)
    finally:
        scratch.unlink(missing_ok=True)
