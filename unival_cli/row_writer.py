"""Rows with the files that belong to them become a table: in order, read ahead by threads, going on after a stop."""

from __future__ import annotations

import base64
import io
import itertools
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, Union

from .files import progress, refuse_existing
from .light import light
from .similar_files import similar_file
from .unfinished_output import State, UnfinishedOutput

SHOWN_BAD_ROWS = 20
"""How many bad rows are named; all are counted."""
NOTE_SECONDS = 5.0
"""How often the state of an unfinished output is noted."""
AHEAD = 4
"""How many pieces of work a thread may be ahead."""
PIECE = 256
"""How many records a thread takes at once where that is little work."""
NAMES_KEPT = 1_000_000
"""How many different files are known by name, so that memory has a limit."""


@dataclass(frozen=True)
class Medium:
    """A file for a cell: ``cell`` is its path as the rows name it, ``path`` where it is now."""

    path: Path
    cell: str


@dataclass(frozen=True)
class Packed:
    """A file inside another one (a tar): ``size`` bytes from ``offset``; ``cell`` is its name for messages."""

    archive: Path
    offset: int
    size: int
    cell: str


T = TypeVar("T")
Line = Union[bytes, ValueError]
Cell = Union[str, Medium, Packed]


@dataclass(frozen=True)
class Record:
    """The cells of one row, and the place (``file:record``) where they were read, for messages."""

    cells: tuple[Cell, ...]
    where: str


@dataclass(frozen=True)
class LeftOut:
    """What the data set holds but gives no row; counted by reason ("without an agreed label")."""

    reason: str


Item = Union[Record, LeftOut]
RecordSource = Union[Iterable[Item], Callable[[], Iterable[Item]]]
"""Records that can be gone through more than once: a sequence, or a function that starts anew at each call."""


@dataclass
class Summary:
    """What was written.

    Attributes:
        rows: rows in the table.
        bad: rows that could not be written and were left out.
        bytes: size of the table.
        media: different files in its rows (over a million of them, one that returns later may count again).
        left_out: number of what gives no row, by reason.
    """

    rows: int
    bad: int
    bytes: int
    media: int
    left_out: dict[str, int] = field(default_factory=dict)


def clean_text(text: str) -> str:
    """White space, also tabs and line ends, which would break the row, becomes single blanks; none at the ends."""
    return " ".join(text.split())


def write_rows(
    output: Path,
    records: RecordSource,
    *,
    inputs: Mapping[str, Any],
    workers: int = 1,
    paths: bool = False,
    on_bad: str = "raise",
    overwrite: bool = False,
    tool: str = "unival data pack",
    media: str = "pictures",
) -> Summary:
    """Write a table; its bytes depend on the records only, not on ``workers`` or on stops in between.

    The records are gone through twice: files that are missing are found before the first row is written. While it is
    unfinished the table is ``.NAME.part``; a call with the same ``inputs`` goes on with it.

    Args:
        output: the table.
        records: the rows.
        inputs: what the rows are made from, plain data (JSON), such as fingerprints of files and flags.
        workers: threads that read ahead.
        paths: write the paths of the files instead of their contents; needed for anything but pictures.
        on_bad: "raise", or "skip": name and count rows that cannot be written, for example without their file.
        overwrite: replace an output that exists.
        tool: name for messages.
        media: what the files are, in messages.

    Raises:
        FileExistsError: there is such an output.
        DataError: files are missing, a row cannot be written, none is left, or the disk is full.
    """
    if on_bad not in ("raise", "skip"):
        raise ValueError(f"on_bad is {on_bad!r}: say 'raise' or 'skip'")
    refuse_existing(output, overwrite)
    known_by = json.loads(json.dumps({**inputs, "paths": paths}))
    with ThreadPoolExecutor(workers) as pool:
        source = _Source(records, pool, workers * AHEAD)
        found = _survey(source, media)
        if found.missing.count and on_bad == "raise":
            raise light("errors").DataError(found.complaint(media))
        writer = _Writer(source, _RowReader(paths), found.records, on_bad == "skip", tool)
        try:
            state = writer.run(UnfinishedOutput(output, tool), known_by)
        except OSError as error:  # those of reading have become bad rows
            raise light("errors").DataError(
                f"{output} cannot be written ({error.strerror or error}): make room or choose another place; "
                "the same command goes on where it stopped"
            ) from error
    return Summary(state.written, state.bad_rows, state.size, found.files.count, dict(found.left_out))


