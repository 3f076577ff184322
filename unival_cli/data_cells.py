"""What a cell of each kind must be, and what is counted in it (``unival data validate``)."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .data_schemas import LABELS, ROW_TYPES

BOX_SLACK = 0.5
"""Pixels that a box may reach over the border: boxes of real sets are rounded."""

MEDIA = ("image", "film", "sound")
"""Kinds of cells that are decoded."""

FILM_FRAMES = 8
"""How many of a film are decoded, spread over all of it."""

CODE_SPAN = 8
"""Pixels that a code of a picture spans along a side."""

ANSWERS_REMEDY = "write confidence|!+answer, joined by &&, as in 1.0|!+yes&&0.3|!+no"


class BadCell(NamedTuple):
    """Rows count from 1, columns from 0 as in ``--selected-cols``; column None = the row as a whole."""

    row: int
    column: int | None
    reason: str

    def line(self, path: Path) -> str:
        """``file:row:column: reason``."""
        place = f"{path}:{self.row}" if self.column is None else f"{path}:{self.row}:{self.column}"
        return f"{place}: {self.reason}"


def _spreads() -> defaultdict[str, Counter[int]]:
    return defaultdict(Counter)


def _tallies() -> defaultdict[str, Counter[str]]:
    return defaultdict(Counter)


@dataclass
class Report:
    """What a range of rows holds.

    Attributes:
        rows: number of rows.
        bad: bad cells.
        key_hashes: one 64-bit number a row, so that the keys of millions of rows fit in memory.
        spreads: by name, how often each number occurs.
        tallies: by name, how often each text occurs.
    """

    rows: int = 0
    bad: list[BadCell] = field(default_factory=list)
    key_hashes: array[int] = field(default_factory=lambda: array("Q"))
    spreads: defaultdict[str, Counter[int]] = field(default_factory=_spreads)
    tallies: defaultdict[str, Counter[str]] = field(default_factory=_tallies)

    def add(self, other: Report) -> None:
        """Take over the counts of the rows that follow; the bad rows are left to the caller, who prints them."""
        self.rows += other.rows
        self.key_hashes.extend(other.key_hashes)
        for name, numbers in other.spreads.items():
            self.spreads[name].update(numbers)
        for name, texts in other.tallies.items():
            self.tallies[name].update(texts)


@dataclass(frozen=True)
class CodeRule:
    """What the codes of a picture must be: as many as a square has, line by line.

    Args:
        size: codes are below it.
        number: how many there are; None: any square.
        owner: what has this number.
    """

    size: int = 8192
    number: int | None = None
    owner: str = ""

    def fault(self, text: str) -> str | None:
        """What is wrong with a cell, or None."""
        codes = text.split()
        for place, code in enumerate(codes, 1):
            if not (code.isascii() and code.isdecimal() and len(code) < 10 and int(code) < self.size):
                return (
                    f"code {place} of {len(codes)} is {code[:20]!r}, not a number from 0 to {self.size - 1}: encode "
                    "the picture again, or give the number of its tokenizer's codes as --code-dict-size"
                )
        if math.isqrt(len(codes)) ** 2 != len(codes):
            return f"{len(codes)} codes are no square: encode the picture again, nothing may be cut off"
        if self.number not in (None, len(codes)):
            return f"{len(codes)} codes, but {self.owner} has {self.number}: encode all in one --code-image-size"
        return None


@dataclass(frozen=True)
class CellChecker:
    """Checks single cells.

    Args:
        image_dir: folder of the paths of pictures, films and sounds.
        from_path: picture cells hold paths.
        answers: the only answers allowed; None: any.
        codes: what codes of pictures must be.
    """

    image_dir: Path | None = None
    from_path: bool = False
    answers: frozenset[str] | None = None
    codes: CodeRule = CodeRule()

    def medium(self, kind: str, cell: str, where: str, report: Report) -> tuple[int, int] | None:
        """Decode a picture, some frames of a film, or a sound; width and height of the first two. Raises DataError."""
        return {"image": self._image, "film": self._film, "sound": self._sound}[kind](cell, where, report)

    def _film(self, cell: str, where: str, report: Report) -> tuple[int, int]:
        from unival_plugin.data.image import path_below
        from unival_plugin.data.video import FrameSampling, read_frames

        path = path_below(cell, where, self.image_dir)
        frames = read_frames(path, FrameSampling(FILM_FRAMES, "middle"), where)
        height, width = frames.shape[2:]
        report.spreads["film width"][width] += 1
        report.spreads["film height"][height] += 1
        return width, height

    def _sound(self, cell: str, where: str, report: Report) -> None:
        from unival_plugin.data.audio import SAMPLE_RATE, read_waveform
        from unival_plugin.data.image import path_below

        wave = read_waveform(path_below(cell, where, self.image_dir), where)
        report.spreads["sound length in ms"][round(1000 * len(wave) / SAMPLE_RATE)] += 1

    def _image(self, cell: str, where: str, report: Report) -> tuple[int, int]:
        from unival_plugin.data.image import read_cell_image

        picture = read_cell_image(cell, where, self.image_dir, self.from_path)
        report.spreads["picture width"][picture.width] += 1
        report.spreads["picture height"][picture.height] += 1
        return picture.size

    def fault(self, name: str, kind: str, text: str, size: tuple[int, int] | None, report: Report) -> str | None:
        """What is wrong with a cell that is no picture, or None; ``size`` is that of the row's picture."""
        if kind == "captions":
            return _captions_fault(text, report)
        if kind == "text":
            return _text_fault(name, text, report)
        if kind == "answers":
            return self._answers_fault(text, report)
        if kind == "box":
            return _box_fault(text, size)
        if kind == "type":
            return _type_fault(text, report)
        if kind == "codes":
            return self._codes_fault(text, report)
        return _label_fault(text, report) if kind == "label" else None

    def _codes_fault(self, text: str, report: Report) -> str | None:
        reason = self.codes.fault(text)
        if reason is None:
            codes = text.split()
            report.spreads["codes a row"][len(codes)] += 1
            report.spreads["different codes a row"][len(set(codes))] += 1
        return reason

    def _answers_fault(self, text: str, report: Report) -> str | None:
        answers = []
        for part in text.split("&&"):
            confidence, mark, answer = part.partition("|!+")
            if not mark or not answer.strip():
                return f"{part[:40]!r} is no answer with its confidence: {ANSWERS_REMEDY}"
            if not 0 < (_number(confidence) or 0.0) <= 1:
                return f"confidence {confidence[:20]!r} is not a number above 0 and at most 1: {ANSWERS_REMEDY}"
            answers.append(answer.strip())
        report.spreads["answers a row"][len(answers)] += 1
        if repeated := [answer for answer, count in Counter(answers).items() if count > 1]:
            return f"answer {repeated[0]!r} stands twice: keep it once, with its highest confidence"
        outside = [answer for answer in answers if self.answers is not None and answer not in self.answers]
        report.tallies["answers outside the set"].update(outside)
        if outside:
            names = ", ".join(map(repr, outside))
            return f"not in the answer set: {names}: add to the set, correct the spelling or remove the answer"
        return None


