"""Texts of the cells that ``unival data pack`` writes, made of the values in all forms that tables have."""

from __future__ import annotations

import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

from .data_cells import BOX_SLACK
from .data_schemas import LABELS, MARK, SEPARATOR
from .row_writer import clean_text

SHARE = 0.3
"""Confidence that each annotator who gave an answer adds, up to 1: four of VQA's ten make it certain."""


class Unusable(Exception):
    """A record gives no row; ``what`` names the field."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(reason)
        self.what = what


def one_text(what: str, value: Any) -> str:
    """A text with single blanks, which has a word. Raises Unusable."""
    if not isinstance(value, str):
        raise Unusable(what, f"the {what} is {str(value)[:40]!a}, not a text")
    text = clean_text(value)
    if not text:
        raise Unusable(what, f"the {what} is empty")
    if not any(character.isalnum() for character in text):
        raise Unusable(what, f"the {what} {text[:40]!a} has no word")
    if what in ("caption", "objects", "answer") and (SEPARATOR in text or text.endswith("&")):
        raise Unusable(what, f'the {what} contains "{SEPARATOR}", which separates several of them, or ends with &')
    return text


def objects_cell(value: Any, asked_for: bool) -> str:
    """Names joined by ``&&``; what is of another kind is another thing with this name, unless it was asked for."""
    if value is None or (value == "" or value == []):
        return ""
    names = value.split(SEPARATOR) if isinstance(value, str) else value
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return SEPARATOR.join(one_text("objects", name) for name in names)
    if asked_for:
        raise Unusable("objects", f"the objects are {str(value)[:40]!a}, not a list of names")
    return ""


def label_cell(value: Any) -> str:
    """One of the three names, in small letters. Raises Unusable."""
    label = value.strip().lower() if isinstance(value, str) else value
    if label == "-":
        raise Unusable("label", "there is no agreed label ('-'): leave such records out (--on-bad-row skip)")
    if label not in LABELS:
        raise Unusable("label", f"label {str(value)[:40]!a} is none of {', '.join(LABELS)}")
    return str(label)


def box_cell(value: Any, box_format: str) -> str:
    """``x0,y0,x1,y1`` of a list of four numbers or a text of four with commas or blanks. Raises Unusable."""
    parts = value.strip(" []()").replace(",", " ").split() if isinstance(value, str) else value
    edges = [_number(part) for part in parts] if isinstance(parts, (list, tuple)) else []
    if len(edges) != 4 or not all(map(math.isfinite, edges)):
        raise Unusable("box", f"box {str(value)[:60]!a} is not four numbers")
    x0, y0, x1, y1 = (round(edge, 3) for edge in edges)
    if box_format == "xywh":
        x1, y1 = round(x0 + x1, 3), round(y0 + y1, 3)
    if x0 >= x1 or y0 >= y1:
        remedy = "corners are xyxy" if box_format == "xywh" else "corner, width and height are xywh"
        raise Unusable("box", f"box {str(value)[:60]} has no area as {box_format} (--box-format; {remedy})")
    if max(x1, y1) <= 1:
        raise Unusable("box", f"box {str(value)[:60]} is smaller than a pixel: multiply shares by width and height")
    return ",".join(f"{edge:.10g}" for edge in (x0, y0, x1, y1))


def check_box(cell: str, size: tuple[int, int]) -> None:
    """Raise Unusable if a box reaches outside a picture of this width and height."""
    x0, y0, x1, y1 = (float(edge) for edge in cell.split(","))
    width, height = size
    if min(x0, y0) < -BOX_SLACK or x1 > width + BOX_SLACK or y1 > height + BOX_SLACK:
        raise Unusable(
            "box", f"box {cell} reaches outside the picture of {width} x {height} pixels (see --box-format); cut it"
        )


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def answers_cell(value: Any) -> str:
    """``confidence|!+answer`` joined by ``&&``, the surest first.

    A text is one sure answer (or such a cell already). Of a list, each answer that n annotators gave has the confidence
    min(1, 0.3 n); a list of one is one sure answer. Objects with a number as "confidence" keep it.

    Raises:
        Unusable: no answer, or one without a word or with a confidence that is not above 0 and at most 1.
    """
    found = _answers(value)
    names = [one_answer(answer) for answer, _ in found]
    given = [confidence for _, confidence in found]
    sure: dict[str, float] = {}
    if all(confidence is None for confidence in given):
        counts = Counter(names)
        sure = {name: 1.0 if len(names) == 1 else min(1.0, SHARE * count) for name, count in counts.items()}
    else:
        for name, confidence in zip(names, given, strict=True):
            number = round(_number(confidence), 4)
            if not 0 < number <= 1:
                raise Unusable(
                    "answers", f"confidence {confidence!a} of answer {name[:40]!a} is not above 0, at most 1"
                )
            sure[name] = max(number, sure.get(name, 0.0))
    ordered = sorted(sure.items(), key=lambda pair: -pair[1])
    return SEPARATOR.join(f"{round(confidence, 4)}{MARK}{name}" for name, confidence in ordered)


def one_answer(value: Any) -> str:
    """A text, or a whole number as one. Raises Unusable."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = one_text("answer", value)
    if MARK in text:
        raise Unusable("answers", f'the answer {text[:40]!a} contains "{MARK}", which ends a confidence; remove it')
    return text


def _answers(value: Any) -> list[tuple[Any, Any]]:
    """Pairs of answer and confidence; None where there is no number."""
    if isinstance(value, str) and MARK in value:
        parts = [part.partition(MARK) for part in value.split(SEPARATOR)]
        return [(answer, confidence or "none") for confidence, _, answer in parts]
    if isinstance(value, dict):  # of lists, as older Hugging Face data sets hold lists of objects
        lists = {name: list(entry) if isinstance(entry, (list, tuple)) else [entry] for name, entry in value.items()}
        count = len(lists.get("answer", ()))
        value = [{name: entry[k] for name, entry in lists.items() if len(entry) == count} for k in range(count)]
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise Unusable("answers", "there are no answers")
    return [_pair(entry) for entry in entries]


def _pair(entry: Any) -> tuple[Any, Any]:
    if not isinstance(entry, dict):
        return entry, None
    confidence = entry.get("confidence")
    return entry.get("answer"), confidence if isinstance(confidence, (int, float)) else None


# -------------------------------------------------------------------------------- pictures


def picture_size(data: bytes | Path) -> tuple[int, int] | None:
    """Width and height as the header tells; None if this is no picture, which is for others to say."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as picture:
            return picture.size
    except Exception:  # Pillow's readers raise nearly every type on damaged bytes
        return None
