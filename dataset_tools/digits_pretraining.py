"""Rows for multitask pretraining (task unify_task): what the rows of the other tasks hold, in one format of 8 columns.

The columns are id, medium, caption, question, refs, objects, dataset and type; what a type does not use is empty.
Texts, answers and boxes are those of the rows of the other tasks, which say the same of the same picture.
"""

from __future__ import annotations

from digits_film_questions import QUESTIONS, film_question_rows
from digits_films import Film, film_caption_row
from digits_grounding import grounding_row
from digits_language import Setting
from digits_questions import question_row
from digits_scenes import Scene, encoded_picture, joined_names
from digits_sounds import Sound, sound_caption_row

SELECTED_COLS = "0,1,2,3,4,5,6,7"
DATASET = "digits"
WEB_DATASET = "cc12m"  # pretraining does not learn the first two symbols of the captions of this data set


def columns(medium: str) -> str:
    """Names of the cells, for people; ``medium`` says what the second one is."""
    return f"id, {medium}, caption, question, answers or box, objects (joined by &&), dataset, type"


def _row(
    row_type: str,
    number: str,
    medium: str,
    *,
    caption: str = "",
    question: str = "",
    refs: str = "",
    objects: str = "",
    dataset: str = DATASET,
) -> list[str]:
    return [number, medium, caption, question, refs, objects, dataset, row_type]


def caption_rows(scene: Scene, setting: Setting) -> list[list[str]]:
    """The caption, with the names of the digits as objects."""
    picture, objects = encoded_picture(scene), joined_names(scene)
    return [_row("caption", str(scene.number), picture, caption=scene.caption, objects=objects)]


def image_text_rows(scene: Scene, setting: Setting) -> list[list[str]]:
    """The caption as pictures of the web have it: without objects, of a data set whose beginnings are not learned."""
    return [_row("caption", str(scene.number), encoded_picture(scene), caption=scene.caption, dataset=WEB_DATASET)]


def question_rows(scene: Scene, setting: Setting) -> list[list[str]]:
    """The question of :func:`question_row`; ``refs`` are its answers."""
    number, _, question, answers, _, picture = question_row(scene, setting)
    return [_row("qa", number, picture, question=question, refs=answers)]


def grounding_rows(scene: Scene, setting: Setting) -> list[list[str]]:
    """The expression of :func:`grounding_row` as caption; ``refs`` is its box."""
    number, _, expression, box, picture = grounding_row(scene, setting)
    return [_row("visual_grounding", number, picture, caption=expression, refs=box)]


def film_rows(film: Film, setting: Setting) -> list[list[str]]:
    """The caption of :func:`film_caption_row`, then the questions of :func:`film_question_rows`.

    All have ids of their own, since those of captions and questions may be the same number.
    """
    _, _, caption, _, path = film_caption_row(film)
    first = film.number * (1 + QUESTIONS)
    rows = [_row("video_caption", str(first), path, caption=caption)]
    for k, (_, _, question, answers, _, _) in enumerate(film_question_rows(film, setting), start=1):
        rows.append(_row("video_qa", str(first + k), path, question=question, refs=answers))
    return rows


def sound_rows(sound: Sound, setting: Setting) -> list[list[str]]:
    """The caption of :func:`sound_caption_row`."""
    number, _, caption, _, path = sound_caption_row(sound)
    return [_row("audio_caption", number, path, caption=caption)]
