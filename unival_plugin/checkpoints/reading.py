"""The one place where checkpoint files are opened: whatever a file holds, nothing in it is executed.

Only torch is imported here, so that the network, the workarounds for fairseq and quick commands may all read files.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickletools
import struct
import threading
import warnings
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, _weights_only_unpickler

from ..errors import CheckpointError
from .plain import STAND_INS, plain_options
from .safetensors_file import SUFFIX as SAFETENSORS
from .safetensors_file import read_safetensors

LEGACY_PICKLES = 5
"""A torch file of before 2020 is that many pickles (magic, version, machine, contents, storages), then numbers."""

DAMAGED_ARCHIVE = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What Python's zipfile raises for archives with changed bytes."""

MAX_SHOWN = 8
BLOCK = 2**20

AVERAGES = ("ema", "ema_fp32_params")
"""Names in ``extra_state`` of the averages of weights (EMA): in the model's precision, and the precise one."""


def read_checkpoint(path: str | Path, mmap: bool = False) -> dict[str, Any]:
    """The contents of a checkpoint file, as they lie in it, on the CPU.

    ``.pt`` files of today and of before 2020 and ``.safetensors`` files (with the JSON that `unival convert` writes
    beside them) are read. Numbers, texts, containers, tensors and ``argparse.Namespace`` come back as they are;
    OmegaConf's objects come back as plain dictionaries and lists. Everything else is refused, unless the program has
    allowed it with ``torch.serialization.add_safe_globals``. ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` changes nothing.

    Args:
        mmap: leave tensors in the file until they are used; the file must not be changed meanwhile.

    Raises:
        CheckpointError: the file is missing, damaged, no checkpoint, or asks for objects that are not plain data.
    """
    path = Path(path)
    _check_readable(path)
    try:
        state = read_safetensors(path) if path.suffix == SAFETENSORS else _read_torch(path, mmap)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file makes torch raise errors of any type
        raise CheckpointError(f"{path}: {_why_unreadable(path, error)}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__} instead of weights by name; use another file")
    return state


def _check_readable(path: Path) -> None:
    try:
        if path.is_dir():
            raise CheckpointError(f"{path}: is a folder; name a checkpoint file in it")
        with path.open("rb") as file:
            if not file.read(1):
                raise CheckpointError(f"{path}: the file is empty; copy it anew")
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror).lower()
        raise CheckpointError(f"{path}: {reason}; correct its path or permissions") from error


def _read_torch(path: Path, mmap: bool) -> Any:
    # those that the program has allowed itself must survive the end of the context
    allowed = set(torch.serialization.get_safe_globals())
    ours = [entry for entry in _safe() if entry not in allowed]
    with torch.serialization.safe_globals(ours), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd files, which end in an error that says more
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    return plain_options(state)


def _safe() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    return [argparse.Namespace, *STAND_INS]


def _why_unreadable(path: Path, error: Exception) -> str:
    refused = refused_objects(path)
    if refused:
        shown = ", ".join(refused[:MAX_SHOWN]) + (f" and {len(refused) - MAX_SHOWN} more" * (len(refused) > MAX_SHOWN))
        return (
            f"asks for {shown}, which safe reading does not allow; if you trust its source, allow them with "
            "torch.serialization.add_safe_globals"
        )
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix == SAFETENSORS or (start == b"PK\x03\x04" and not is_intact(path)):
        reason = "damaged or cut short"
    elif start == b"PK\x03\x04":
        reason = "an archive, but not of torch.save"
    else:
        reason = "not a torch checkpoint, damaged, or cut short"
    return f"not a readable checkpoint ({reason}: {_first_sentence(error)}); use another file or copy it anew"


def _first_sentence(error: Exception) -> str:
    words = " ".join(str(error).split()).replace("Weights only load failed.", "") or type(error).__name__
    return words.split(". ")[0].strip()[:120]


# ---- what a file asks for


