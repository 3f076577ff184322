"""What the records of a table mean for each task: ``unival data pack`` makes rows of them, or says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from .data_schemas import FILE_COLUMNS, SEPARATOR
from .pack_cells import Unusable, answers_cell, box_cell, label_cell, objects_cell, one_text

FIELDS: dict[str, tuple[str, ...]] = {
    "image": ("image", "picture", "img", "file_name", "filename", "image_path", "path"),
    "film": ("video", "film", "clip", "file_name", "filename", "video_path", "path"),
    "sound": ("audio", "sound", "file_name", "filename", "audio_path", "path"),
    "id": (),
    "image_id": ("image_id", "video_id", "audio_id"),
    "caption": ("caption", "captions", "text"),
    "question": ("question",),
    "answers": ("answers", "answer"),
    "objects": ("objects",),
    "expression": ("expression", "expressions", "sentence", "caption"),
    "box": ("box", "bbox"),
    "hypothesis": ("hypothesis", "sentence2"),
    "premise": ("caption", "premise", "sentence1"),
    "label": ("label", "gold_label"),
}
"""By what a record tells: the names under which it is looked for, the first one there counts."""


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """``file_name`` for " File Name"."""
    return "_".join(name.casefold().split())


def with_plain_names(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record with its fields under their plain names, too; those that have such a name keep it."""
    plain = {plain_name(name): value for name, value in record.items()}
    return record if plain.keys() == record.keys() else {**plain, **record}


@dataclass(frozen=True)
class Meaning:
    """The rows of a task.

    Attributes:
        medium: what kind of file belongs to a row: "image", "film" or "sound".
        text: the field that gives a row for each of its texts.
        needs, may: further fields that must or can be there.
        columns: of the row, where a field has another name there.
        ids: names under which the row's id is looked for.
    """

    medium: str
    text: str
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    ids: tuple[str, ...] = ()


def _captions(medium: str) -> Meaning:
    return Meaning(medium, "caption", may=("objects",))


def _questions(medium: str, **columns: str) -> Meaning:
    return Meaning(medium, "question", ("answers",), ("objects",), columns, ("question_id",))


MEANINGS = {
    "caption": _captions("image"),
    "vqa_gen": _questions("image"),
    "refcoco": Meaning("image", "expression", ("box",)),
    "snli_ve": Meaning("image", "hypothesis", ("label",), ("premise",), {"premise": "caption"}),
    "video_caption": _captions("film"),
    "video_vqa_gen": _questions("film"),
    "audio_caption": _captions("sound"),
}
TYPES = {
    "caption": _captions("image"),
    "qa": _questions("image", answers="refs"),
    "visual_grounding": Meaning("image", "expression", ("box",), (), {"expression": "caption", "box": "refs"}),
    "video_caption": _captions("film"),
    "video_qa": _questions("film", answers="refs"),
    "audio_caption": _captions("sound"),
}
"""Rows of unify_task by their type."""


@dataclass(frozen=True)
class Row:
    """The cells of a row by column, but for its id and its medium."""

    cells: Mapping[str, str]
    words: int


@dataclass(frozen=True)
class Packing:
    """How records become rows.

    Attributes:
        task: its name.
        meaning: see :class:`Meaning`.
        keys: names of fields that the user gave.
        box_format: "xyxy" or "xywh".
        join: all texts of a record in one row.
        constant: cells that are the same in all rows.
    """

    task: str
    meaning: Meaning
    keys: Mapping[str, str] = field(default_factory=dict)
    box_format: str = "xyxy"
    join: bool = False
    constant: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """What the rows hold, from column 0."""
        return FILE_COLUMNS[self.task]

    @property
    def text_column(self) -> str:
        """The column of the texts that are counted and joined."""
        return self.meaning.columns.get(self.meaning.text, self.meaning.text)

    def names(self, what: str) -> tuple[str, ...]:
        """Names under which a field is looked for."""
        if what in self.keys:
            return (self.keys[what],)
        return self.meaning.ids if what == "id" else FIELDS[what]

    def get(self, record: Mapping[str, Any], what: str) -> Any:
        """The value of a field, or None. A field that the user named must be there. Raises Unusable."""
        value = next((record[name] for name in self.names(what) if record.get(name) is not None), None)
        if value is None and what in self.keys:
            raise Unusable(what, f"there is no {self.keys[what]!r}")
        return value

    def missing(self, names: Sequence[str]) -> list[str]:
        """The fields that rows need and a table with these names lacks."""
        known = {*names, *map(plain_name, names)}
        needed = (self.meaning.medium, self.meaning.text, *self.meaning.needs, *self.keys)
        return [what for what in dict.fromkeys(needed) if not known & set(self.names(what))]

    def rows(self, record: Mapping[str, Any]) -> list[Row]:
        """The rows that a record gives. Raises Unusable."""
        texts = self._texts(record)
        cells = dict(self.constant)
        for what in (*self.meaning.needs, *self.meaning.may):
            cells[self.meaning.columns.get(what, what)] = self._cell(record, what)
        words = [len(text.split()) for text in texts]
        if self.join:
            texts, words = [SEPARATOR.join(texts)], [sum(words)]
        column = self.text_column
        return [Row({**cells, column: text}, number) for text, number in zip(texts, words, strict=True)]

    def _texts(self, record: Mapping[str, Any]) -> list[str]:
        what = self.meaning.text
        value = self._needed(record, what)
        return [one_text(what, text) for text in (value if isinstance(value, list) and value else [value])]

    def _cell(self, record: Mapping[str, Any], what: str) -> str:
        if what == "box":
            return box_cell(self._needed(record, what), self.box_format)
        if what == "answers":
            return answers_cell(self._needed(record, what))
        if what == "label":
            return label_cell(self._needed(record, what))
        value = self.get(record, what)
        if what == "objects":
            return objects_cell(value, what in self.keys)
        return "" if value is None or value == "" else one_text(what, value)

    def _needed(self, record: Mapping[str, Any], what: str) -> Any:
        value = self.get(record, what)
        if value is None:
            raise Unusable(what, f"there is no {' or '.join(map(repr, self.names(what)))}")
        return value
