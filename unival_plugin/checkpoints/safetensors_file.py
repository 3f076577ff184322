"""Checkpoints as ``x.safetensors``, tensors by name, with everything else in ``x.json`` beside it.

The model's tensors bear their own names, so that other programs find them; others are named by their place, as
``extra_state/ema/encoder.…``. The JSON is the checkpoint's tree in which every tensor is replaced by its stored name.
Types that JSON does not know are written as an object with one key that begins with ``$``. A tensor that several
places share is stored once; the model's further names for it also stand in the file's metadata under ``tied``.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError

SUFFIX = ".safetensors"
FORMAT = "unival checkpoint"
VERSION = 1


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; the file takes the name ``path`` when the block ends well and vanishes otherwise."""
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def memory(tensor: Tensor) -> Any:
    """A value that is equal for tensors that are one (tied weights); of an empty tensor it equals nothing else."""
    if tensor.numel() == 0:
        return object()
    return (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


# ---- writing


def write_safetensors(state: dict[str, Any], path: Path) -> None:
    """Writes the two files; the tensors' file comes last, so that a complete one is never alone.

    Raises:
        CheckpointError: something in ``state`` is neither a tensor nor plain data.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    writer = TreeWriter()
    tree = {"format": FORMAT, "version": VERSION, "state": writer.encode(state, "")}
    text = json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False)
    metadata = {"format": "pt", "tied": json.dumps(writer.tied)}
    beside = path.with_suffix(".json")
    with replacing(beside) as scratch:
        scratch.write_text(text, encoding="utf-8")
    with replacing(path) as scratch:
        try:
            save_file(writer.tensors, scratch, metadata)
        except (SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: a tensor cannot be written as safetensors ({error})") from error
        scratch.chmod(beside.stat().st_mode)  # the library hides its files from other users


class TreeWriter:
    """Turns a tree into JSON and collects its tensors."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.tied: dict[str, str] = {}
        self._names: dict[Any, str] = {}

    def encode(self, value: Any, place: str) -> Any:
        """JSON for ``value``, which lies at ``place``."""
        if value is None or type(value) in (bool, int, str):
            return value
        if isinstance(value, Tensor):
            return {"$tensor": self._store(value.detach(), place.removeprefix("model/"))}
        encoder = self._encoders().get(type(value))
        if encoder is None:
            raise CheckpointError(f"{place}: a {type(value).__name__} cannot be written as JSON")
        return encoder(value, place)

    def _encoders(self) -> dict[type, Callable[[Any, str], Any]]:
        return {
            float: lambda value, _: value if math.isfinite(value) else {"$float": str(value)},
            list: self._list,
            tuple: lambda value, place: {"$tuple": self._list(value, place)},
            torch.Size: lambda value, _: {"$size": list(value)},
            set: lambda value, place: {"$set": self._list(list(value), place)},
            bytes: lambda value, _: {"$bytes": base64.b64encode(value).decode()},
            torch.dtype: lambda value, _: {"$dtype": str(value).removeprefix("torch.")},
            argparse.Namespace: lambda value, place: {"$namespace": self._dict(vars(value), place)},
            dict: self._dict,
            OrderedDict: lambda value, place: {
                "$ordered": [self._pairs(value, place), self._dict(vars(value), f"{place}/attributes")]
            },
        }

    def _list(self, values: Any, place: str) -> list[Any]:
        return [self.encode(value, f"{place}/{i}") for i, value in enumerate(values)]

    def _pairs(self, values: dict[Any, Any], place: str) -> list[list[Any]]:
        return [[self.encode(key, place), self.encode(value, _join(place, key))] for key, value in values.items()]

    def _dict(self, values: dict[Any, Any], place: str) -> dict[str, Any]:
        if all(type(key) is str and not key.startswith("$") for key in values):
            return {key: self.encode(value, _join(place, key)) for key, value in values.items()}
        return {"$dict": self._pairs(values, place)}

    def _store(self, tensor: Tensor, name: str) -> str:
        """Keeps the tensor under ``name``, or returns the name under which the same memory is kept already."""
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise CheckpointError(f"{name}: a {tensor.layout} tensor cannot be written as safetensors")
        if name in self.tensors:
            raise CheckpointError(f"{name}: two tensors would get this name")
        kept = self._names.setdefault(memory(tensor), name)
        if kept != name:
            self.tied[name] = kept
            return kept
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        self.tensors[name] = tensor.contiguous() if whole else tensor.contiguous().clone()
        return name


def _join(place: str, key: Any) -> str:
    return f"{place}/{key}" if place else str(key)


# ---- reading


def read_safetensors(path: Path) -> dict[str, Any]:
    """The checkpoint in ``path`` and the JSON beside it; without JSON the tensors by name, tied names included.

    Raises:
        CheckpointError: the JSON is damaged, of another program, or does not belong to the tensors.
        SafetensorError: the file of tensors is damaged.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    beside = path.with_suffix(".json")
    if beside.is_file():
        return _with_options(tensors, beside)
    try:
        tied = json.loads(metadata.get("tied", "{}"))
        return {**tensors, **{name: tensors[kept] for name, kept in tied.items()}}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: its list of tied tensors is damaged ({error}); copy it anew") from error


def _with_options(tensors: dict[str, Tensor], beside: Path) -> dict[str, Any]:
    try:
        tree = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{beside}: damaged JSON ({error}); copy it anew") from error
    if not isinstance(tree, dict) or tree.get("format") != FORMAT or tree.get("version") != VERSION:
        raise CheckpointError(
            f"{beside}: not the JSON that `unival convert` of this version writes; move it away to read the weights"
        )
    try:
        return _Reader(tensors).decode(tree["state"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{beside}: does not belong to the tensors beside it ({type(error).__name__}: {error}); copy both anew"
        ) from error


class _Reader:
    """Builds the tree again."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def decode(self, value: Any) -> Any:
        """What :meth:`TreeWriter.encode` was given."""
        if isinstance(value, list):
            return [self.decode(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1 and next(iter(value)).startswith("$"):
            ((tag, content),) = value.items()
            return self._decoders()[tag](content)
        return {key: self.decode(entry) for key, entry in value.items()}

    def _decoders(self) -> dict[str, Callable[[Any], Any]]:
        return {
            "$tensor": self._tensors.__getitem__,
            "$float": float,
            "$tuple": lambda content: tuple(self.decode(content)),
            "$size": torch.Size,
            "$set": lambda content: set(self.decode(content)),
            "$bytes": base64.b64decode,
            "$dtype": _dtype,
            "$namespace": lambda content: argparse.Namespace(**self.decode(content)),
            "$dict": lambda content: dict(self._pairs(content)),
            "$ordered": self._ordered,
        }

    def _pairs(self, pairs: list[list[Any]]) -> Iterator[tuple[Any, Any]]:
        return ((self.decode(key), self.decode(entry)) for key, entry in pairs)

    def _ordered(self, content: list[Any]) -> OrderedDict[Any, Any]:
        pairs, attributes = content
        ordered = OrderedDict(self._pairs(pairs))
        vars(ordered).update(self.decode(attributes))
        return ordered


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name} is no type of numbers")
    return dtype
