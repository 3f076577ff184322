"""What the columns of each task's rows hold, in the order of ``--selected-cols``."""

from __future__ import annotations

from dataclasses import dataclass

LABELS = ("contradiction", "entailment", "neutral")


@dataclass(frozen=True)
class Schema:
    """The cells of a task's rows.

    Attributes:
        columns: pairs of name and kind. Kinds: ``id``, ``image``, ``film`` and ``sound`` (paths), ``captions`` (joined
            by ``&&``), ``text`` (needs a word), ``answers`` (``confidence|!+answer``, joined by ``&&``), ``box``
            (``x0,y0,x1,y1``, behind the image), ``label`` (one of LABELS), ``any`` (may be empty).
        selected_cols: the task's usual --selected-cols.
        key: the cells, by place, that no two rows may share together.
    """

    columns: tuple[tuple[str, str], ...]
    selected_cols: str
    key: tuple[int, ...] = (0,)

    def describe(self) -> str:
        """One line for ``--help``."""
        return f"{', '.join(name for name, _ in self.columns)} (usual --selected-cols: {self.selected_cols})"

    def has(self, kind: str) -> bool:
        """Whether a column is of this kind."""
        return any(its_kind == kind for _, its_kind in self.columns)


def _captions(medium: str) -> Schema:
    return Schema((("id", "id"), (medium, medium), ("caption", "captions")), "0,4,2")


def _questions(medium: str) -> Schema:
    columns = (("id", "id"), (medium, medium), ("question", "text"), ("answers", "answers"), ("objects", "any"))
    # Training files repeat a question, with its id, once for each of its answers.
    return Schema(columns, "0,5,2,3,4", key=(0, 3))


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
}
