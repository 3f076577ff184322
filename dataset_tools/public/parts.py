"""What the builders of public data sets share: their description, and readers of raw files with clear errors."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

from unival_cli.data_schemas import SEPARATOR
from unival_cli.light import light
from unival_cli.row_writer import Item, Medium, clean_text


@dataclass(frozen=True)
class Split:
    """One table.

    Attributes:
        name: the output's name without ``.tsv``.
        records: gives the rows from the raw folder, anew at each call.
        files: the raw files that are read for it (not the pictures), relative to the raw folder.
        expected: the published number of rows; None: not published.
        usual: is built unless other ones are asked for.
        note: what it is, where its name does not tell.
    """

    name: str
    records: Callable[[Path], Iterator[Item]]
    files: tuple[str, ...]
    expected: Optional[int] = None
    usual: bool = True
    note: str = ""

    @property
    def output(self) -> str:
        """Name of the file."""
        return f"{self.name}.tsv"


@dataclass(frozen=True)
class Document:
    """A JSON file that belongs to the tables: a set of answers, or captions as COCO's evaluation reads them.

    Attributes:
        name: the output's name without ``.json``.
        content: makes it from the raw folder; a list or an object.
        files: the raw files that are read for it.
        expected: the published number of its entries; None: not published.
        usual: is built unless other ones are asked for.
        note: what it is.
        counted: what its entries are, by the keys under which they stand; empty: it is a list or object of entries.
    """

    name: str
    content: Callable[[Path], Any]
    files: tuple[str, ...]
    expected: Optional[int] = None
    usual: bool = True
    note: str = ""
    counted: Mapping[str, str] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """Name of the file."""
        return f"{self.name}.json"

    def counts(self, content: Any) -> dict[str, int]:
        """How many entries of each kind are in it."""
        if not self.counted:
            return {"entries": len(content)}
        return {what: len(content[key]) for key, what in self.counted.items()}


def captions_document(
    name: str, content: Callable[[Path], Any], file: str, media: str = "pictures", note: str = ""
) -> Document:
    """Captions in COCO's format, as evaluation reads them, of these media."""
    note = note or "the captions as coco_eval.py reads them"
    return Document(name, content, (file,), note=note, counted={"images": media, "annotations": "captions"})


@dataclass(frozen=True)
class Builder:
    """A public data set.

    Attributes:
        name: what the command calls it.
        task: whose rows it gives.
        title: what it is, in a line.
        licence: of the annotations and, where it differs, of the media.
        links: where to get it: names in the manifest of links.
        layout: how the raw folder must look.
        folder: the usual output folder.
        splits: its tables.
        documents: what belongs to them.
        raw: the usual raw folder, if other data sets share it.
        flags: usual flags of the command, as the run scripts expect the rows.
    """

    name: str
    task: str
    title: str
    licence: str
    links: tuple[str, ...]
    layout: str
    folder: str
    splits: tuple[Split, ...]
    documents: tuple[Document, ...] = ()
    raw: str = ""
    flags: str = ""

    @property
    def raw_folder(self) -> str:
        """The usual --raw."""
        return self.raw or f"raw/{self.name}"

    @property
    def media(self) -> str:
        """What its files are."""
        return {"video": "films", "audio": "sounds"}.get(self.task.partition("_")[0], "pictures")

    @property
    def outputs(self) -> tuple[Split | Document, ...]:
        """Tables and documents."""
        return (*self.splits, *self.documents)


def below(raw: Path, name: str) -> Medium:
    """A file of the raw folder; rows name it by its path in there."""
    return Medium(raw / name, name)


# -------------------------------------------------------------------------------- texts


def sentence(text: str) -> str:
    """A text for a cell of several: clean, without the mark that separates texts, and no half of it at an end."""
    return clean_text(re.sub("&{2,}", "&", text)).strip("& ")


def joined(texts: Sequence[str]) -> str:
    """Several texts in a cell; empty ones are left out."""
    return SEPARATOR.join(text for text in map(sentence, texts) if text)


