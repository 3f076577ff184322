"""``unival data convert-answers``: a pickled set of answers becomes JSON."""

from __future__ import annotations

import argparse
import io
import json
import pickle
from pathlib import Path
from typing import Any

from .files import atomic_output, refuse_existing


def run_convert_answers(args: argparse.Namespace) -> int:
    """Convert and print the number of answers."""
    refuse_existing(args.output, args.overwrite)
    answers = read_answers(args.input)
    with atomic_output(args.output, args.overwrite) as out:
        out.write(json.dumps(answers, ensure_ascii=False, indent=1).encode("utf-8") + b"\n")
    print(f"{args.output}: {len(answers)} answers")
    return 0


def read_answers(path: Path) -> list[str] | dict[str, int]:
    """The answers of a pickle, in its order; nothing that the file may ask to be run is run.

    Raises DataError if it is damaged or holds anything but a list of strings, or a dict of strings with their numbers.
    """
    from unival_plugin.errors import DataError

    try:
        # strings of Python 2 come as UTF-8 bytes
        content = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="utf-8", errors="replace").load()
    except (OSError, DataError):
        raise
    except _Refused as refused:
        raise DataError(f"{path}: the pickle asks for {refused}; only plain lists and dicts are accepted") from None
    except Exception as error:  # a damaged pickle raises almost any type
        raise DataError(f"{path}: not a readable pickle ({type(error).__name__}: {error})") from None
    _check(content, path)
    return content


class _Refused(Exception):
    """Names the object that a pickle asks for."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise _Refused(f"{module}.{name}")


def _check(content: Any, path: Path) -> None:
    from unival_plugin.errors import DataError

    if type(content) not in (list, dict) or not content:
        raise DataError(f"{path}: needs a list of answers or a dict answer -> number, has {_shown(content)}")
    for answer in content:
        if not isinstance(answer, str) or not _is_text(answer):
            raise DataError(f"{path}: answer {_shown(answer)} is not a text")
        if isinstance(content, dict) and type(content[answer]) is not int:
            raise DataError(f"{path}: answer {_shown(answer)} has {_shown(content[answer])} where its number belongs")


def _is_text(answer: str) -> bool:
    """Half of a surrogate pair cannot be written to a file."""
    return not any("\ud800" <= letter <= "\udfff" for letter in answer)


def _shown(value: Any) -> str:
    """At most 60 characters of a value, on one line."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