def _captions_fault(text: str, report: Report) -> str | None:
    captions = text.split("&&")
    if not all(caption.strip() for caption in captions):
        return "one of the captions between && is empty"
    report.spreads["captions a row"][len(captions)] += 1
    report.spreads["words a caption"].update(len(caption.split()) for caption in captions)
    return None


def _text_fault(name: str, text: str, report: Report) -> str | None:
    if not any(character.isalnum() for character in text):
        return f"{name} {text[:40]!r} has no word: write one or remove the row"
    report.spreads[f"words {'an' if name[0] in 'aeiou' else 'a'} {name}"][len(text.split())] += 1
    return None


def _box_fault(text: str, size: tuple[int, int] | None) -> str | None:
    numbers = [_number(part) for part in text.split(",")]
    edges = [number for number in numbers if number is not None]
    if len(numbers) != 4 or len(edges) != 4:
        return f"box {text[:60]!r} is not four numbers: write x0,y0,x1,y1 in pixels of the picture"
    x0, y0, x1, y1 = edges
    if x0 >= x1:
        return f"box has x0 {x0:g} not below x1 {x1:g}: write the left edge first (x0,y0,x1,y1)"
    if y0 >= y1:
        return f"box has y0 {y0:g} not below y1 {y1:g}: write the upper edge first (x0,y0,x1,y1)"
    if size is None:
        return None
    width, height = size
    if min(x0, y0) < -BOX_SLACK or x1 > width + BOX_SLACK or y1 > height + BOX_SLACK:
        return f"box {text} reaches outside the picture of {width} x {height} pixels: cut it to the picture"
    return None


def _label_fault(text: str, report: Report) -> str | None:
    if text not in LABELS:
        return f"label {text[:40]!r} is none of {', '.join(LABELS)}: correct it or remove the row"
    report.tallies["labels"][text] += 1
    return None


def _type_fault(text: str, report: Report) -> str | None:
    if text not in ROW_TYPES:
        return f"type {text[:40]!r} is none of {', '.join(ROW_TYPES)}: correct it or remove the row"
    report.tallies["types"][text] += 1
    return None


def _number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
