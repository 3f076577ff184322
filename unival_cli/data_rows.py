"""Checking the rows of a file, in this process or in several, with bounded memory."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .data_cells import MEDIA, CellChecker
from .data_report import BadCell, Fault, Report
from .data_schemas import Schema
from .light import light

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 128
"""Rows that a process checks before it reports."""

AHEAD = 4
"""Chunks a worker that are asked for before the first of them is used: neither side waits, and few reports wait."""

_FORGET_BYTES = 8 * 2**20
_READ_AROUND = 2**16  # what the system maps around a byte that is read for the first time
_LOOK_ROWS = 100  # from which the usual number of columns is taken


@dataclass(frozen=True)
class Job:
    """What is checked; goes to the worker processes, so it holds nothing but small values.

    Attributes:
        path: the file.
        columns: numbers of its columns, in the order of the schema.
        schema: what they hold.
        cells: how a cell is checked.
        width: the number of columns that rows have.
    """

    path: Path
    columns: tuple[int, ...]
    schema: Schema
    cells: CellChecker
    width: int


class Rows:
    """The rows of a file, as bytes, with memory for a few of them only."""

    def __init__(self, path: Path) -> None:
        self.table = light("data.tsv").TsvTable(path)
        self._read = 0

    def __len__(self) -> int:
        return len(self.table)

    def line(self, row: int, near: int = 0) -> bytes:
        """A row without its ``\\n``; ``near``: bytes around it that the system maps as well."""
        line: bytes = self.table.line(row)
        self._read += len(line) + near
        if self._read > _FORGET_BYTES:
            self.table.forget()
            self._read = 0
        return line

    def usual_width(self) -> int:
        """The number of columns that most of the first rows have; of blank lines nothing is expected."""
        lines = (self.line(row).removesuffix(b"\r") for row in range(min(_LOOK_ROWS, len(self))))
        widths = Counter(line.count(b"\t") + 1 for line in lines if line)
        return max(widths, key=widths.__getitem__, default=1)

    def split(self, row: int, line: bytes, width: int) -> list[bytes] | Fault:
        """All cells of a row, or what is wrong with it as a whole."""
        line = line.removesuffix(b"\r")
        cells = line.split(b"\t")
        if len(cells) == width:
            return cells
        if not line.strip():
            return Fault("blank row", "the line is blank: remove it")
        found = f"has {len(cells)} columns, but {width} are usual in this file"
        if len(cells) > width:
            return Fault("too many columns", f"{found}: remove stray tabs from its cells")
        if row == len(self) - 1 and self.table.last_line_is_open:
            return Fault("cut-off row", f"{found}, and no line end: the file was cut off; copy or write it again")
        return Fault("too few columns", f"{found}: add what is missing, and remove line ends from its cells")


class RowChecker:
    """Checks the rows of one file; every process has its own."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.rows = Rows(job.path)
        self.error = light("errors").DataError

    def check(self, rows: range) -> Report:
        """Check these rows (numbers from 0)."""
        report = Report(rows=len(rows))
        for row in rows:
            self._check_row(row, report)
        return report

    def _check_row(self, row: int, report: Report) -> None:
        job = self.job
        line = self.rows.line(row)
        report.crlf_rows += line.endswith(b"\r")
        whole = self.rows.split(row, line, job.width)
        if isinstance(whole, Fault):
            report.bad.append(BadCell(row + 1, None, *whole))
            report.key_hashes.append(_no_key(row))
            return
        cells = [whole[column] for column in job.columns]
        texts: list[str | None] = []
        size = None
        for (name, kind), cell, column in zip(job.schema.of_row(cells), cells, job.columns, strict=True):
            text, fault = self._text(name, kind, cell)
            texts.append(text)
            if text is not None and kind in MEDIA:
                size, fault = self._medium(kind, text, row, column, report)
            elif text is not None:
                fault = job.cells.fault(name, kind, text, size, report)
            if fault is not None:
                report.bad.append(BadCell(row + 1, column, *fault))
        key = [texts[place] for place in job.schema.key]
        report.key_hashes.append(_no_key(row) if None in key else _hash("\t".join(["key", *map(str, key)])))

    def _text(self, name: str, kind: str, cell: bytes) -> tuple[str | None, Fault | None]:
        """Text of a cell, or what is wrong with it as text."""
        try:
            text = cell.decode("utf-8")
        except UnicodeDecodeError as error:
            reason = f"{name} is not UTF-8 (byte {error.start} of the cell): convert the file to UTF-8"
            return None, Fault("not UTF-8", reason)
        fault = self.job.cells.text_fault(name, kind, text)
        return (text, None) if fault is None else (None, fault)

    def _medium(
        self, kind: str, text: str, row: int, column: int, report: Report
    ) -> tuple[tuple[int, int] | None, Fault | None]:
        where = f"{self.job.path}:row {row + 1}, column {column}"
        try:
            return self.job.cells.medium(kind, text, where, report), None
        except self.error as error:
            reason = " ".join(str(error).removeprefix(where).lstrip(": ").split())
            return None, Fault(getattr(error, "kind", f"unreadable {kind}"), reason)


