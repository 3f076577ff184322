"""Tables that ``unival data pack`` makes rows of: a function for each format gives records with their places."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .light import light

TABLES = (
    "a .csv, .jsonl or .json file, a .tsv file with a header, .parquet or .arrow files, the folder of a Hugging Face "
    "data set, or .tar shards (shard-{00..12}.tar)"
)
"""What can be read, for messages."""
WORKBOOKS = frozenset((".xlsx", ".xlsm", ".xls", ".ods", ".numbers"))
WORKBOOK_MARKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How such files begin, whatever their names are."""
UTF8_REMEDY = "save it as UTF-8 (in Excel: CSV UTF-8)"


@dataclass(frozen=True)
class Found:
    """A record of a table.

    Attributes:
        fields: what it holds, by name. A picture is a path, a :class:`~.row_writer.Packed` or :class:`Content`.
        where: its place (``file:record``).
        fault: why it cannot be used.
    """

    fields: Mapping[str, Any]
    where: str
    fault: str = ""


@dataclass(frozen=True)
class Content:
    """The bytes of a picture that a table holds itself; None where they were not asked for."""

    data: bytes | None
    name: str


@dataclass(frozen=True)
class Source:
    """A table.

    Attributes:
        path: what the user named.
        files: the files that it consists of.
        read: gives the records from the first one on; with False, the bytes of pictures are spared.
        names: the fields of all records, where the table tells; empty: they are seen in the records only.
        own_media: whether it holds the pictures, too.
    """

    path: Path
    files: tuple[Path, ...]
    read: Callable[[bool], Iterator[Found]]
    names: tuple[str, ...] = ()
    own_media: bool = False


def open_source(path: Path, split: str | None = None) -> Source:
    """The table at ``path``; ``split`` chooses a part of a data set that has several.

    Raises:
        ConfigError: it is missing or of no known kind, or the split is missing or not needed.
        DataError: it is damaged.
    """
    suffix = path.suffix.lower()
    if suffix == ".tar" or path.name.lower().endswith((".tar.gz", ".tgz")):
        from .pack_tar import open_shards

        _no_split(path, split)
        return open_shards(path)
    if path.is_dir() or suffix in (".parquet", ".arrow"):
        from .pack_arrow import open_data_set

        return open_data_set(path, split)
    from .pack_csv import open_csv

    openers = {".csv": open_csv, ".tsv": open_csv, ".jsonl": _open_lines, ".ndjson": _open_lines, ".json": _open_json}
    _no_split(path, split)
    if suffix in WORKBOOKS:
        raise _workbook(path)
    if suffix not in openers:
        raise light("errors").ConfigError(f"--data {path}: needs {TABLES}")
    if not path.is_file():
        raise light("errors").ConfigError(f"--data {path} does not exist")
    _check_text(path)
    try:
        return openers[suffix](path)
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error


def _no_split(path: Path, split: str | None) -> None:
    if split is not None:
        raise light("errors").ConfigError(f"--split {split}: {path} has no splits; leave the option out")


def _workbook(path: Path) -> ValueError:
    error: ValueError = light("errors").ConfigError(f"--data {path} is a workbook: save the sheet as CSV UTF-8")
    return error


def _check_text(path: Path) -> None:
    """Raise an error if the file begins as texts in UTF-8 do not."""
    with path.open("rb") as handle:
        head = handle.read(4096)
    if head.startswith(WORKBOOK_MARKS):
        raise _workbook(path)
    if b"\0" in head or head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise light("errors").DataError(f"{path} is UTF-16 or UTF-32: {UTF8_REMEDY}")


def not_utf8(path: Path) -> ValueError:
    """A DataError to raise, with the line."""
    bad = light("errors").DataError
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return bad(f"{path}:{number} is not UTF-8: {UTF8_REMEDY}")
    return bad(f"{path} is not UTF-8: {UTF8_REMEDY}")


# -------------------------------------------------------------------------------- JSON


def _open_lines(path: Path) -> Source:
    return Source(path, (path,), partial(read_json_lines, path))


def read_json_lines(path: Path, content: bool = True) -> Iterator[Found]:
    """The objects of a file that has one on each line. Raises DataError if it is not UTF-8."""
    with path.open(encoding="utf-8-sig") as handle:
        try:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield _json_record(line, f"{path}:{number}")
        except UnicodeDecodeError as error:
            raise not_utf8(path) from error


def _json_record(text: str, where: str) -> Found:
    try:
        return _record(json.loads(text), where)
    except ValueError as error:
        return Found({}, where, f"not valid JSON ({error})")


def _record(value: Any, where: str) -> Found:
    if isinstance(value, dict):
        return Found(value, where)
    return Found({}, where, 'needs an object, as in {"image": "1.jpg", "caption": "a cat"}')


def _open_json(path: Path) -> Source:
    """A list of objects, or captions in COCO's format; either is read whole."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise light("errors").DataError(
            f"{path}: not valid JSON ({error}); objects on lines of their own: .jsonl"
        ) from (error)
    if isinstance(data, list):
        records = [_record(value, f"{path}: record {number}") for number, value in enumerate(data, start=1)]
        return Source(path, (path,), lambda content: iter(records))
    records = list(_coco_captions(path, data))
    return Source(path, (path,), lambda content: iter(records), ("image", "file_name", "image_id", "caption"))


def _coco_captions(path: Path, data: Any) -> Iterator[Found]:
    try:
        names = {image["id"]: image["file_name"] for image in data["images"]}
        for number, annotation in enumerate(data["annotations"], start=1):
            where, key = f"{path}: annotation {number}", annotation["image_id"]
            if key in names:
                fields = {"image": names[key], "file_name": names[key], "image_id": str(key)}
                yield Found(fields | {"caption": annotation["caption"]}, where)
            else:
                yield Found({}, where, f"image_id {key!r} is not among the images")
    except (KeyError, TypeError) as error:
        raise light("errors").DataError(
            f'{path}: not a COCO caption file, {error} is missing; needed: "images" with "id" and "file_name", '
            '"annotations" with "image_id" and "caption" (or a list of objects)'
        ) from error


# -------------------------------------------------------------------------------- names of several files


def expand_braces(pattern: str) -> list[str]:
    """The names that ``shard-{00..12}.tar`` and ``{train,val}.tar`` stand for, in order; numbers keep their width."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if span:
        first, last = int(span[1]), int(span[2])
        middles = [str(number).zfill(len(span[1])) for number in range(first, last + 1)]
    else:
        middles = match[1].split(",")
    tails = expand_braces(pattern[match.end() :])
    return [pattern[: match.start()] + middle + tail for middle, tail in itertools.product(middles, tails)]
