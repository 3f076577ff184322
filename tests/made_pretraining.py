"""Rows for pretraining and what they need, made for tests: pictures, films, sounds, wrong captions and answers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from made_films import write_film
from made_sounds import noise, written
from PIL import Image

from unival_plugin.data.pretraining import COLUMNS

FILMS, SOUNDS = 3, 2
CAPTIONS = ["a red one", "two green ones", "a blue three", "four digits", "a five above a six", "the seventh", "eight"]
ROWS = {"main": 7, "qa": 3, "ground": 3, "web": 4, "video": 3, "audio": 2, "single": 1, "empty": 0, "kinds": 6}
"""Rows of the files ``<name>.tsv`` of :func:`make_folder`."""


def picture(number: int, side: int = 40) -> str:
    """A cell with a picture that differs from those of other numbers."""
    y, x = np.mgrid[:side, : side + 8]
    planes = np.stack([x * 5, y * 6, (x * y + 40 * number) % 256], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(planes).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def row(kind: str, name: str, number: int = 0, **cells: str) -> list[str]:
    """Cells of a row of type ``kind``, about the picture, film or sound of that number."""
    media = {"video": f"{number % FILMS}.mp4", "audio": f"{number % SOUNDS}.wav"}
    usual = {"id": name, "medium": media.get(kind.split("_")[0]) or picture(number), "dataset": "made", "type": kind}
    if kind.endswith("qa"):
        usual |= {"question": "how many are there?", "refs": f"0.5|!+none&&1.0|!+{number + 1}"}
    else:
        usual |= {"caption": CAPTIONS[number % len(CAPTIONS)], "objects": "red&&digits"}
    if kind == "visual_grounding":
        usual["refs"] = f"{number},2,{number + 12},30"
    return [{**usual, **cells}.get(column, "") for column in COLUMNS]


def write(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Writes a table."""
    path.write_text("".join("\t".join(cells) + "\n" for cells in rows), encoding="utf-8")
    return path


def _grey(film: int) -> Callable[[int], np.ndarray]:
    """Frames of one colour, which differs from frame to frame and film to film."""
    return lambda frame: np.full((48, 48, 3), 24 * frame + 8 * film, np.uint8)


def make_folder(folder: Path, tokenizer: Path) -> Path:
    """Fills a folder with the tables of :data:`ROWS`, films, sounds, ``wrong/`` (negatives) and ``digits.model``."""
    pytest.importorskip("av")
    for number in range(FILMS):
        write_film(folder / f"{number}.mp4", frames=6 + number, picture=_grey(number))
    for number in range(SOUNDS):
        written(folder / f"{number}.wav", noise(24_000, seed=number))
    kinds = {
        "main": ["caption"], "qa": ["qa"], "ground": ["visual_grounding"], "web": ["caption"],
        "video": ["video_caption", "video_qa"], "audio": ["audio_caption"], "single": ["video_caption"],
        "kinds": ["caption", "video_caption", "audio_caption", "qa", "video_qa", "visual_grounding"],
    }  # fmt: skip
    for name, count in ROWS.items():
        rows = [row(kinds[name][k % len(kinds[name])], f"{name}{k}", k) for k in range(count)]
        write(folder / f"{name}.tsv", rows)
    wrong = folder / "wrong"
    wrong.mkdir()
    (wrong / "all_captions.txt").write_text("".join(f"{caption} too\n" for caption in CAPTIONS))
    (wrong / "object.txt").write_text("red\ngreen\nblue\ndigits\n")
    (wrong / "type2ans.json").write_text(json.dumps({"how many": ["1", "2", "3", "4"], "other": ["none", "many"]}))
    (folder / "digits.model").write_bytes(tokenizer.read_bytes())
    return folder