class _Source:
    """Records that can be gone through again, worked on by threads in their order.

    Args:
        records: the records.
        pool: the threads.
        ahead: how many pieces of work may wait or be done beyond the one that is asked for.
    """

    def __init__(self, records: RecordSource, pool: ThreadPoolExecutor, ahead: int) -> None:
        if not callable(records) and iter(records) is records:
            raise TypeError("records must be a sequence or a function, not an iterator: they are gone through twice")
        self._records, self._pool, self._ahead = records, pool, ahead

    def map(self, function: Callable[[Item], T], first: int = 0, piece: int = 1) -> Iterator[T]:
        """The function's results for the records from number ``first`` on; a thread takes ``piece`` records at once."""
        start = self._records() if callable(self._records) else self._records
        records = itertools.islice(start, first, None)
        waiting: deque[Future[list[T]]] = deque()
        while group := list(itertools.islice(records, piece)):
            waiting.append(self._pool.submit(lambda items: [function(item) for item in items], group))
            if len(waiting) == self._ahead:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


# -------------------------------------------------------------------------------- before writing


class _Distinct:
    """Counts different names, in limited memory."""

    def __init__(self) -> None:
        self.count, self._last, self._seen = 0, "", set[int]()

    def add(self, name: str) -> None:
        if name == self._last:
            return
        self._last, key = name, hash(name)
        if key not in self._seen:
            self.count += 1
            if len(self._seen) < NAMES_KEPT:
                self._seen.add(key)


@dataclass
class _Survey:
    """What the records ask for."""

    records: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    files: _Distinct = field(default_factory=_Distinct)
    missing: _Distinct = field(default_factory=_Distinct)
    example: str = ""
    remedy: str = ": add them"

    def complaint(self, media: str) -> str:
        missing, of = self.missing.count, self.files.count + self.missing.count
        return f"{missing} of {of} {media} are missing, e.g. {self.example}{self.remedy}, or have their rows left out"


def _survey(source: _Source, media: str) -> _Survey:
    survey = _Survey()
    for item, missing in progress(source.map(_look_for_files, piece=PIECE), None, f"looking for {media}"):
        survey.records += 1
        if isinstance(item, LeftOut):
            survey.left_out[item.reason] += 1
            continue
        for cell in _files_of(item):
            (survey.missing if cell in missing else survey.files).add(cell.cell)
        if missing and not survey.example:
            survey.example = f"{_path(missing[0])} ({item.where})"
            similar = similar_file(_path(missing[0]), missing[0].cell)
            survey.remedy = f", but there is {similar}: correct the paths" if similar else survey.remedy
    return survey


def _look_for_files(item: Item) -> tuple[Item, list[Medium | Packed]]:
    """The record, and which of its files are missing."""
    return item, [cell for cell in _files_of(item) if not _path(cell).is_file()]


def _files_of(item: Item) -> list[Medium | Packed]:
    return [cell for cell in item.cells if not isinstance(cell, str)] if isinstance(item, Record) else []


def _path(cell: Medium | Packed) -> Path:
    return cell.path if isinstance(cell, Medium) else cell.archive


# -------------------------------------------------------------------------------- rows


class _RowReader:
    """Records -> lines of the table; threads may share it."""

    def __init__(self, paths: bool) -> None:
        self.paths = paths
        self._bad = light("errors").DataError
        self._formats: tuple[str, ...] = () if paths else light("data.picture_cells").FORMATS

    def __call__(self, record: Item) -> Line:
        """The row with its line end (none of what is left out), or why it cannot be written."""
        if isinstance(record, LeftOut):
            return b""
        try:
            return b"\t".join([self._cell(cell, record.where) for cell in record.cells]) + b"\n"
        except self._bad as error:
            return error
        except UnicodeEncodeError as error:
            return self._bad(f"{record.where}: {error.object[:40]!a} is no text: correct it or remove the record")

    def _cell(self, cell: Cell, where: str) -> bytes:
        if isinstance(cell, str):
            return clean_text(cell).encode("utf-8")
        return self._name(cell, where) if self.paths else self._content(cell, where)

    def _name(self, cell: Medium | Packed, where: str) -> bytes:
        if isinstance(cell, Packed):
            raise self._bad(f"{where}: {cell.cell} is inside {cell.archive}: unpack it, or write without paths")
        if not cell.path.is_file():
            raise self._bad(f"{where}: {cell.path} is missing")
        if cell.cell != cell.cell.strip() or any(mark in cell.cell for mark in "\t\r\n"):
            raise self._bad(
                f"{where}: the path {cell.cell!a} has tabs, line ends or blanks at its ends: rename the file"
            )
        return cell.cell.encode("utf-8")

    def _content(self, cell: Medium | Packed, where: str) -> bytes:
        name = str(cell.path) if isinstance(cell, Medium) else f"{cell.cell} in {cell.archive}"
        try:
            data = _read(cell)
        except OSError as error:
            raise self._bad(f"{where}: {name} cannot be read ({error.strerror})") from error
        reason = _why_no_picture(data, self._formats)
        if isinstance(cell, Packed) and len(data) < cell.size:
            reason = "is cut off"
        if reason:
            raise self._bad(f"{where}: {name} {reason}: replace it or remove the record")
        return base64.b64encode(data)


