"""The tensors of TorchScript archives, without running the programs that are in them.

OpenAI publishes CLIP as such archives. ``torch.jit.load`` would compile and run what a stranger wrote; here only the
objects and numbers of an archive go through torch's safe reader, and its code is never opened.
"""

from __future__ import annotations

import io
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .plain import StandIn
from .reading import DAMAGED_ARCHIVE, MAX_SHOWN, printable

PROGRAM = "constants.pkl"
"""What an archive has if and only if it is a TorchScript program; torch's safe reader refuses it therefore."""

CLASSES = "__torch__."
PLAIN = ("torch.", "collections.")
"""What names begin with: those of the program's own classes, and those of which torch's safe reader knows the good."""
NEEDED = ("data.pkl", "version", "byteorder")


class _Object(StandIn):
    """A module of a program, or anything else of one that is no tensor: its attributes, no behaviour."""


def _first(value: Any, *_: Any) -> Any:
    return value


_CONTAINERS = tuple(
    f"torch.jit._pickle.{name}"
    for name in ("build_boollist", "build_doublelist", "build_intlist", "build_tensorlist", "restore_type_tag")
)
"""How archives write typed lists and dictionaries: a call with the plain value as its first argument."""


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"/{PROGRAM}") for name in archive.namelist())
    except DAMAGED_ARCHIVE:
        return False


def read_torchscript(path: str | Path) -> dict[str, Tensor]:
    """Parameters and buffers of a TorchScript archive by name, on the CPU, in the file's number formats.

    Buffers that a state dict would leave out are there, too. Nothing of the archive is executed.

    Raises:
        CheckpointError: no TorchScript archive, damaged, or with objects that are not plain data.
    """
    try:
        content = _without_program(Path(path))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            pickled = next(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
        names = _names(pickled)
        foreign = [name for name in names if not name.startswith((CLASSES, *PLAIN))]
        if foreign:
            raise CheckpointError(
                f"{path}: asks for {', '.join(foreign[:MAX_SHOWN])}, which no archive needs; use another file"
            )
        root = _read(content, [name for name in names if name.startswith(CLASSES)])
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file makes torch raise errors of any type
        raise CheckpointError(
            f"{path}: no readable TorchScript archive ({_one_line(error)}); copy it anew, or convert it on a machine "
            "that trusts it: torch.save(torch.jit.load(path).state_dict(), 'weights.pt')"
        ) from error
    tensors = dict(_tensors(root))
    if not tensors:
        raise CheckpointError(f"{path}: a TorchScript archive without tensors; use another file")
    return tensors


def _without_program(path: Path) -> bytes:
    """The archive with its objects and numbers only."""
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as out:
        parts = [(entry.filename.partition("/")[2], entry) for entry in archive.infolist()]
        if PROGRAM not in dict(parts):
            raise CheckpointError(f"{path}: no TorchScript archive; use another file")
        kept = [(name, entry) for name, entry in parts if name in NEEDED or name.startswith("data/")]
        if sum(entry.file_size for _, entry in kept) > path.stat().st_size:  # torch compresses only programs
            raise CheckpointError(f"{path}: unpacked it is larger than the file, as torch never writes it; use another")
        for name, entry in kept:
            out.writestr(zipfile.ZipInfo(f"archive/{name}"), archive.read(entry))
    return copy.getvalue()


def _names(pickled: bytes) -> list[str]:
    """Dotted names of the classes and functions that the objects are made with."""
    calls = (argument for code, argument, _ in pickletools.genops(pickled) if code.name == "GLOBAL")
    return sorted({printable(str(argument).replace(" ", ".", 1)) for argument in calls})


def _read(content: bytes, classes: list[str]) -> Any:
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        *((_Object, name) for name in classes),
        *((_first, name) for name in _CONTAINERS),
    ]
    allowed = set(torch.serialization.get_safe_globals())
    ours = [entry for entry in stand_ins if entry not in allowed]
    with torch.serialization.safe_globals(ours), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd files, which end in an error that says more
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Tensors among the attributes of an object and of its parts; an object with two names counts under one."""
    waiting, seen = [("", root)], set()
    while waiting:
        prefix, part = waiting.pop()
        if id(part) in seen or not isinstance(part, _Object):
            continue
        seen.add(id(part))
        for name, value in vars(part).items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value.detach()
            else:
                waiting.append((f"{prefix}{name}.", value))


def _one_line(error: Exception) -> str:
    """The first sentence; of torch's refusals, which begin with advice to read unsafely, what was behind it."""
    words = printable(" ".join(str(error).rpartition("WeightsUnpickler error: ")[2].split()))
    return words.split(". ")[0].strip()[:120] or type(error).__name__
