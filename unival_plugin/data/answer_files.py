"""Files of answers; torch is not needed to read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError


def read_answers(path: Path) -> list[str]:
    """Answers of a JSON file (a list, or an object answer -> number) or a text file (an answer a line), in order.

    Raises:
        ConfigError: the file is missing, of another kind or without answers.
    """
    if path.suffix in (".pkl", ".p", ".pickle"):
        raise ConfigError(
            f"{path}: answers are not read from pickles; convert it once with: unival data convert-answers {path.name} "
            f"{path.stem}.json"
        )
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else [line for line in text.splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; it should hold the answers") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON ({error}); it should hold the answers") from error
    return check_answers(content, str(path))


def check_answers(content: Any, where: str) -> list[str]:
    """The answers of a list, or of a mapping answer -> number in the order of the mapping.

    Raises:
        ConfigError: neither, empty, with something else than texts, or with an answer twice.
    """
    answers = list(content) if isinstance(content, (list, Mapping)) else []
    if not answers or not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise ConfigError(f"{where}: needs answers as a list of texts or as an object answer -> number")
    if len(set(answers)) < len(answers):
        twice = next(answer for answer in answers if answers.count(answer) > 1)
        raise ConfigError(f"{where}: the answer {twice!r} stands there twice; delete one")
    return answers
