"""What the rows of a task hold that negative samples are made of, for ``unival data negatives``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .answer_set import parse_answers
from .data_schemas import SEPARATOR
from .light import light
from .negative_answers import WORD

CAPTION_FILES = {
    "caption": "all_captions.txt",
    "video_caption": "all_captions_video.txt",
    "audio_caption": "all_captions_audio.txt",
}
QUESTIONS = ("qa", "video_qa")
ROW_TYPES = (*CAPTION_FILES, *QUESTIONS, "visual_grounding")
"""What the last column of a pretraining row may say."""

_CAPTION_CELLS = ("id", "medium", "caption", "objects")
_QUESTION_CELLS = ("id", "medium", "question", "answers", "objects")
CELLS = {
    "unify_task": ("id", "medium", "caption", "question", "answers", "objects", "dataset", "type"),
    "caption": _CAPTION_CELLS,
    "video_caption": _CAPTION_CELLS,
    "audio_caption": _CAPTION_CELLS,
    "vqa_gen": _QUESTION_CELLS,
    "video_vqa_gen": _QUESTION_CELLS,
}
"""The cells of each task's rows in the order of --selected-cols; in finetuning the objects may be missing."""
TYPE_OF_TASK = {"vqa_gen": "qa", "video_vqa_gen": "video_qa"}
"""Type of the rows of a finetuning task, where it is not the task's own name."""


@dataclass(frozen=True)
class Source:
    """A file, the task that its rows are for, and the file's columns of that task's cells."""

    path: Path
    task: str
    columns: tuple[int, ...]

    @property
    def wanted(self) -> dict[str, int]:
        """The cells that are read, with their columns in the file; pictures are not among them."""
        unread = ("id", "medium", "dataset")
        return {
            name: column for name, column in zip(CELLS[self.task], self.columns, strict=False) if name not in unread
        }

    def table(self) -> Any:
        """The :class:`TsvTable` of the wanted cells; raises DataError if there is no such file."""
        return light("data.tsv").TsvTable(self.path, tuple(self.wanted.values()))


@dataclass(frozen=True)
class Found:
    """What a row holds."""

    row_type: str
    captions: Sequence[str] = ()
    question: str = ""
    answers: Sequence[str] = ()
    objects: Sequence[str] = ()


def parse_row(cells: Mapping[str, str], task: str, where: Callable[[str], str]) -> Found:
    """The texts of a row.

    Args:
        cells: text of each cell by name.
        task: what the row is for.
        where: place of the cell of this name, for messages.

    Raises:
        DataError: a text that the row's type needs is missing or of another format.
    """
    bad = light("errors").DataError
    row_type = cells["type"] if task == "unify_task" else TYPE_OF_TASK.get(task, task)
    objects = [_one_line(name) for name in cells.get("objects", "").split(SEPARATOR) if name.strip()]
    if row_type in CAPTION_FILES:
        # pretraining learns the whole cell as one caption
        texts = [cells["caption"]] if task == "unify_task" else cells["caption"].split(SEPARATOR)
        captions = [_one_line(text) for text in texts]
        if not all(captions):
            raise bad(f"{where('caption')}: the caption, or one between &&, is empty: write it or remove it")
        return Found(row_type, captions, objects=objects)
    if row_type in QUESTIONS:
        if not WORD.search(cells["question"]):
            raise bad(f"{where('question')}: question {cells['question'][:40]!r} has no word: write one")
        answers = [answer for _, answer in parse_answers(cells["answers"], where("answers"))]
        return Found(row_type, question=cells["question"], answers=answers, objects=objects)
    if row_type != "visual_grounding":
        raise bad(f"{where('type')}: type {row_type[:40]!r} is none of {', '.join(ROW_TYPES)}: correct it")
    return Found(row_type, objects=objects)


def _one_line(text: str) -> str:
    """Single spaces for all white space: some of it ends a line for those who read the file."""
    return " ".join(text.split())
