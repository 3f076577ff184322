"""Checkpoint files whose tensors stay in the file, and that give memory back after use."""

from __future__ import annotations

import ctypes
import mmap
import sys
import zipfile
from pathlib import Path

from torch import Tensor

from .reading import read_checkpoint

MAPS = Path("/proc/self/maps")
PAGE = mmap.PAGESIZE


class MappedFile:
    """A checkpoint that is read from its file where and when its tensors are used.

    The file must not be changed meanwhile. Files of before 2020 cannot be mapped and are read into memory.

    Attributes:
        path: the file.
        state: its contents.

    Raises:
        CheckpointError: see :func:`.reading.read_checkpoint`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = read_checkpoint(path, mmap=True)
        self._areas = _areas(path)

    def release(self, tensor: Tensor) -> None:
        """Takes what was read of a tensor out of this process's memory; it is read again when it is used again.

        The system does so by itself when memory gets short; until then it would count as used by this process. Nothing
        happens where the system cannot tell that the tensor lies in the file (other systems than Linux).
        """
        storage = tensor.untyped_storage()
        start = storage.data_ptr() // PAGE * PAGE
        end = -(-(storage.data_ptr() + storage.nbytes()) // PAGE) * PAGE
        if storage.nbytes() and any(low <= start and end <= high for low, high in self._areas):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def _areas(path: Path) -> list[tuple[int, int]]:
    """First and last addresses of this process's memory that are the file's bytes."""
    if not MAPS.exists() or not _as_stored(path):
        return []
    name = str(path.resolve())
    areas = []
    for line in MAPS.read_text(errors="replace").splitlines():
        columns = line.split(maxsplit=5)
        if len(columns) == 6 and columns[5] == name:
            low, high = (int(address, 16) for address in columns[0].split("-"))
            areas.append((low, high))
    return areas


def _as_stored(path: Path) -> bool:
    """Whether numbers are used as they lie in the file; torch turns those of foreign machines round in memory."""
    if not zipfile.is_zipfile(path):
        return sys.byteorder == "little"
    with zipfile.ZipFile(path) as archive:
        orders = [archive.read(name) for name in archive.namelist() if name.endswith("/byteorder")]
    return all(order.decode() == sys.byteorder for order in orders)
