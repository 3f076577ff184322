"""``unival data shuffle``: whole lines in random order, whatever they hold, with bounded memory.

The output is divided into parts that fit in memory. The source is read once, from its beginning to its end, and every
row is put into its part, behind the rows that came before it; then one part after the other is read, brought into its
order and written back. So the disk needs room for the output alone, and nothing is read or written in small pieces.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .files import atomic_output, refuse_existing
from .light import light

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MEGABYTE = 2**20
LARGEST_BLOCK = 32 * MEGABYTE
"""Bytes of the source that are read at a time; more would not be faster."""

_ROWS_AT_A_TIME = 2**16
_ROW_COST = 64  # bytes of numbers about a row, while its part is brought into its order


def run_shuffle(args: argparse.Namespace) -> int:
    """Write one or several copies in random order; copy k has the order of epoch k of a training with shuffling."""
    config_error = light("errors").ConfigError
    if args.copies is not None and args.copies < 1:
        raise config_error(f"--copies is {args.copies}, but at least 1 copy is needed")
    if args.memory < 1:
        raise config_error(f"--memory is {args.memory}, but at least 1 MB is needed")
    outputs = copy_names(args.output, args.copies)
    for output in outputs:
        if output.exists() and output.samefile(args.input):
            raise config_error(f"{output} is the input; write the shuffled rows to another file")
        refuse_existing(output, args.overwrite)
    _check_space(args.input, outputs)
    for epoch, output in enumerate(outputs, start=1):
        rows = shuffle_rows(args.input, output, args.seed, epoch, args.overwrite, args.memory * MEGABYTE)
        print(f"{output}: {rows} rows")
    return 0


def copy_names(output: Path, copies: int | None) -> list[Path]:
    """``out.tsv`` itself, or ``out_1.tsv`` ... ``out_K.tsv`` for K copies."""
    if copies is None:
        return [output]
    return [output.with_name(f"{output.stem}_{k}{output.suffix}") for k in range(1, copies + 1)]


def _check_space(source: Path, outputs: list[Path]) -> None:
    """Raises DataError if the copies do not fit on the disk: better now than after hours."""
    if not source.is_file() or not outputs[0].parent.is_dir():
        return  # what opens them says so
    needed, free = len(outputs) * source.stat().st_size, shutil.disk_usage(outputs[0].parent).free
    if needed > free:
        raise light("errors").DataError(
            f"{outputs[0].parent}: {needed / 1e9:.1f} GB are needed for {len(outputs)} shuffled file(s), "
            f"{free / 1e9:.1f} GB are free: free the rest, write to another disk, or write fewer --copies"
        )


def shuffle_rows(
    source: Path, output: Path, seed: int, epoch: int, overwrite: bool = False, memory: int = 128 * MEGABYTE
) -> int:
    """Write the rows of ``source`` in the order of (seed, epoch) and return their number. Lines end in ``\\n`` alone.

    Args:
        memory: bytes of rows, and of numbers about them, that are held at a time; 20 bytes a row come on top.

    Raises:
        DataError: ``source`` cannot be read, has no rows, or does not fit its index.
        FileExistsError: ``output`` exists, unless ``overwrite``.
    """
    table = light("data.tsv").TsvTable(source)
    total = len(table)
    if total == 0:
        raise light("errors").DataError(f"{source} is empty; there is nothing to shuffle")
    order = _row_numbers(light("data.batching").row_order(total, seed, epoch, True))
    parts = Parts(order, table.offsets, memory)
    with _ended_by_signals(), atomic_output(output, overwrite) as out, source.open("rb") as file:
        lines = Lines(file, table.offsets, source)
        with _progress(total * (1 + (len(parts) > 1)), output.name) as bar:
            if len(parts) > 1:
                _distribute(lines, parts, out, bar)
                _order_parts(parts, out, bar)
            else:
                starts = (table.offsets[order] - table.offsets[0]).astype("int64")
                _write(lines.read(0, total), starts, parts.lengths(0), out, bar)
    return total


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A job that is ended by its scheduler leaves no half file either."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress(rows: int, label: str) -> Any:
    from tqdm import tqdm

    return tqdm(total=rows, desc=label, unit="row", unit_scale=True, disable=None)


def _row_numbers(order: NDArray[np.int64]) -> NDArray[Any]:
    """The same numbers in half of the memory, where they fit."""
    return order if len(order) >= 2**32 - 1 else order.astype("uint32")


class Lines:
    """The lines of a file, read in large pieces.

    Args:
        file: open for reading.
        offsets: where its rows start, and where a row behind the last one would, (rows + 1,).
        path: for messages.
    """

    def __init__(self, file: BinaryIO, offsets: NDArray[np.int64], path: Path) -> None:
        self.file, self.offsets, self.path = file, offsets, path

    def read(self, first: int, behind: int) -> bytearray:
        """Rows ``first`` to ``behind - 1`` with their line ends, also where the last one lacks it.

        Raises:
            DataError: they do not end where the index says.
        """
        start, stop = int(self.offsets[first]), int(self.offsets[behind])
        self.file.seek(start)
        lines = bytearray(stop - start)
        read = self.file.readinto(lines)  # type: ignore[attr-defined]
        if read == len(lines) - 1 and behind == len(self.offsets) - 1:
            lines[read] = ord("\n")
            read += 1
        if read != len(lines) or not self._end_where_expected(lines, first, behind):
            index = light("data.tsv").index_path(self.path)
            raise light("errors").DataError(f"{index} does not fit {self.path}: delete it, it will be built anew")
        return lines

    def _end_where_expected(self, lines: bytearray, first: int, behind: int) -> bool:
        import numpy as np

        last = self.offsets[first + 1 : behind + 1] - self.offsets[first] - 1
        inside = bool(last.min() >= 0) and bool(last.max() < len(lines))
        return inside and bool((np.frombuffer(lines, np.uint8)[last] == ord("\n")).all())

    def blocks(self, size: int) -> Iterator[range]:
        """All rows, about ``size`` bytes of them at a time."""
        first, total = 0, len(self.offsets) - 1
        while first < total:
            behind = int(self.offsets.searchsorted(int(self.offsets[first]) + size, "right")) - 1
            rows = range(first, max(first + 1, min(behind, first + _ROWS_AT_A_TIME, total)))
            yield rows
            first = rows.stop


class Parts:
    """The parts of the output, each of which fits in memory; they lie one after the other in the file.

    Args:
        order: row numbers in the order of the output.
        offsets: as of :class:`Lines`.
        memory: what a part may take, in bytes; a row that takes more is a part of its own.
    """

    def __init__(self, order: NDArray[Any], offsets: NDArray[np.int64], memory: int) -> None:
        self.order, self.offsets, self.memory = order, offsets, memory
        self.places = self._divide()  # in the order, at which parts begin, and the end

    def __len__(self) -> int:
        return len(self.places) - 1

    def rows(self, part: int) -> NDArray[Any]:
        """The rows of a part, in the order of the output."""
        return self.order[self.places[part] : self.places[part + 1]]

    def lengths(self, part: int) -> NDArray[np.int64]:
        """How long they are, with line ends."""
        return self._lengths(self.rows(part))

    def of_rows(self) -> NDArray[Any]:
        """For every row the part it belongs to."""
        import numpy as np

        numbers = np.empty(len(self.order), np.uint16 if len(self) < 2**16 else np.uint32)
        for part in range(len(self)):
            numbers[self.rows(part)] = part
        return numbers

    def _lengths(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        return (self.offsets[rows + 1] - self.offsets[rows]).astype("int64", copy=False)

    def _divide(self) -> list[int]:
        """As many rows for every part as fit."""
        places, full, held = [0], 0, 0  # full: bytes behind the parts that are complete; held: behind all rows so far
        for start in range(0, len(self.order), _ROWS_AT_A_TIME):
            lengths = self._lengths(self.order[start : start + _ROWS_AT_A_TIME])
            ends = held + (lengths + _ROW_COST).cumsum()
            while ends[-1] - full > self.memory:
                fit = int(ends.searchsorted(full + self.memory, "right"))
                if start + fit == places[-1]:
                    fit += 1
                places.append(start + fit)
                full = int(ends[fit - 1]) if fit else held
            held = int(ends[-1])
        return places if places[-1] == len(self.order) else [*places, len(self.order)]


def _distribute(lines: Lines, parts: Parts, out: BinaryIO, bar: Any) -> None:
    """Put every row into its part, behind those that come before it in the source."""
    import numpy as np

    part_of = parts.of_rows()
    ends = np.cumsum([0, *(int(parts.lengths(part).sum()) for part in range(len(parts)))]).tolist()
    size = max(1, min(LARGEST_BLOCK, parts.memory // 4))
    for rows in lines.blocks(size):
        block = memoryview(lines.read(rows.start, rows.stop))
        numbers = part_of[rows.start : rows.stop]
        by_part = np.argsort(numbers, kind="stable")
        places = (lines.offsets[rows.start : rows.stop + 1] - lines.offsets[rows.start]).astype(np.int64)
        starts, stops = places[:-1][by_part].tolist(), places[1:][by_part].tolist()
        found, firsts = np.unique(numbers[by_part], return_index=True)
        for part, first, behind in zip(found.tolist(), firsts.tolist(), [*firsts[1:].tolist(), len(rows)], strict=True):
            data = b"".join(block[a:b] for a, b in zip(starts[first:behind], stops[first:behind], strict=True))
            out.seek(ends[part])
            ends[part] += out.write(data)
        bar.update(len(rows))
    out.flush()


def _order_parts(parts: Parts, out: BinaryIO, bar: Any) -> None:
    """Bring every part into its order; what line ends lose moves the parts behind forward."""
    out.seek(0)
    with Path(out.name).open("rb") as written:
        for part in range(len(parts)):
            lengths = parts.lengths(part)
            _write(written.read(int(lengths.sum())), _starts(parts.rows(part), lengths), lengths, out, bar)
    out.flush()
    out.truncate(out.tell())


def _starts(rows: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where rows of these lengths start in a part that holds them in the order of the source."""
    import numpy as np

    by_row = np.argsort(rows)
    starts = np.empty_like(lengths)
    starts[by_row] = lengths[by_row].cumsum() - lengths[by_row]
    return starts


def _write(
    lines: bytes | bytearray, starts: NDArray[np.int64], lengths: NDArray[np.int64], out: BinaryIO, bar: Any
) -> None:
    """Write lines in this order, without carriage returns."""
    clean = b"\r" not in lines
    view = memoryview(lines)
    for first in range(0, len(starts), _ROWS_AT_A_TIME):
        some = slice(first, first + _ROWS_AT_A_TIME)
        places = list(zip(starts[some].tolist(), (starts[some] + lengths[some]).tolist(), strict=True))
        if clean:
            out.writelines(view[start:stop] for start, stop in places)
        else:
            out.writelines(lines[start : stop - 1].rstrip(b"\r") + b"\n" for start, stop in places)
        bar.update(len(places))
