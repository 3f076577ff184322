"""Pickles of others, read without running anything that they ask for: only plain containers, texts and numbers."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from .light import light


def read_plain_pickle(path: Path) -> Any:
    """What a pickle holds; texts of Python 2 come as UTF-8.

    Raises OSError if it cannot be opened, and DataError if it is damaged or asks for any class or function: those could
    do everything that the user can.
    """
    bad = light("errors").DataError
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="utf-8", errors="replace").load()
    except OSError:
        raise
    except _Refused as refused:
        raise bad(f"{path}: the pickle asks for {refused}; only plain lists and dicts are accepted") from None
    except Exception as error:  # a damaged pickle raises almost any type
        raise bad(f"{path}: not a readable pickle ({type(error).__name__}: {error})") from None


class _Refused(Exception):
    """Names the object that a pickle asks for."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise _Refused(f"{module}.{name}")
