"""WebDataset shards for ``unival data pack``: members of tar files, found by their headers and never unpacked."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from .light import light
from .pack_sources import Found, Source, expand_braces
from .predict_rows import SUFFIXES
from .row_writer import Packed

PICTURES = frozenset(SUFFIXES["image"])
TEXT, RECORD = ".txt", ".json"
END = 1024
"""Bytes of zeros at the end of every tar file."""
LONGEST_TEXT = 2**22
"""Bytes of a text or JSON member; longer ones are no captions, and reading them could fill the memory."""


def open_shards(pattern: Path) -> Source:
    """One shard, or those that ``shard-{00..12}.tar`` or ``shards/*.tar`` stand for.

    A sample is all members whose names are equal up to their last dot: a picture and, of these, one or both: ``.txt``
    (the caption) and ``.json`` (an object with the other fields). Members of other kinds are left alone.

    Raises ConfigError if a shard is missing or compressed.
    """
    files = tuple(path for name in expand_braces(str(pattern)) for path in _matching(Path(name)))
    for path in files:
        if path.suffix.lower() != ".tar":
            raise light("errors").ConfigError(f"--data {path}: compressed shards are not read; gunzip them first")
    return Source(pattern, files, partial(_read_all, files), own_media=True)


def _matching(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(path.parent.glob(path.name)) if any(mark in path.name for mark in "*?[") else []
    if not found:
        raise light("errors").ConfigError(f"--data {path} does not exist")
    return found


def _read_all(files: tuple[Path, ...], content: bool = True) -> Iterator[Found]:
    for path in files:
        yield from read_shard(path)


def read_shard(path: Path, remedy: str = "copy it again") -> Iterator[Found]:
    """The samples of a shard in the order of their first members.

    Args:
        path: the tar file.
        remedy: for one that is cut off or damaged.

    Raises:
        DataError: it is damaged or has no end, or holds a link or a name that would leave the folder it is unpacked in.
    """
    samples: dict[str, dict[str, Packed]] = {}
    faults: dict[str, str] = {}
    for member in _members(path, remedy):
        name = PurePosixPath(member.cell)
        key, kind = str(name.with_suffix("")), name.suffix.lower()
        kind = "picture" if kind in PICTURES else kind
        if kind in ("picture", TEXT, RECORD):
            sample = samples.setdefault(key, {})
            if kind in sample:
                faults.setdefault(key, f"has both {sample[kind].cell} and {member.cell}: keep one")
            sample[kind] = member
    with path.open("rb") as handle:
        for key, sample in samples.items():
            yield _sample(f"{path}: {key}", key, sample, handle, faults.get(key, ""))


def _sample(where: str, key: str, members: dict[str, Packed], handle: Any, fault: str) -> Found:
    if not fault and "picture" not in members:
        fault = "has no picture: " + ", ".join(member.cell for member in members.values())
    if not fault and len(members) == 1:
        fault = f"has no text: add {key}{TEXT} or {key}{RECORD}"
    if fault:
        return Found({}, where, fault)
    # The picture's own name belongs to the sample, not to the file that a field of its JSON may name.
    fields: dict[str, Any] = {}
    try:
        if RECORD in members:
            fields.update(_object(_text(members[RECORD], handle)))
        if TEXT in members:
            fields["caption"] = _text(members[TEXT], handle)
    except ValueError as error:
        return Found({}, where, str(error))
    return Found({"image_id": key, **fields, "image": members["picture"]}, where)


def _text(member: Packed, handle: Any) -> str:
    """Raises ValueError."""
    if member.size > LONGEST_TEXT:
        raise ValueError(f"{member.cell} has {member.size} bytes, more than {LONGEST_TEXT}: it is no caption")
    handle.seek(member.offset)
    try:
        return handle.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{member.cell} is not UTF-8 (byte {error.start + 1}): save it as UTF-8") from error


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError('the .json member needs an object, as in {"caption": "a cat"}')
    return value


def _members(path: Path, remedy: str) -> Iterator[Packed]:
    """All files in a shard."""
    bad = light("errors").DataError
    size = path.stat().st_size
    if size == 0:
        raise bad(f"{path} is cut off, it is empty: {remedy}")
    try:
        with tarfile.open(path, "r:") as tar:
            headers: list[tarfile.TarInfo] = vars(tar)["members"]
            while (member := tar.next()) is not None:
                headers.clear()  # it would keep all of them
                if member.isdir():
                    continue
                name = PurePosixPath(member.name)
                if not member.isreg() or member.issparse():
                    raise bad(f"{path}: {member.name!a} is a link or no plain file: pack the shard anew without it")
                if not name.name or name.is_absolute() or ".." in name.parts or not member.name.isprintable():
                    raise bad(f"{path}: the name {member.name!a} leaves its folder or is no text: pack the shard anew")
                if tar.offset > size:
                    raise bad(f"{path} is cut off in {member.name}: {remedy}")
                yield Packed(path, member.offset_data, member.size, member.name)
            _check_end(path, tar.offset, remedy)
    except (tarfile.TarError, EOFError, OverflowError) as error:
        what = "is cut off" if size < tarfile.BLOCKSIZE else "is not a readable tar file"
        raise bad(f"{path} {what} ({error}): {remedy}") from error


def _check_end(path: Path, offset: int, remedy: str) -> None:
    """Raise DataError unless zeros, and enough of them, follow the last member.

    tarfile takes a header that is cut or damaged for the end, and does not look behind the end of the first of several
    files that were joined: members would be lost without a word.
    """
    bad = light("errors").DataError
    with path.open("rb") as handle:
        end = handle.seek(0, os.SEEK_END)
        if end - offset < END:
            raise bad(f"{path} is cut off, it has no end: {remedy}")
        handle.seek(offset)
        while block := handle.read(2**20):
            if block.count(0) < len(block):
                where = handle.tell() - len(block.lstrip(b"\0")) + 1
                raise bad(f"{path} is damaged at byte {where}, or several were joined there: {remedy}")
