"""Converts the references' pickled document frequencies (``coco-train-words.p``) to JSON, once, by a tool.

A pickle can run any code while it is read. This is the one place that opens one, and its reader creates nothing but
plain containers and numbers.
"""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from .cider import DocumentFrequency

_ALLOWED = {
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "int"): int,
    ("builtins", "float"): float,
    ("__builtin__", "int"): int,  # Python 2's name of the module, also used by protocols 0 to 2
    ("__builtin__", "float"): float,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(f"the pickle asks for {module}.{name}; only plain counts are accepted") from None


def convert_reference_pickle(path: str | Path, out: str | Path) -> DocumentFrequency:
    """Reads ``{"document_frequency": {n-gram tuple: count}, "ref_len": pictures}`` and saves it as ``out`` (.json).

    Raises ConfigError when a file cannot be opened or ``out`` does not end in .json, DataError for other content.
    """
    path, out = Path(path), Path(out)
    if out.suffix != ".json":
        raise ConfigError(f"{out}: the output's name must end in .json")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}") from None
    df = _to_frequencies(_unpickle(data, path), path)
    df.save(out)
    return df


def _unpickle(data: bytes, path: Path) -> Any:
    try:
        # Python 2 wrote the published files; its strings come as UTF-8 bytes.
        return _PlainUnpickler(io.BytesIO(data), encoding="utf-8", errors="replace").load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle raises almost any type
        raise DataError(f"{path}: not a readable pickle ({type(error).__name__}: {error})") from None


def _to_frequencies(content: Any, path: Path) -> DocumentFrequency:
    if not isinstance(content, Mapping) or not {"document_frequency", "ref_len"} <= content.keys():
        raise DataError(f"{path}: needs a dict with the keys document_frequency and ref_len")
    counts, ref_len = content["document_frequency"], content["ref_len"]
    if not isinstance(counts, Mapping) or not isinstance(ref_len, (int, float)) or not ref_len > 0:
        raise DataError(f"{path}: document_frequency must be a dict and ref_len a positive number")
    for gram, count in counts.items():
        words = isinstance(gram, tuple) and all(isinstance(word, str) for word in gram)
        if not words or not isinstance(count, (int, float)) or not float(count).is_integer() or count < 0:
            raise DataError(f"{path}: entry {gram!r}: {count!r} is not an n-gram with a count")
    return DocumentFrequency({gram: int(count) for gram, count in counts.items()}, float(ref_len))