def refused_objects(path: str | Path) -> list[str]:
    """Names of the functions and classes in a file that safe reading refuses, sorted; nothing is executed.

    Empty for files that are no pickles at all, and for a damaged file as far as it can be followed.
    """
    allowed = {*_weights_only_unpickler._get_allowed_globals(), *_weights_only_unpickler._get_user_allowed_globals()}
    allowed |= {entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__name__}" for entry in _safe()}
    return sorted({name for stream in _pickles(Path(path)) for name in _names(stream)} - allowed)


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    """The pickles of a torch file, or of a bare pickle, each placed at its beginning."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith(".pkl")]
                if any(name.endswith("/constants.pkl") for name in names):
                    return  # a TorchScript program, of which torch's safe reader reads nothing
                for name in names:
                    yield io.BytesIO(archive.read(name))
            return
        with path.open("rb") as file:
            for _ in range(LEGACY_PICKLES):
                yield file
    except DAMAGED_ARCHIVE:
        return


def _names(stream: IO[bytes]) -> Iterator[str]:
    """Dotted names that a pickle asks for; with protocol 4 a name is made of the two texts put on the stack last."""
    texts: list[str] = []
    memo: dict[Any, str] = {}
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in ("GLOBAL", "INST"):
                yield _dotted(*str(argument).split(" ", 1))
            elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                yield _dotted(*texts[-2:])
            elif "UNICODE" in opcode.name or "STRING" in opcode.name:
                texts.append(str(argument))
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = texts[-1] if texts else ""
            elif opcode.name in ("BINPUT", "LONG_BINPUT", "PUT") and texts:
                memo[argument] = texts[-1]
            elif opcode.name in ("BINGET", "LONG_BINGET", "GET") and argument in memo:
                texts.append(memo[argument])
    except (ValueError, EOFError, IndexError, UnicodeDecodeError, OverflowError, MemoryError):
        return  # no pickle, or one that is damaged from here on


def _dotted(module: str, name: str = "") -> str:
    """``module.name`` as Python 3 calls it; torch reads files of Python 2 in the same way."""
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[(module, name)]
    return printable(f"{IMPORT_MAPPING.get(module, module)}.{name}")


def printable(text: Any) -> str:
    """Text of a file without line breaks and control codes, which could falsify what a terminal shows."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


# ---- parts of the contents


def weights_of(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The model's tensors by name, wherever the known layouts keep them.

    These are ``model`` (fairseq, PANN), ``state_dict`` (3-D ResNeXt, timm) and the file itself (torchvision).

    Raises:
        CheckpointError: none of these holds tensors.
    """
    for part in (state.get("model"), state.get("state_dict"), state):
        if isinstance(part, Mapping) and part and all(isinstance(value, Tensor) for value in part.values()):
            return dict(part)
    raise CheckpointError("holds no weights by name; use another file")


def average_of(state: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The average of weights (EMA) by name, the precise one where there are two; None if the file holds none.

    Entries without an average, such as integer buffers, are those of the model.
    """
    extra = state.get("extra_state") or {}
    kinds = [extra[kind] for kind in AVERAGES if isinstance(extra.get(kind), Mapping) and extra[kind]]
    if not kinds:
        return None
    average = weights_of(state)
    for kind in kinds:
        average.update({key: value for key, value in kind.items() if isinstance(value, Tensor)})
    return average


def group_of(group: Any) -> dict[str, Any]:
    """A group of options as a dictionary, whatever keeps them; empty if nothing known does."""
    if isinstance(group, argparse.Namespace):
        return dict(vars(group))
    return dict(group) if isinstance(group, Mapping) else {}


def model_options(state: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options in a checkpoint, empty if it holds none."""
    cfg = state.get("cfg")
    return group_of(cfg.get("model") if isinstance(cfg, Mapping) else state.get("args"))


# ---- damage


def is_intact(path: Path) -> bool:
    """Whether a checkpoint file is a complete archive whose checksums are right (reads all of it)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except DAMAGED_ARCHIVE:
        return False


def newest_intact(folder: Path) -> Path | None:
    """The most recently written intact checkpoint of a folder; other ``.pt`` files that lie there do not count."""
    newest_first = sorted(folder.glob("checkpoint*.pt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path for path in newest_first if is_intact(path)), None)


def sha256(path: Path, stop: threading.Event | None = None) -> str:
    """Hex digest of a file; of as much as was read when another thread set ``stop``."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while not (stop is not None and stop.is_set()) and (block := file.read(BLOCK)):
            digest.update(block)
    return digest.hexdigest()
