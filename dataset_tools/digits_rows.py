"""The kinds of rows that scenes give, one for each task, in the formats of the real data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import digits_entailment as entailment
import digits_film_questions as film_questions
import digits_grounding as grounding
import digits_pretraining as pretraining
import digits_questions as questions
from digits_films import film_caption_row
from digits_language import ADJECTIVES, INVERSE, PLACES, Setting, words_of
from digits_scenes import LAYOUTS, Scene, encoded_picture, joined_names
from digits_sounds import sound_caption_row

RowsWriter = Callable[[Any, Setting], list[list[str]]]
PHRASES = (*(place for places in PLACES.values() for place in places), *sum(ADJECTIVES.values(), ()), *INVERSE)


@dataclass(frozen=True)
class RowKind:
    """How one task's rows are written.

    Attributes:
        write: the rows, cell by cell, that an item of the medium gives.
        prefix: how the names of the task's files start.
        columns: names of the cells, for people.
        selected_cols: what ``--selected-cols`` of the task must be.
        templates: what its texts are made from; the vocabulary has every word of them as one piece. Films and sounds
            have none here: their captions use words that ``digits_vocabulary`` names, and the few other words of
            questions about films are several pieces. So the vocabulary is the one that earlier builds had. The rows for
            pretraining have the texts of other tasks.
        extra_files: further files of the task by name.
        medium: what the rows are about, a key of ``MEDIA``.
    """

    write: RowsWriter
    prefix: str
    columns: str
    selected_cols: str
    templates: tuple[str, ...] = ()
    extra_files: dict[str, str] = field(default_factory=dict)
    medium: str = "picture"


def caption_row(scene: Scene, setting: Setting) -> list[str]:
    """Columns id, image id, caption, objects, image: read with ``--selected-cols 0,4,2``."""
    return [str(scene.number), scene.name, scene.caption, joined_names(scene), encoded_picture(scene)]


def _answer_file(answers: Sequence[str]) -> str:
    return json.dumps({answer: i for i, answer in enumerate(answers)}, indent=1) + "\n"


def _pretraining_kind(name: str, write: RowsWriter, medium: str = "picture") -> RowKind:
    second = "image (base64)" if medium == "picture" else f"path of the {medium}"
    columns, selected_cols = pretraining.columns(second), pretraining.SELECTED_COLS
    return RowKind(write, f"pretrain_{name}_", columns, selected_cols, medium=medium)


# To add a task: one writer, one entry here.
ROW_KINDS: dict[str, RowKind] = {
    "caption": RowKind(
        lambda scene, setting: [caption_row(scene, setting)],
        "",
        "id, image id, caption, objects, image (base64)",
        "0,4,2",
        tuple(layout.wording for layout in LAYOUTS.values()),
    ),
    "vqa_gen": RowKind(
        lambda scene, setting: [questions.question_row(scene, setting)],
        "vqa_",
        "question id, image id, question, answers (confidence|!+answer, joined by &&), objects, image (base64)",
        "0,5,2,3,4",
        questions.TEMPLATES,
        {
            "answers.json": _answer_file(questions.ANSWERS),
            "answers.txt": "".join(f"{answer}\n" for answer in questions.ANSWERS),
        },
    ),
    "refcoco": RowKind(
        lambda scene, setting: [grounding.grounding_row(scene, setting)],
        "refcoco_",
        "id, image id, expression, box (x0,y0,x1,y1 in pixels), image (base64)",
        "0,4,2,3",
        grounding.TEMPLATES,
    ),
    "snli_ve": RowKind(
        lambda scene, setting: [entailment.entailment_row(scene, setting)],
        "snli_",
        "id, image id, image (base64), hypothesis, caption, label",
        "0,2,3,4,5",
        entailment.TEMPLATES,
    ),
    "video_caption": RowKind(
        lambda film, setting: [film_caption_row(film)],
        "video_",
        "id, film id, caption, nothing, path of the film",
        "0,4,2",
        medium="film",
    ),
    "video_vqa_gen": RowKind(
        film_questions.film_question_rows,
        "video_vqa_",
        "question id, film id, question, answer (confidence|!+answer), nothing, path of the film",
        "0,5,2,3,4",
        extra_files={"video_answers.json": _answer_file(film_questions.ANSWERS)},
        medium="film",
    ),
    "audio_caption": RowKind(
        lambda sound, setting: [sound_caption_row(sound)],
        "audio_",
        "id, sound id, caption, nothing, path of the sound",
        "0,4,2",
        medium="sound",
    ),
    "pretrain_caption": _pretraining_kind("caption", pretraining.caption_rows),
    "pretrain_image_text": _pretraining_kind("image_text", pretraining.image_text_rows),
    "pretrain_qa": _pretraining_kind("qa", pretraining.question_rows),
    "pretrain_ground": _pretraining_kind("ground", pretraining.grounding_rows),
    "pretrain_video": _pretraining_kind("video", pretraining.film_rows, "film"),
    "pretrain_audio": _pretraining_kind("audio", pretraining.sound_rows, "sound"),
}


def vocabulary_words() -> list[str]:
    """The words of all tasks' texts, each once."""
    return words_of((*PHRASES, *(template for kind in ROW_KINDS.values() for template in kind.templates)))
