"""Statements that a picture of digits proves, disproves or leaves open: rows as those of SNLI-VE.

True and false statements are drawn from the same templates with the same probabilities, so that only the picture tells
them apart. An open statement is about something no picture shows: who wrote a digit, when, how, and what is elsewhere.
"""

from __future__ import annotations

import numpy as np
from digits_language import (
    ADJECTIVES,
    PLACES,
    Setting,
    absent,
    count_share,
    name,
    pick,
    relations,
    row_random,
)
from digits_scenes import NAMES, Scene, article, encoded_picture

TASK_NUMBER = 3
LABELS = ("entailment", "contradiction", "neutral")

EXISTS = ("there is {digit}", "you can see {digit}", "{digit} is in the image", "{digit} was written here")
LONE = ("the digit is {digit}", "the image shows {digit}", "the digit in the image is {digit}")
COUNT = ("there {are} {count}", "the image shows {count}", "somebody wrote {count}", "you can see {count}")
PLACE = ("the digit {place} is {digit}", "the digit {place} looks like {digit}", "the {adjective} digit is {digit}")
RELATION = ("{first} is {relation} {second}", "{first} was written {relation} {second}")
SUBJECT = ("the {name}", "the digit {place}", "the {adjective} digit")
OPEN = (
    "{subject} came first",
    "{subject} was written last",
    "{subject} was written slowly",
    "{subject} was written on a monday",
    "{subject} was written with the left hand",
    "{subject} is older than a year",
    "a child wrote {subject}",
    "somebody likes {subject}",
    "somebody wrote {subject} in the morning",
    "the pen for {subject} was new",
)
ELSEWHERE = ("there is {digit} on the next page", "somebody wrote {digit} before", "{digit} is on the other side")
TEMPLATES = (*EXISTS, *LONE, *COUNT, *PLACE, *RELATION, *SUBJECT, *OPEN, *ELSEWHERE, "one digit", "are digits")

COUNT_SHARE = 0.2


def entailment_row(scene: Scene, setting: Setting) -> list[str]:
    """Columns id, image id, picture, hypothesis, caption, label: ``--selected-cols 0,2,3,4,5``."""
    label = label_of(scene, setting)
    hypothesis = draw_hypothesis(row_random(setting, scene, TASK_NUMBER), scene, label, setting.most)
    return [str(scene.number), scene.name, encoded_picture(scene), hypothesis, scene.caption, label]


def label_of(scene: Scene, setting: Setting) -> str:
    """The label of a row: every three rows of a file hold all three, in random order."""
    block, place = divmod(scene.row, len(LABELS))
    order = np.random.default_rng([setting.seed, scene.stream, block, TASK_NUMBER, 1]).permutation(len(LABELS))
    return LABELS[int(order[place])]


def draw_hypothesis(rng: np.random.Generator, scene: Scene, label: str, most: int) -> str:
    """A statement whose label for this scene is ``label``."""
    if label == "neutral":
        return _open(rng, scene)
    true = label == "entailment"
    if rng.random() < count_share(scene, COUNT_SHARE, most):
        return _count(rng, scene, true, most)
    if rng.random() < 0.3:
        return pick(rng, EXISTS).format(digit=_digit(rng, scene, true))
    if len(scene.digits) == 1:
        return pick(rng, LONE).format(digit=_digit(rng, scene, true))
    if rng.random() < 0.5 and (found := _related(rng, scene, true)):
        return found
    return _placed(rng, scene, true)


def _digit(rng: np.random.Generator, scene: Scene, present: bool) -> str:
    return article(pick(rng, scene.digits).label if present else pick(rng, absent(scene)))


def _count(rng: np.random.Generator, scene: Scene, true: bool, most: int) -> str:
    real = len(scene.digits)
    count = real if true else pick(rng, [n for n in range(1, most + 1) if n != real])
    phrase = f"{NAMES[count]} digit{'s' if count > 1 else ''}"
    return pick(rng, COUNT).format(are="are" if count > 1 else "is", count=phrase)


def _placed(rng: np.random.Generator, scene: Scene, true: bool) -> str:
    number = int(rng.integers(len(scene.digits)))
    real = scene.digits[number].label
    label = real if true else pick(rng, [other for other in range(10) if other != real])
    place = PLACES[scene.layout][number]
    fields = {"place": place, "adjective": pick(rng, ADJECTIVES[place]), "digit": article(label)}
    return pick(rng, PLACE).format(**fields)


def _related(rng: np.random.Generator, scene: Scene, true: bool) -> str | None:
    """A relation of two digits of different classes; a false one is turned round or names an absent digit."""
    facts = {
        (scene.digits[first].label, relation, scene.digits[second].label)
        for first, relation, second in relations(scene)
    }
    different = sorted(fact for fact in facts if fact[0] != fact[2])
    if not different:
        return None
    first, relation, second = pick(rng, different)
    if not true:
        turned = (second, relation, first)
        if turned in facts or rng.random() < 0.5:
            first = pick(rng, absent(scene))
        else:
            first, relation, second = turned
    return pick(rng, RELATION).format(first=article(first), relation=relation, second=article(second))


def _open(rng: np.random.Generator, scene: Scene) -> str:
    if rng.random() < 0.3:
        return pick(rng, ELSEWHERE).format(digit=article(int(rng.integers(10))))
    number = int(rng.integers(len(scene.digits)))
    subject = SUBJECT[0]
    fields = {"name": name(scene, number)}
    if places := PLACES[scene.layout]:
        subject = pick(rng, SUBJECT)
        fields |= {"place": places[number], "adjective": pick(rng, ADJECTIVES[places[number]])}
    return pick(rng, OPEN).format(subject=subject.format(**fields))
