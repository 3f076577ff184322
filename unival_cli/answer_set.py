"""Answers of cells, and sets of them: the most frequent ones, compared as the evaluation of VQA compares answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Optional

from .data_schemas import MARK, SEPARATOR
from .light import light

VQA_MINIMUM = 9
"""Answers that fewer questions of VQA v2 (training and validation) have are left out, which keeps 3,129 (Teney et al.
2018, "Tips and Tricks for Visual Question Answering")."""


@lru_cache(maxsize=100_000)
def normalise(answer: str) -> str:
    """The answer as the evaluation of VQA compares it: lower case, digits, no articles, little punctuation."""
    return str(light("metrics.vqa").normalise(answer))


def frequent_answers(counts: Mapping[str, int], minimum: int = VQA_MINIMUM, limit: Optional[int] = None) -> list[str]:
    """The answers that stand there at least ``minimum`` times, at most ``limit``, the most frequent first.

    Answers that are equally frequent are in alphabetical order, so that the same data give the same set.
    """
    frequent = [answer for answer, count in counts.items() if count >= minimum]
    return sorted(frequent, key=lambda answer: (-counts[answer], answer))[:limit]


def numbered(answers: Iterable[str]) -> dict[str, int]:
    """Answer -> number, the form of ``--ans2label-file``."""
    return {answer: number for number, answer in enumerate(answers)}


def parse_answers(cell: str, where: str) -> list[tuple[float, str]]:
    """The answers of a cell with their confidences, as they stand there.

    Raises DataError that begins with ``where``: no confidence, none that is a finite number, or no answer.
    """
    found = []
    for part in cell.split(SEPARATOR):
        confidence, mark, answer = part.partition(MARK)
        if not mark or not answer.strip() or not _is_number(confidence):
            raise light("errors").DataError(
                f"{where}: {part[:40]!r} is no answer: write confidence{MARK}answer, joined by {SEPARATOR}"
            )
        found.append((float(confidence), answer.strip()))
    return found


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
