"""Writes a checkpoint tensor by tensor, so that its tensors need not be in memory together.

A tensor that is yet to come is represented by a stand-in: an uninitialised tensor of its shape and type, which takes no
memory as long as nobody writes into it. ``.pt`` files are the archives that ``torch.load`` reads (PyTorch, notes on
serialization): one uncompressed record per storage, and the tree with references to them.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import CheckpointError
from .export import with_history
from .safetensors_file import FORMAT, SUFFIX, VERSION, TreeWriter, memory, replacing

ROOT = "merged"
ALIGNMENT = 64
"""Records begin at multiples of it, as in torch's files, so that mapped tensors are aligned."""
HEADER_BYTES, ZIP64_BYTES, PADDING_BYTES = 30, 20, 4
BIG_RECORD = 2**30
PROTOCOL = 2
FORMAT_VERSION = b"3\n"

SAFETENSORS_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip

Write = Callable[[Tensor, Tensor], None]
Used = Callable[[Tensor], None]


@contextmanager
def streaming(state: dict[str, Any], path: Path, used: Used = lambda tensor: None) -> Iterator[Write]:
    """Writes ``state`` to ``path``, all or nothing; the block gives the values of all stand-ins in ``state``.

    Plain entries of ``state`` may be changed in the block.

    Args:
        path: ``.safetensors`` comes with a JSON file beside it; any other ending is torch's format, to which what
            stock fairseq insists on is added.
        used: is called with every tensor of ``state`` that has been copied.

    Yields:
        ``write(stand_in, values)``: once per stand-in, in any order; same shape and type.

    Raises:
        CheckpointError: something in ``state`` cannot be written as safetensors.
    """
    try:
        with replacing(path) as scratch:
            with scratch.open("wb") as file, _stream(file, state, path, used) as stream:
                yield stream.write
                stream.finish(state)
                file.flush()
                os.fsync(file.fileno())  # a name that is there after a crash stands for a whole file
            if isinstance(stream, _Safetensors):
                _write_json(_tree(state), path.with_suffix(".json"))
    except OSError as error:
        if error.filename is None and error.strerror:  # writing, unlike opening, does not tell the file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def _stream(file: BinaryIO, state: dict[str, Any], path: Path, used: Used) -> Iterator[_Torch | _Safetensors]:
    if path.suffix == SUFFIX:
        yield _Safetensors(file, state, used)
        return
    stream = _Torch(file, used)
    try:
        yield stream
    finally:
        stream.abandon()


def _bytes(tensor: Tensor) -> memoryview:
    """The numbers of a tensor without copying them, unless they are scattered."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


# ---- torch's archives


class _Torch:
    """A file for ``torch.load``."""

    def __init__(self, file: BinaryIO, used: Used) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        self._file = file
        self._used = used
        self._keys: dict[tuple[int, int], str] = {}
        self._storages: dict[str, torch.UntypedStorage] = {}
        self._written: set[str] = set()

    def write(self, stand_in: Tensor, values: Tensor) -> None:
        """The record of a stand-in."""
        self._record(self._key(stand_in.untyped_storage()), _bytes(values) if values.numel() else b"")

    def finish(self, state: dict[str, Any]) -> None:
        """The tree, and what it holds besides stand-ins."""
        tree = io.BytesIO()
        _Pickler(tree, self._key).dump(with_history(state))
        for key in [key for key in self._storages if key not in self._written]:
            whole = torch.empty(0, dtype=torch.uint8).set_(self._storages[key])  # type: ignore[call-overload]
            self._record(key, _bytes(whole) if whole.numel() else b"")
            self._used(whole)
        self._add("data.pkl", tree.getvalue())
        self._add("byteorder", sys.byteorder.encode())
        self._add("version", FORMAT_VERSION)
        self._archive.close()

    def abandon(self) -> None:
        """Nothing more is written, also not when the unfinished archive is collected as garbage."""
        self._archive.fp = None

    def _key(self, storage: torch.UntypedStorage) -> str:
        fresh = str(len(self._storages))
        place = (storage.data_ptr(), storage.nbytes())
        key = self._keys.setdefault(place, fresh) if storage.nbytes() else fresh
        self._storages.setdefault(key, storage)
        return key

    def _record(self, key: str, content: Any) -> None:
        self._written.add(key)
        self._add(f"data/{key}", content)

    def _add(self, name: str, content: Any) -> None:
        info = zipfile.ZipInfo(f"{ROOT}/{name}")
        big = len(content) >= BIG_RECORD
        start = self._file.tell() + HEADER_BYTES + len(info.filename) + ZIP64_BYTES * big + PADDING_BYTES
        padding = -start % ALIGNMENT
        info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding  # as torch names its own padding
        info.file_size = len(content)
        with self._archive.open(info, "w", force_zip64=big) as record:
            record.write(content)


class _Pickler(pickle.Pickler):
    """Pickles a tree with references in the place of storages."""

    def __init__(self, file: BinaryIO, key: Callable[[torch.UntypedStorage], str]) -> None:
        super().__init__(file, protocol=PROTOCOL)
        self._key = key

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        """The reference of a storage, in the form that ``torch.load`` expects."""
        if isinstance(value, torch.TypedStorage):
            storage = value._untyped_storage
            kind = getattr(torch, value._pickle_storage_type())
            return ("storage", kind, self._key(storage), "cpu", value._size())
        return None


# ---- safetensors


class _Safetensors:
    """A file of safetensors: the length of the header, the header as JSON, the numbers."""

    def __init__(self, file: BinaryIO, state: dict[str, Any], used: Used) -> None:
        self._file = file
        self._used = used
        writer = TreeWriter()
        writer.encode(state, "")
        self._tensors = writer.tensors
        self._header({"format": "pt", "tied": json.dumps(writer.tied)})
        self._names = {memory(tensor): name for name, tensor in self._tensors.items() if tensor.numel()}

    def _header(self, metadata: dict[str, str]) -> None:
        header: dict[str, Any] = {"__metadata__": metadata}
        self._offsets: dict[str, int] = {}
        end = 0
        for name, tensor in sorted(self._tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
            if tensor.dtype not in SAFETENSORS_TYPES:
                raise CheckpointError(f"{name}: {tensor.dtype} cannot be written as safetensors; write a .pt file")
            self._offsets[name] = end
            end += tensor.numel() * tensor.element_size()
            kind = {"dtype": SAFETENSORS_TYPES[tensor.dtype], "shape": list(tensor.shape)}
            header[name] = {**kind, "data_offsets": [self._offsets[name], end]}
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._start, self._left = self._file.tell(), set(self._offsets)

    def write(self, stand_in: Tensor, values: Tensor) -> None:
        """The numbers of a stand-in, at their place in the file."""
        if stand_in.numel():
            self._write(self._names[memory(stand_in)], values)

    def _write(self, name: str, values: Tensor) -> None:
        self._left.discard(name)
        if values.numel():
            self._file.seek(self._start + self._offsets[name])
            self._file.write(_bytes(values))

    def finish(self, state: dict[str, Any]) -> None:
        """What the tree holds besides stand-ins."""
        for name in sorted(self._left):
            self._write(name, self._tensors[name])
            self._used(self._tensors[name])


def _tree(state: dict[str, Any]) -> str:
    """The JSON of the file beside."""
    tree = {"format": FORMAT, "version": VERSION, "state": TreeWriter().encode(state, "")}
    return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False)


def _write_json(text: str, path: Path) -> None:
    with replacing(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
