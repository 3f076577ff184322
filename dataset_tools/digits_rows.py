"""The kinds of rows that scenes give, one for each task, in the formats of the real data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import digits_entailment as entailment
import digits_grounding as grounding
import digits_questions as questions
from digits_language import ADJECTIVES, INVERSE, PLACES, Setting, words_of
from digits_scenes import LAYOUTS, NAMES, Scene, encoded_picture

RowWriter = Callable[[Scene, Setting], list[str]]
PHRASES = (*(place for places in PLACES.values() for place in places), *sum(ADJECTIVES.values(), ()), *INVERSE)


@dataclass(frozen=True)
class RowKind:
    """How one task's rows are written.

    Attributes:
        write: the cells of the row that a scene gives.
        prefix: how the names of the task's files start.
        columns: names of the cells, for people.
        selected_cols: what ``--selected-cols`` of the task must be.
        templates: what its texts are made from; the vocabulary has every word of them as one piece.
        extra_files: further files of the task by name.
    """

    write: RowWriter
    prefix: str
    columns: str
    selected_cols: str
    templates: tuple[str, ...] = ()
    extra_files: dict[str, str] = field(default_factory=dict)


def caption_row(scene: Scene, setting: Setting) -> list[str]:
    """Columns id, image id, caption, objects, image: read with ``--selected-cols 0,4,2``."""
    objects = "&&".join(NAMES[digit.label] for digit in scene.digits)
    return [str(scene.number), scene.name, scene.caption, objects, encoded_picture(scene)]


# To add a task: one writer, one entry here.
ROW_KINDS: dict[str, RowKind] = {
    "caption": RowKind(
        caption_row,
        "",
        "id, image id, caption, objects, image (base64)",
        "0,4,2",
        tuple(layout.wording for layout in LAYOUTS.values()),
    ),
    "vqa_gen": RowKind(
        questions.question_row,
        "vqa_",
        "question id, image id, question, answers (confidence|!+answer, joined by &&), objects, image (base64)",
        "0,5,2,3,4",
        questions.TEMPLATES,
        {
            "answers.json": json.dumps({answer: i for i, answer in enumerate(questions.ANSWERS)}, indent=1) + "\n",
            "answers.txt": "".join(f"{answer}\n" for answer in questions.ANSWERS),
        },
    ),
    "refcoco": RowKind(
        grounding.grounding_row,
        "refcoco_",
        "id, image id, expression, box (x0,y0,x1,y1 in pixels), image (base64)",
        "0,4,2,3",
        grounding.TEMPLATES,
    ),
    "snli_ve": RowKind(
        entailment.entailment_row,
        "snli_",
        "id, image id, image (base64), hypothesis, caption, label",
        "0,2,3,4,5",
        entailment.TEMPLATES,
    ),
}


def vocabulary_words() -> list[str]:
    """The words of all tasks' texts, each once."""
    return words_of((*PHRASES, *(template for kind in ROW_KINDS.values() for template in kind.templates)))
