"""``unival data pack``: a folder of pictures and a file of captions become caption rows."""

from __future__ import annotations

import argparse
import base64
import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .files import atomic_output, progress, refuse_existing

SEPARATOR = "&&"  # between the captions of one picture
SHOWN_MISSING = 5


class Caption(NamedTuple):
    """One caption of one picture and where it was read."""

    image_id: str
    picture: str  # path relative to the folder of pictures
    text: str
    where: str


def run_pack(args: argparse.Namespace) -> int:
    """Write the rows and print their number."""
    refuse_existing(args.output, args.overwrite)
    captions = read_captions(args.captions, args.image_key, args.caption_key)
    groups = group_captions(captions) if args.join else [[caption] for caption in captions]
    check_pictures(captions, args.images)
    with atomic_output(args.output, args.overwrite) as out:
        for number, group in enumerate(progress(groups, len(groups), args.output.name)):
            out.write(caption_line(number, group, args.images, args.paths))
    print(f"{args.output}: {len(groups)} rows, {len({caption.picture for caption in captions})} pictures")
    return 0


def caption_line(number: int, captions: list[Caption], images: Path, paths: bool) -> bytes:
    """The row id, image id, captions, (no objects), picture of one picture."""
    first = captions[0]
    picture = first.picture if paths else base64.b64encode((images / first.picture).read_bytes()).decode("ascii")
    cells = [str(number), first.image_id, SEPARATOR.join(caption.text for caption in captions), "", picture]
    return "\t".join(cells).encode("utf-8") + b"\n"


def group_captions(captions: Iterable[Caption]) -> list[list[Caption]]:
    """Captions by picture, pictures in the order of their first caption."""
    groups: dict[str, list[Caption]] = {}
    for caption in captions:
        groups.setdefault(caption.picture, []).append(caption)
    return list(groups.values())


def check_pictures(captions: Iterable[Caption], images: Path) -> None:
    """Raise DataError if a picture is missing or outside ``images``: before hours of packing, not in their middle."""
    from unival_plugin.errors import DataError

    root = images.resolve()
    missing: dict[str, str] = {}
    for caption in captions:
        path = (root / caption.picture).resolve()
        if not path.is_relative_to(root):
            raise DataError(f"{caption.where}: picture {caption.picture!r} is outside {images}")
        if not path.is_file():
            missing.setdefault(caption.picture, caption.where)
    if missing:
        shown = ", ".join(f"{picture} ({where})" for picture, where in list(missing.items())[:SHOWN_MISSING])
        raise DataError(
            f"{len(missing)} pictures are not in {images}: {shown}{', ...' if len(missing) > SHOWN_MISSING else ''}"
        )


# -------------------------------------------------------------------------------- reading captions


def read_captions(path: Path, image_key: str = "image", caption_key: str = "caption") -> list[Caption]:
    """All captions of a CSV, JSON-lines or COCO JSON file (by suffix). Raises DataError with file and row."""
    from unival_plugin.errors import ConfigError, DataError

    readers = {".csv": _read_csv, ".jsonl": _read_json_lines, ".json": _read_coco}
    if path.suffix.lower() not in readers:
        raise ConfigError(f"--captions {path}: the name must end in .csv, .jsonl or .json")
    try:
        captions = [_clean(caption) for caption in readers[path.suffix.lower()](path, image_key, caption_key)]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start + 1}); save it as UTF-8") from error
    if not captions:
        raise DataError(f"{path} holds no caption")
    return captions


def _clean(caption: Caption) -> Caption:
    """White space (also tabs and line ends, which would break the row) becomes single spaces."""
    from unival_plugin.errors import DataError

    text = " ".join(caption.text.split())
    if not text:
        raise DataError(f"{caption.where}: the caption is empty")
    if SEPARATOR in text:
        raise DataError(f'{caption.where}: the caption contains "{SEPARATOR}", which separates captions; remove it')
    for cell in (caption.picture, caption.image_id):
        if not cell or any(mark in cell for mark in "\t\r\n"):
            raise DataError(f"{caption.where}: picture {cell!r} is empty or contains a tab or a line end")
    return caption._replace(text=text)


def _read_csv(path: Path, image_key: str, caption_key: str) -> Iterator[Caption]:
    from unival_plugin.errors import DataError

    with path.open(encoding="utf-8-sig", newline="") as handle:
        rows = csv.DictReader(handle, strict=True)
        try:
            if not {image_key, caption_key} <= set(rows.fieldnames or ()):
                raise DataError(f"{path}: the first line must name the columns {image_key!r} and {caption_key!r}")
            for row in rows:
                yield _caption(row, image_key, row.get(caption_key), f"{path}:{rows.line_num}")
        except csv.Error as error:
            raise DataError(f"{path}:{rows.line_num}: not valid CSV ({error})") from error


def _read_json_lines(path: Path, image_key: str, caption_key: str) -> Iterator[Caption]:
    with path.open(encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                record = _parse_json(line, f"{path}:{number}")
                texts = record.get(caption_key) if isinstance(record, dict) else None
                for text in texts if isinstance(texts, list) else [texts]:
                    yield _caption(record, image_key, text, f"{path}:{number}")


def _caption(record: Any, image_key: str, text: object, where: str) -> Caption:
    from unival_plugin.errors import DataError

    picture = record.get(image_key) if isinstance(record, dict) else None
    if not isinstance(picture, str) or not isinstance(text, str):
        raise DataError(f"{where}: {image_key!r} and the caption must both be texts")
    return Caption(str(record.get("image_id", picture)), picture, text, where)


def _read_coco(path: Path, image_key: str, caption_key: str) -> Iterator[Caption]:
    from unival_plugin.errors import DataError

    data = _parse_json(path.read_text(encoding="utf-8-sig"), str(path))
    try:
        names = {image["id"]: image["file_name"] for image in data["images"]}
        for number, annotation in enumerate(data["annotations"], start=1):
            where = f"{path}: annotation {number}"
            if annotation["image_id"] not in names:
                raise DataError(f"{where}: image_id {annotation['image_id']!r} is not among the images")
            yield Caption(str(annotation["image_id"]), names[annotation["image_id"]], annotation["caption"], where)
    except (KeyError, TypeError) as error:
        raise DataError(
            f'{path}: not a COCO caption file, {error} is missing; needed: "images" with "id" and "file_name", '
            '"annotations" with "image_id" and "caption"'
        ) from error


def _parse_json(text: str, where: str) -> Any:
    from unival_plugin.errors import DataError

    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON ({error})") from error