# -------------------------------------------------------------------------------- raw files


def bad_file(message: str) -> ValueError:
    """A DataError to raise."""
    error: ValueError = light("errors").DataError(message)
    return error


def read_json(path: Path, hook: Optional[Callable[[dict[str, Any]], Any]] = None) -> Any:
    """The content of a JSON file; ``hook`` replaces objects while it is read, which keeps large files small in memory.

    Raises DataError if it cannot be read or is no JSON.
    """
    try:
        with path.open(encoding="utf-8-sig") as handle:
            return json.load(handle, object_hook=hook)
    except OSError as error:
        raise bad_file(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise bad_file(f"{path} is not valid JSON ({error}): download it again") from error


def read_list(path: Path, name: str, hook: Optional[Callable[[dict[str, Any]], Any]] = None) -> Iterator[Entry]:
    """The objects of a JSON file that is one list; ``name`` is what messages call one. Raises DataError."""
    content = read_json(path, hook)
    if not isinstance(content, list):
        raise bad_file(f"{path} holds no list: the file has another format")
    for number, value in enumerate(content, start=1):
        yield Entry(value, f"{path}: {name} {number}")


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of every line that is not empty. Raises DataError."""
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise bad_file(f"{where} is not valid JSON ({error}): download the file again") from error
        if not isinstance(entry, dict):
            raise bad_file(f"{where} holds no object")
        yield where, entry


def read_csv(
    path: Path,
    columns: Sequence[str],
    delimiter: str = ",",
    header: bool = True,
    quoting: Literal[0, 1, 2, 3] = csv.QUOTE_MINIMAL,
) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and cells of every row. Raises DataError.

    Args:
        columns: the names that are needed; without a header, the names of all columns in their order.
        delimiter: between cells.
        header: the first line has the names.
        quoting: csv.QUOTE_NONE where quotation marks are only text.
    """
    rows = csv.DictReader(
        (line for _, line in _lines(path)), None if header else columns, delimiter=delimiter, quoting=quoting
    )
    try:
        if missing := [name for name in columns if name not in (rows.fieldnames or ())]:
            raise bad_file(f"{path}: its first line has no column {missing[0]!r}: download it again")
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if any(row[name] is None for name in columns):
                raise bad_file(f"{where} has fewer cells than the {len(columns)} that are needed")
            yield where, row
    except csv.Error as error:
        raise bad_file(f"{path}:{rows.line_num} is not valid CSV ({error}): download it again") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            yield from enumerate(handle, start=1)
    except OSError as error:
        raise bad_file(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise bad_file(f"{path} is not UTF-8 (byte {error.start + 1} of a block): download it again") from error


class Entry:
    """An object of a raw file, whose values are checked when they are asked for.

    Args:
        value: what should be an object.
        where: its place, for messages.
    """

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise bad_file(f"{where} is no object: the file has another format")
        self.value, self.where = value, where

    def text(self, key: str) -> str:
        """The text under a key. Raises DataError if there is none."""
        return str(self._of(key, str, "text"))

    def number(self, key: str) -> int:
        """The whole number under a key, which may be written as a text. Raises DataError if there is none."""
        value = self.value.get(key)
        return int(value) if isinstance(value, str) and value.isdecimal() else int(self._of(key, int, "whole number"))

    def array(self, key: str) -> list[Any]:
        """The list under a key. Raises DataError if there is none."""
        found: list[Any] = self._of(key, list, "list")
        return found

    def entries(self, key: str, name: str) -> Iterator[Entry]:
        """The objects of the list under a key; ``name`` is what the messages call one."""
        for number, value in enumerate(self.array(key), start=1):
            yield Entry(value, f"{self.where}: {name} {number}")

    def _of(self, key: str, kind: type, what: str) -> Any:
        value = self.value.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise bad_file(f"{self.where} has no {what} {key!r}: the file has another format")
        return value