def _no_key(row: int) -> int:
    return _hash(f"row {row}, no usable key")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


# -------------------------------------------------------------------------------- processes

_checker: RowChecker | None = None  # of a worker process


@contextmanager
def checking(job: Job, workers: int) -> Iterator[Callable[[Iterable[range]], Iterator[Report]]]:
    """A function that checks ranges of rows, in this process or in several, and gives their reports in order.

    Raises:
        DataError: a worker process was killed.
    """
    if workers == 1:
        yield partial(map, RowChecker(job).check)
        return
    light("data.picture_cells")  # before the processes fork: they share its memory
    context = multiprocessing.get_context()
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(job,)) as pool:
        try:
            pool.submit(_check, range(0)).result()  # the processes fork here, before a progress bar starts a thread
            yield partial(_in_order, pool, AHEAD * workers)
        except BrokenProcessPool as error:
            raise light("errors").DataError(
                f"{job.path}: a worker process was killed, perhaps for its memory; try fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, ahead: int, chunks: Iterable[range]) -> Iterator[Report]:
    """As ``pool.map``, with never more than ``ahead`` reports that wait to be used."""
    waiting: deque[Future[Report]] = deque()
    for rows in chunks:
        waiting.append(pool.submit(_check, rows))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start_worker(job: Job) -> None:
    global _checker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends the others
    _checker = RowChecker(job)


def _check(rows: range) -> Report:
    assert _checker is not None
    return _checker.check(rows)


# -------------------------------------------------------------------------------- repeated keys


def repeated_keys(job: Job, hashes: array[int]) -> Iterator[BadCell]:
    """Every row whose key an earlier row has, in order of the rows.

    Equal hashes only point to candidates; the keys themselves decide. Memory: about 40 bytes a row, whatever the file
    holds.
    """
    import numpy as np

    values = np.frombuffer(hashes, dtype=np.uint64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    same = ordered[1:] == ordered[:-1]
    del ordered
    if not same.any():
        return
    first = _first_rows(Rows(job.path), job, order, same)
    rows = Rows(job.path)
    names = " and ".join(job.schema.columns[k][0] for k in job.schema.key[1:])
    others = f" with the same {names}" if names else ""
    for row in map(int, np.flatnonzero(first >= 0)):
        key = _key(rows, job, row)
        reason = f"id {key[0].decode()[:60]!r}{others} is also in row {first[row] + 1}: remove one of them"
        yield BadCell(row + 1, job.columns[0], "repeated id", reason)


def _first_rows(rows: Rows, job: Job, order: NDArray[np.int64], same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For every row the first one with its key, int64 (rows,); -1 where there is none before it."""
    import numpy as np

    first = np.full(len(order), -1, np.int64)
    known: dict[tuple[bytes, ...], int] = {}
    member = np.zeros(len(order), bool)
    member[1:] = same
    member[:-1] |= same
    for place in map(int, np.flatnonzero(member)):
        if place == 0 or not same[place - 1]:
            known.clear()
        row = int(order[place])
        first[row] = known.setdefault(_key(rows, job, row), row)
        if first[row] == row:
            first[row] = -1
    return first


def _key(rows: Rows, job: Job, row: int) -> tuple[bytes, ...]:
    cells = rows.split(row, rows.line(row, _READ_AROUND), job.width)
    assert isinstance(cells, list)
    return tuple(cells[job.columns[place]] for place in job.schema.key)
