"""``unival data convert-answers``: a pickled set of answers becomes JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .files import atomic_output, refuse_existing
from .light import light
from .plain_pickle import read_plain_pickle


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
    content = read_plain_pickle(path)
    _check(content, path)
    return content


def _check(content: Any, path: Path) -> None:
    bad = light("errors").DataError
    if type(content) not in (list, dict) or not content:
        raise bad(f"{path}: needs a list of answers or a dict answer -> number, has {_shown(content)}")
    for answer in content:
        if not isinstance(answer, str) or not _is_text(answer):
            raise bad(f"{path}: answer {_shown(answer)} is not a text")
        if isinstance(content, dict) and type(content[answer]) is not int:
            raise bad(f"{path}: answer {_shown(answer)} has {_shown(content[answer])} where its number belongs")


def _is_text(answer: str) -> bool:
    """Half of a surrogate pair cannot be written to a file."""
    return not any("\ud800" <= letter <= "\udfff" for letter in answer)


def _shown(value: Any) -> str:
    """At most 60 characters of a value, on one line."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
