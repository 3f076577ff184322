"""Questions about digits with their answers: rows as those of VQA v2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from digits_language import INVERSE, PLACES, Setting, absent, count_share, name, pick, pointers, relations, row_random
from digits_language import unique as uniquely_named
from digits_scenes import NAMES, Scene, article, encoded_picture, joined_names

TASK_NUMBER = 1
ANSWERS = ("yes", "no", *NAMES)

WHICH = ("what digit is this?", "which digit is in the image?", "what digit is there?")
PLACE = ("what digit is {place}?", "which digit is {place}?", "what is {place}?")
RELATION = ("what is {relation} the {name}?", "what digit is {relation} the {name}?")
COMPARE = ("is the {first} {relation} the {second}?",)
EXISTS = ("is there {digit}?", "is there {digit} in the image?", "can you see {digit}?")
COUNT = ("how many digits are there?", "how many digits are in the image?", "how many digits can you see?")
TEMPLATES = (*WHICH, *PLACE, *RELATION, *COMPARE, *EXISTS, *COUNT)

COUNT_SHARE = 0.2
EXISTS_SHARE = 0.25
# What a hasty annotator might have written instead.
LOOK_ALIKES = dict(
    zip(NAMES, ("six", "seven", "three", "eight", "nine", "six", "zero", "one", "three", "four"), strict=True)
) | {"yes": "no", "no": "yes"}
MISCOUNTS = {"one": "two", "two": "three", "three": "two"}


@dataclass(frozen=True)
class Question:
    """A question with its one right answer; ``kind`` is which, place, relation, compare, exists or count."""

    kind: str
    text: str
    answer: str


def question_row(scene: Scene, setting: Setting) -> list[str]:
    """Columns question id, image id, question, answers, objects, picture: ``--selected-cols 0,5,2,3,4``."""
    rng = row_random(setting, scene, TASK_NUMBER)
    question = draw_question(rng, scene, setting.most)
    answers = draw_answers(rng, question, scene.split)
    return [str(scene.number), scene.name, question.text, answers, joined_names(scene), encoded_picture(scene)]


def draw_question(rng: np.random.Generator, scene: Scene, most: int) -> Question:
    """A question that this scene answers; within every kind the answers are equally likely."""
    draw = rng.random()
    counting = count_share(scene, COUNT_SHARE, most)
    if draw < counting:
        return Question("count", pick(rng, COUNT), NAMES[len(scene.digits)])
    if draw < counting + EXISTS_SHARE:
        return _exists(rng, scene)
    if len(scene.digits) == 1:
        return Question("which", pick(rng, WHICH), name(scene, 0))
    kind = pick(rng, ("place", "relation", "compare"))
    if kind == "relation" and (found := pointers(scene)):
        answer, relation, anchor = pick(rng, found)
        text = pick(rng, RELATION).format(relation=relation, name=name(scene, anchor))
        return Question(kind, text, name(scene, answer))
    if kind == "compare" and len(uniquely_named(scene)) > 1:
        return _compare(rng, scene)
    number = int(rng.integers(len(scene.digits)))
    return Question("place", pick(rng, PLACE).format(place=PLACES[scene.layout][number]), name(scene, number))


def _exists(rng: np.random.Generator, scene: Scene) -> Question:
    answer = pick(rng, ("yes", "no"))
    label = pick(rng, absent(scene)) if answer == "no" else pick(rng, scene.digits).label
    return Question("exists", pick(rng, EXISTS).format(digit=article(label)), answer)


def _compare(rng: np.random.Generator, scene: Scene) -> Question:
    named = uniquely_named(scene)
    first, relation, second = pick(rng, [r for r in relations(scene) if r[0] in named and r[2] in named])
    answer = pick(rng, ("yes", "no"))
    asked = relation if answer == "yes" else INVERSE[relation]
    text = pick(rng, COMPARE).format(first=name(scene, first), relation=asked, second=name(scene, second))
    return Question("compare", text, answer)


def draw_answers(rng: np.random.Generator, question: Question, split: str) -> str:
    """The answer cell: mostly one answer, sometimes a second, less sure and wrong one before or behind it.

    Only training answers are ever less sure than 1: a perfect model scores 1 on every held-out row.
    """
    best = pick(rng, ("0.6", "0.9")) if split == "train" and rng.random() < 0.2 else "1.0"
    cells = [f"{best}|!+{question.answer}"]
    if rng.random() < 0.2:
        wrong = (MISCOUNTS if question.kind == "count" else LOOK_ALIKES)[question.answer]
        cells.insert(int(rng.integers(2)), f"0.3|!+{wrong}")
    return "&&".join(cells)
