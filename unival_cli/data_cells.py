"""What a cell of each kind must be, and what is counted in it (``unival data validate``)."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .data_report import Fault, Report
from .data_schemas import LABELS, MARK, ROW_TYPES, SEPARATOR
from .data_texts import captions_fault, damage, no_word
from .light import light

BOX_SLACK = 0.5
"""Pixels that a box may reach over the border: boxes of real sets are rounded."""

MEDIA = ("image", "film", "sound")
"""Kinds of cells that are decoded."""

FILM_FRAMES = 8
"""How many of a film are decoded, spread over all of it."""

CODE_SPAN = 8
"""Pixels that a code of a picture spans along a side."""

ANSWERS_REMEDY = "write confidence|!+answer, joined by &&, as in 1.0|!+yes&&0.3|!+no"


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

    def fault(self, text: str) -> Fault | None:
        """What is wrong with a cell, or None."""
        codes = text.split()
        for place, code in enumerate(codes, 1):
            if not (code.isascii() and code.isdecimal() and len(code) < 10 and int(code) < self.size):
                return Fault(
                    "bad code",
                    f"code {place} of {len(codes)} is {code[:20]!r}, not a number from 0 to {self.size - 1}: encode "
                    "the picture again, or give the number of its tokenizer's codes as --code-dict-size",
                )
        if math.isqrt(len(codes)) ** 2 != len(codes):
            return Fault(
                "codes of no square",
                f"{len(codes)} codes are no square: encode the picture again, nothing may be cut off",
            )
        if self.number not in (None, len(codes)):
            return Fault(
                "wrong number of codes",
                f"{len(codes)} codes, but {self.owner} has {self.number}: encode all in one --code-image-size",
            )
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

    def text_fault(self, name: str, kind: str, text: str) -> Fault | None:
        """What is wrong with a cell as text, whatever it says, or None."""
        if kind == "any":
            return None
        if not text.strip() and kind != "type":
            return Fault("empty cell", f"{name} is empty: fill in the cell or remove the row")
        return None if kind == "image" and not self.from_path else damage(name, text)

    def medium(self, kind: str, cell: str, where: str, report: Report) -> tuple[int, int] | None:
        """Decode a picture, some frames of a film, or a sound; width and height of the first two. Raises DataError."""
        return {"image": self._image, "film": self._film, "sound": self._sound}[kind](cell, where, report)

    def _file(self, cell: str, where: str) -> Path:
        cells = light("data.picture_cells")
        path: Path = cells.path_below(cell, where, self.image_dir)
        if not path.is_file():
            reason = f"{where}: {path} is no file: correct the path or --image-dir"
            raise cells.MediumError(reason, kind="missing file")
        return path

    def _film(self, cell: str, where: str, report: Report) -> tuple[int, int]:
        path, video = self._file(cell, where), light("data.video")
        frames = video.read_frames(path, video.FrameSampling(FILM_FRAMES, "middle"), where)
        height, width = frames.shape[2:]
        report.spreads["film width"][width] += 1
        report.spreads["film height"][height] += 1
        return width, height

    def _sound(self, cell: str, where: str, report: Report) -> None:
        path, audio = self._file(cell, where), light("data.audio")
        wave = audio.read_waveform(path, where)
        report.spreads["sound length in ms"][round(1000 * len(wave) / audio.SAMPLE_RATE)] += 1

    def _image(self, cell: str, where: str, report: Report) -> tuple[int, int]:
        picture = light("data.picture_cells").read_cell_image(cell, where, self.image_dir, self.from_path)
        width, height = picture.size
        report.spreads["picture width"][width] += 1
        report.spreads["picture height"][height] += 1
        return width, height

    def fault(self, name: str, kind: str, text: str, size: tuple[int, int] | None, report: Report) -> Fault | None:
        """What is wrong with a cell that is no picture, or None; ``size`` is that of the row's picture."""
        if kind == "captions":
            return captions_fault(name, text, report)
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

    def _codes_fault(self, text: str, report: Report) -> Fault | None:
        fault = self.codes.fault(text)
        if fault is None:
            codes = text.split()
            report.spreads["codes a row"][len(codes)] += 1
            report.spreads["different codes a row"][len(set(codes))] += 1
        return fault

    def _answers_fault(self, text: str, report: Report) -> Fault | None:
        answers = []
        for part in text.split(SEPARATOR):
            confidence, mark, answer = part.partition(MARK)
            if not mark or not answer.strip():
                return Fault("no answer", f"{part[:40]!r} is no answer with its confidence: {ANSWERS_REMEDY}")
            if not 0 < (_number(confidence) or 0.0) <= 1:
                reason = f"confidence {confidence[:20]!r} is not a number above 0 and at most 1: {ANSWERS_REMEDY}"
                return Fault("bad confidence", reason)
            answers.append(answer.strip())
        report.spreads["answers a row"][len(answers)] += 1
        if repeated := [answer for answer, count in Counter(answers).items() if count > 1]:
            reason = f"answer {repeated[0][:40]!r} stands twice: keep it once, with its highest confidence"
            return Fault("repeated answer", reason)
        outside = [answer for answer in answers if self.answers is not None and answer not in self.answers]
        report.tallies["answers outside the set"].update(answer[:40] for answer in outside)
        if outside:
            names = ", ".join(repr(answer[:40]) for answer in outside[:10])
            reason = f"not in the answer set: {names}: add to the set, correct the spelling or remove the answer"
            return Fault("answer outside the set", reason)
        return None


def _text_fault(name: str, text: str, report: Report) -> Fault | None:
    if fault := no_word(name, text):
        return fault
    report.spreads[f"words {'an' if name[0] in 'aeiou' else 'a'} {name}"][len(text.split())] += 1
    return None


def _box_fault(text: str, size: tuple[int, int] | None) -> Fault | None:
    numbers = [_number(part) for part in text.split(",")]
    edges = [number for number in numbers if number is not None]
    if len(numbers) != 4 or len(edges) != 4:
        return Fault("not a box", f"box {text[:60]!r} is not four numbers: write x0,y0,x1,y1 in pixels of the picture")
    x0, y0, x1, y1 = edges
    for name, first, low, high in (("x", "left", x0, x1), ("y", "upper", y0, y1)):
        if low >= high:
            reason = f"box has {name}0 {low:g} not below {name}1 {high:g}: write the {first} edge first (x0,y0,x1,y1)"
            return Fault("box without area" if low == high else "reversed box", reason)
    if size is None:
        return None
    width, height = size
    if min(x0, y0) < -BOX_SLACK or x1 > width + BOX_SLACK or y1 > height + BOX_SLACK:
        reason = f"box {text[:60]} reaches outside the picture of {width} x {height} pixels: cut it to the picture"
        return Fault("box outside the picture", reason)
    return None


def _label_fault(text: str, report: Report) -> Fault | None:
    if text not in LABELS:
        reason = f"label {text[:40]!r} is none of {', '.join(LABELS)}: correct it or remove the row"
        return Fault("unknown label", reason)
    report.tallies["labels"][text] += 1
    return None


def _type_fault(text: str, report: Report) -> Fault | None:
    if text not in ROW_TYPES:
        reason = f"type {text[:40]!r} is none of {', '.join(ROW_TYPES)}: correct it or remove the row"
        return Fault("unknown type", reason)
    report.tallies["types"][text] += 1
    return None


def _number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
