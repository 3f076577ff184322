"""Random access to the rows of a tab-separated file of any size.

The format is UnIVAL's (data/file_dataset.py): no header, no quoting, one row per line, UTF-8. The file is
memory-mapped; where each row starts stands in a side-car index (``<file>.idx``), which is memory-mapped too, so that a
table costs no memory of its own and all workers share the pages. Both line ends (``\\n``, ``\\r\\n``) are accepted, the
last line end may be missing, and a UTF-8 byte order mark at the start of the file is skipped, because it would
otherwise become part of the first id.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import mmap
import os
import secrets
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_INDEX_DTYPE = np.dtype("<i8")
_INDEX_MAGIC = int.from_bytes(b"UNIVIDX1", "little")
_HEADER_FIELDS = 3  # magic, size of the table in bytes, its mtime in ns; then the offsets of all rows and of the end
_BLOCK_BYTES = 16 * 2**20
_READ_BYTES = 2**20


def epoch_file(data: str, split: str, epoch: int) -> str:
    """File of one split and epoch (counted from 1) out of ``"train_1,...,train_n,valid"``.

    Training walks through all files but the last and starts over; every other split reads the last one.
    UnIVAL, tasks/ofa_task.py.

    Raises:
        ConfigError: an entry is empty, or ``split`` is "train" and ``data`` names one file only.
    """
    files = [name.strip() for name in data.split(",")]
    if not all(files):
        raise ConfigError(f"data: empty file name in '{data}': separate the files by single commas")
    if split != "train":
        return files[-1]
    if len(files) < 2:
        raise ConfigError(f"data: training needs 'train.tsv[,more.tsv],valid.tsv', got only '{data}'")
    return files[(epoch - 1) % (len(files) - 1)]


def build_index(path: str | Path, progress: bool = False) -> np.ndarray:
    """Scan a table, write its side-car index and return where the rows start.

    Args:
        path: the table.
        progress: show a progress bar on standard error.

    Returns:
        byte offsets of the rows, int64, shape ``(rows,)``.

    Raises:
        DataError: the table cannot be read.
    """
    path = Path(path)
    with _open_table(path) as file:
        header, offsets = _scan(path, file, progress)
    _write_index(path, header, offsets)
    return np.frombuffer(offsets, np.int64)[:-1]


class TsvTable:
    """The rows of one file, by number; safe to pickle and to use from forked and spawned workers.

    Nothing is opened, but for a check, until a row is asked for. All rows must have as many columns as the first.

    Args:
        path: tab-separated file.
        columns: which columns to return, in this order, counted from 0; as numbers or as text ("0,4,2"). None = all.

    Raises:
        DataError: here, if the file cannot be opened; later, if a selected column does not exist or a row is damaged.
        ConfigError: ``columns`` is not a list of column numbers.
    """

    def __init__(self, path: str | Path, columns: Sequence[int] | str | None = None) -> None:
        self.path = Path(path)
        self._columns = _parse_columns(columns)
        self._map: mmap.mmap | bytes | None = None
        self._offsets = np.zeros(1, _INDEX_DTYPE)
        self._width = 0
        _open_table(self.path).close()

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "columns": self._columns}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __len__(self) -> int:
        self._open()
        return len(self._offsets) - 1

    @property
    def columns(self) -> tuple[int, ...]:
        """File columns of the returned cells, in order."""
        self._open()
        return tuple(range(self._width)) if self._columns is None else self._columns

    @property
    def offsets(self) -> np.ndarray:
        """Where the rows start in the file, in bytes, and where one behind the last would: int64 (rows + 1,)."""
        self._open()
        return self._offsets

    def row(self, i: int) -> list[str]:
        """Selected cells of row ``i`` (from 0).

        Raises:
            IndexError: there is no such row.
            DataError: the table is empty, or the row has a wrong number of columns or is not UTF-8.
        """
        cells = self._cells(i)
        return [self._decode(cells[column], i, k) for k, column in enumerate(self.columns)]

    def cell(self, i: int, k: int) -> str:
        """Selected cell ``k`` of row ``i``, without decoding the other cells; raises as :meth:`row`."""
        return self._decode(self.cell_bytes(i, k), i, k)

    def cell_bytes(self, i: int, k: int) -> bytes:
        """Selected cell ``k`` of row ``i`` as it stands in the file; raises as :meth:`row`."""
        return self._cells(i)[self.columns[k]]

    def cells_bytes(self, i: int) -> list[bytes]:
        """All selected cells of row ``i`` as they stand in the file; raises as :meth:`row`."""
        cells = self._cells(i)
        return [cells[k] for k in self.columns]

    def line(self, i: int) -> bytes:
        """Row ``i`` as it stands in the file, without its ``\\n``; a ``\\r`` before that is kept.

        Raises:
            IndexError: there is no such row.
            DataError: the table is empty.
        """
        self._check_row(i)
        return self._line(i)

    @property
    def last_line_is_open(self) -> bool:
        """Whether the last row lacks its line end, as in a file that was cut off."""
        return len(self) > 0 and self._map is not None and int(self._offsets[-1]) > len(self._map)

    def forget(self) -> None:
        """Gives back the memory of pages that were read; for passes over a whole file, whose pages never come again.

        The pages of a mapped file count as memory of the process. What is asked for afterwards is mapped anew.
        """
        if isinstance(self._map, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def where(self, i: int, k: int | None = None) -> str:
        """Place of row ``i`` (and selected cell ``k``) for messages: "file.tsv:row 17, column 4".

        Rows count from 1, columns from 0 as in the selection.
        """
        row = f"{self.path}:row {i + 1}"
        return row if k is None else f"{row}, column {self.columns[k]}"

    def _open(self) -> None:
        if self._map is not None:
            return
        with _open_table(self.path) as file:
            table = _map(file)
            self._offsets = _load_offsets(self.path, file)
            self._map = table
        if len(self._offsets) > 1:
            self._width = self._line(0).count(b"\t") + 1
            self._check_columns()

    def _check_columns(self) -> None:
        beyond = [column for column in self._columns or () if column >= self._width]
        if beyond:
            self._map = None
            raise DataError(
                f"{self.path}:row 1 has {self._width} columns (highest column is {self._width - 1}), "
                f"but column {max(beyond)} is selected: correct the selected columns"
            )

    def _check_row(self, i: int) -> None:
        rows = len(self)
        if rows == 0:
            raise DataError(f"{self.path} is empty: give a table with at least one row")
        if not 0 <= i < rows:
            raise IndexError(f"{self.path} has {rows} rows, row {i} (counted from 0) was asked for")

    def _line(self, i: int) -> bytes:
        """Bytes of one row without its ``\\n``."""
        start, end = int(self._offsets[i]), int(self._offsets[i + 1]) - 1
        table = self._map
        assert table is not None
        # A damaged index must never hand out half a row: rows start after a line end and stop before one.
        if start > end or end > len(table) or (i and table[start - 1] != 10) or (end < len(table) and table[end] != 10):
            raise DataError(f"{index_path(self.path)} does not fit {self.path}: delete it, it will be built anew")
        return table[start:end]

    def _cells(self, i: int) -> list[bytes]:
        self._check_row(i)
        cells = self._line(i).removesuffix(b"\r").split(b"\t")
        if len(cells) != self._width:
            raise DataError(
                f"{self.where(i)} has {len(cells)} columns, but {self._width} (as in row 1) are needed: "
                "remove stray tabs and line ends from its cells"
            )
        return cells

    def _decode(self, cell: bytes, i: int, k: int) -> str:
        try:
            return cell.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.where(i, k)} is not UTF-8 (byte {error.start} of the cell): convert the file to UTF-8"
            ) from error


def index_path(path: Path) -> Path:
    """Where the side-car index of a table lies."""
    return path.with_name(path.name + ".idx")


def _parse_columns(columns: Sequence[int] | str | None) -> tuple[int, ...] | None:
    if columns is None:
        return None
    try:
        numbers = tuple(int(column) for column in (columns.split(",") if isinstance(columns, str) else columns))
    except ValueError as error:
        raise ConfigError(f"selected columns must be numbers like '0,4,2', got '{columns!s}'") from error
    if not numbers or min(numbers) < 0:
        raise ConfigError(f"selected columns must be numbers from 0 like '0,4,2', got '{columns!s}'")
    return numbers


def _open_table(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: check the path of the data file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a directory: name a file in it") from error
    except PermissionError as error:
        raise DataError(f"{path} must not be read by this user: change its permissions") from error
    except OSError as error:
        raise DataError(f"{path} cannot be opened ({error.strerror})") from error


def _map(file: BinaryIO) -> mmap.mmap | bytes:
    """Memory map of a whole file; an empty file cannot be mapped."""
    if os.fstat(file.fileno()).st_size == 0:
        return b""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _header(file: BinaryIO) -> list[int]:
    stat = os.fstat(file.fileno())
    return [_INDEX_MAGIC, stat.st_size, stat.st_mtime_ns]


def _scan(path: Path, file: BinaryIO, progress: bool) -> tuple[list[int], array[int]]:
    """Index header and row starts, followed by where the row after the last one would start."""
    # Taken before the scan: a table that changes meanwhile then makes its own index invalid.
    header = _header(file)
    size = header[1]
    start = len(codecs.BOM_UTF8) if os.pread(file.fileno(), 3, 0) == codecs.BOM_UTF8 else 0
    offsets = array("q", [start])
    blocks = range(start, size, _BLOCK_BYTES)
    bar = _progress_bar(size) if progress else contextlib.nullcontext()
    # Threads copy out of the page cache side by side; one alone is bound by the speed of that copy.
    with bar as shown, ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        for block, found in zip(blocks, threads.map(partial(_scan_block, file.fileno(), size), blocks), strict=True):
            offsets.extend(found)
            if shown is not None:
                shown.update(min(_BLOCK_BYTES, size - block))
    if _header(file) != header:
        raise DataError(f"{path} changed while it was indexed: start again when it is complete")
    if offsets[-1] != size:
        offsets.append(size + 1)
    return header, offsets


def _scan_block(handle: int, size: int, start: int) -> array[int]:
    """Positions behind the line ends of one block.

    `find` is a vectorised memory search, so the cost is one Python step per row and not per byte.
    """
    stop = min(start + _BLOCK_BYTES, size)
    buffer = bytearray(min(_READ_BYTES, stop - start))
    found = array("q")
    while start < stop:
        read = min(os.preadv(handle, [buffer], start), stop - start)
        if read == 0:
            break
        position = 0
        while (position := buffer.find(b"\n", position, read) + 1) > 0:
            found.append(start + position)
        start += read
    return found


def _progress_bar(size: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=size, unit="B", unit_scale=True, desc="index")


def _write_index(path: Path, header: list[int], offsets: array[int]) -> bool:
    """Put the side-car index in place; False (and one log line) if that cannot be done."""
    target = index_path(path)
    # A name of its own for every process: builders that run at the same time each put a whole file in place.
    temporary = target.with_name(f"{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as out:
            out.write(np.array(header, _INDEX_DTYPE).tobytes())
            out.write(np.frombuffer(offsets, np.int64).astype(_INDEX_DTYPE, copy=False).data)
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        logger.info("%s cannot be written (%s): the index stays in memory", target, error.strerror)
        return False
    return True


def _read_index(path: Path, header: list[int]) -> np.ndarray | None:
    """Memory-mapped offsets from the side-car index; None if it is missing, damaged or does not fit the table."""
    try:
        with index_path(path).open("rb") as file:
            mapped = _map(file)
    except OSError:
        return None
    if len(mapped) % _INDEX_DTYPE.itemsize:
        return None
    numbers = np.frombuffer(mapped, _INDEX_DTYPE)
    offsets = numbers[_HEADER_FIELDS:]
    if numbers[:_HEADER_FIELDS].tolist() != header or len(offsets) == 0:
        return None
    # The last entry is the end of the table, plus one if its last line end is missing: a cut index is found out.
    return offsets if header[1] <= offsets[-1] <= header[1] + 1 else None


def _load_offsets(path: Path, file: BinaryIO) -> np.ndarray:
    stored = _read_index(path, _header(file))
    if stored is not None:
        return stored
    header, offsets = _scan(path, file, progress=False)
    # Reading it back gives memory that all workers share.
    stored = _read_index(path, header) if _write_index(path, header, offsets) else None
    return np.frombuffer(offsets, np.int64) if stored is None else stored
