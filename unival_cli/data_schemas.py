"""What the columns of each task's rows hold, in the order of ``--selected-cols``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SEPARATOR = "&&"
"""Stands between the captions, answers or objects of one cell."""

MARK = "|!+"
"""Stands between a confidence and its answer."""

LABELS = ("contradiction", "entailment", "neutral")

Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Schema:
    """The cells of a task's rows.

    Attributes:
        columns: pairs of name and kind. Kinds: ``id``, ``image``, ``film`` and ``sound`` (paths), ``captions`` (joined
            by ``&&``), ``text`` (needs a word), ``answers`` (``confidence|!+answer``, joined by ``&&``), ``box``
            (``x0,y0,x1,y1``, behind the image), ``label`` (one of LABELS), ``type`` (one of ROW_TYPES, the last cell),
            ``codes`` (of a picture, with spaces between them), ``any`` (may be empty).
        selected_cols: the task's usual --selected-cols.
        key: the cells, by place, that no two rows may share together.
        types: for tasks whose rows differ: the columns of rows of each type.
        others: for tasks that also read files with fewer or more columns: what those hold.
    """

    columns: Columns
    selected_cols: str
    key: tuple[int, ...] = (0,)
    types: Mapping[str, Columns] = field(default_factory=dict)
    others: tuple[Schema, ...] = ()

    def with_columns(self, number: int) -> Schema | None:
        """This schema or the one of the others that has so many columns; None if there is none."""
        return next((schema for schema in (self, *self.others) if len(schema.columns) == number), None)

    def of_row(self, cells: Sequence[bytes]) -> Columns:
        """The columns of a row, whose last cell may be its type; those of the task if the type is not known."""
        return self.types.get(cells[-1].decode("utf-8", "replace"), self.columns)

    def describe(self) -> str:
        """One line for ``--help``."""
        types = f"; which of them a row needs depends on its type: {', '.join(self.types)}" if self.types else ""
        own = f"{', '.join(name for name, _ in self.columns)} (usual --selected-cols: {self.selected_cols}){types}"
        return "; or ".join([own, *(schema.describe() for schema in self.others)])

    def has(self, kind: str) -> bool:
        """Whether a column is of this kind."""
        return any(its_kind == kind for columns in (self.columns, *self.types.values()) for _, its_kind in columns)


def _captions(medium: str) -> Schema:
    return Schema((("id", "id"), (medium, medium), ("caption", "captions")), "0,4,2")


def _questions(medium: str) -> Schema:
    columns = (("id", "id"), (medium, medium), ("question", "text"), ("answers", "answers"), ("objects", "any"))
    # Training files repeat a question, with its id, once for each of its answers.
    return Schema(columns, "0,5,2,3,4", key=(0, 3))


def _pretraining(**needed: str) -> Columns:
    """The cells of multitask pretraining, of which a type of rows needs these, of these kinds."""
    kinds = {"id": "id", "type": "type", **needed}
    names = ("id", "medium", "caption", "question", "refs", "objects", "dataset", "type")
    columns = [(name, kinds.get(name, "any")) for name in names]
    return tuple((name if kind in ("text", "any") else kind, kind) for name, kind in columns)


ROW_TYPES = {
    "caption": _pretraining(medium="image", caption="text"),
    "qa": _pretraining(medium="image", question="text", refs="answers"),
    "visual_grounding": _pretraining(medium="image", caption="text", refs="box"),
    "video_caption": _pretraining(medium="film", caption="text"),
    "video_qa": _pretraining(medium="film", question="text", refs="answers"),
    "audio_caption": _pretraining(medium="sound", caption="text"),
}
"""The columns of rows for multitask pretraining, by type."""

SCHEMAS = {
    "caption": _captions("image"),
    "vqa_gen": _questions("image"),
    "refcoco": Schema((("id", "id"), ("image", "image"), ("expression", "text"), ("box", "box")), "0,4,2,3"),
    "snli_ve": Schema(
        (("id", "id"), ("image", "image"), ("hypothesis", "text"), ("caption", "any"), ("label", "label")),
        "0,2,3,4,5",
    ),
    "video_caption": _captions("film"),
    "video_vqa_gen": _questions("film"),
    "audio_caption": _captions("sound"),
    # A picture with several captions has a row, with its id, for each.
    "image_gen": Schema(
        (("id", "id"), ("caption", "text"), ("codes", "codes")),
        "0,2,1",
        key=(0, 1),
        others=(
            Schema((("id", "id"), ("caption", "text")), "0,2", key=(0, 1)),
            Schema((("id", "id"), ("image", "image"), ("caption", "text"), ("codes", "codes")), "0,1,2,3", key=(0, 2)),
        ),
    ),
    # A file may hold rows of several types and data sets, each of which counts its rows for itself.
    "unify_task": Schema(_pretraining(), "0,1,2,3,4,5,6,7", key=(0, 6, 7), types=ROW_TYPES),
}


def _caption_file(medium: str) -> tuple[str, ...]:
    return ("id", f"{medium} id", "caption", "objects", medium)


def _question_file(medium: str) -> tuple[str, ...]:
    return ("id", f"{medium} id", "question", "answers", "objects", medium)


FILE_COLUMNS: dict[str, tuple[str, ...]] = {
    "caption": _caption_file("image"),
    "vqa_gen": _question_file("image"),
    "refcoco": ("id", "image id", "expression", "box", "image"),
    "snli_ve": ("id", "image id", "image", "hypothesis", "caption", "label"),
    "video_caption": _caption_file("film"),
    "video_vqa_gen": _question_file("film"),
    "audio_caption": _caption_file("sound"),
    "image_gen": ("id", "codes", "caption"),
    "unify_task": tuple(name for name, _ in SCHEMAS["unify_task"].columns),
}
"""What the columns of each task's whole files hold, from column 0; ``--selected-cols`` counts in them."""