def _read(cell: Medium | Packed) -> bytes:
    if isinstance(cell, Medium):
        return cell.path.read_bytes()
    with cell.archive.open("rb") as handle:
        handle.seek(cell.offset)
        return handle.read(cell.size)


def _why_no_picture(data: bytes, formats: tuple[str, ...]) -> str:
    """Empty if the header is a picture's; pixels are not decoded, so damage further on is left to ``data validate``."""
    from PIL import Image

    if not data:
        return "is empty"
    try:
        with Image.open(io.BytesIO(data)) as image:
            return "" if image.format in formats else f"is a picture in a format that is not read ({image.format})"
    except Exception as error:  # Pillow's readers raise nearly every type on damaged bytes
        return "has too many pixels" if isinstance(error, Image.DecompressionBombError) else "is no picture"


# -------------------------------------------------------------------------------- writing


class _Writer:
    """Writes the rows in order while threads read the next ones.

    Args:
        source: the records.
        read: makes a line of a record.
        total: number of records.
        skip: leave bad rows out instead of stopping.
        tool: name for messages.
    """

    def __init__(self, source: _Source, read: _RowReader, total: int, skip: bool, tool: str) -> None:
        self.source, self.read, self.total, self.skip, self.tool = source, read, total, skip, tool

    def run(self, part: UnfinishedOutput, inputs: dict[str, Any]) -> State:
        """Write what an earlier call with these inputs has not written, and finish the output."""
        with part.open(inputs) as (handle, state):
            if state.bad_rows and not self.skip:  # of a call that left rows out, as this one must not
                handle.truncate(0)
                state.rows = state.written = state.size = state.bad_rows = 0
            self._write_all(part, handle, state)
            if state.written == 0:
                state.rows = 0  # nothing that is worth going on from
                raise light("errors").DataError(f"{part.output} would have no rows: none of the records can be used")
        return state

    def _write_all(self, part: UnfinishedOutput, handle: BinaryIO, state: State) -> None:
        from tqdm import tqdm

        noted = time.monotonic()
        # Paths cost a thread nearly nothing, contents may be large: many of the one, few of the other at once.
        lines = self.source.map(self.read, first=state.rows, piece=PIECE if self.read.paths else 1)
        with tqdm(total=self.total, initial=state.rows, desc=part.output.name, unit="row", disable=None) as bar:
            for line in lines:
                self._write(line, handle, state)
                bar.update()
                if time.monotonic() - noted >= NOTE_SECONDS:
                    part.note(handle, state)
                    noted = time.monotonic()

    def _write(self, line: Line, handle: BinaryIO, state: State) -> None:
        if isinstance(line, bytes):
            handle.write(line)
            state.written += bool(line)
            state.size += len(line)
        elif not self.skip:
            raise line
        else:
            self._leave_out(line, state)
        state.rows += 1

    def _leave_out(self, error: ValueError, state: State) -> None:
        from tqdm import tqdm

        state.bad_rows += 1
        if state.bad_rows <= SHOWN_BAD_ROWS:
            tqdm.write(f"{self.tool}: row left out: {error}", file=sys.stderr)
        elif state.bad_rows == SHOWN_BAD_ROWS + 1:
            tqdm.write(f"{self.tool}: further bad rows are counted, not named", file=sys.stderr)
