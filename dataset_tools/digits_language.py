"""What can be said about a scene: places, relations, phrases, and the randomness with which a row chooses among them.

Places and relations are used only where no reader could doubt them; they follow from the layout, whose distances are
clear by construction (see ``digits_scenes``).
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from digits_plan import Numbered
from digits_scenes import LAYOUTS, NAMES, Scene

Choice = TypeVar("Choice")

# Where each digit of a layout stands, in the order of the layout; a lone digit has no place worth a question.
PLACES: dict[str, tuple[str, ...]] = {
    "single": (),
    "row": ("on the left", "on the right"),
    "column": ("at the top", "at the bottom"),
    "row3": ("on the left", "in the middle", "on the right"),
    "column3": ("at the top", "in the middle", "at the bottom"),
    "one_above_two": ("at the top", "at the bottom left", "at the bottom right"),
    "two_above_one": ("at the top left", "at the top right", "at the bottom"),
}
ADJECTIVES: dict[str, tuple[str, ...]] = {
    "on the left": ("left",),
    "on the right": ("right",),
    "at the top": ("top", "upper"),
    "at the bottom": ("bottom", "lower"),
    "in the middle": ("middle",),
    "at the bottom left": ("bottom left",),
    "at the bottom right": ("bottom right",),
    "at the top left": ("top left",),
    "at the top right": ("top right",),
}
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_PAIR_RELATIONS = {"left": "left of", "above": "above"}


@dataclass(frozen=True)
class Setting:
    """What a row writer knows beside the scene: the seed of the build and the most digits a scene may have."""

    seed: int
    most: int = 3


def row_random(setting: Setting, item: Numbered, task: int) -> np.random.Generator:
    """The generator of one row: a function of seed, file, row and task number (1, 2, ...), so tasks are independent."""
    return np.random.default_rng([setting.seed, item.stream, item.row, task])


def pick(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """One of the choices, all equally likely."""
    return choices[int(rng.integers(len(choices)))]


def relations(scene: Scene) -> list[tuple[int, str, int]]:
    """All (first, relation, second) of two different digits of the scene, by their numbers in it, both ways round."""
    pairs = itertools.combinations(range(len(scene.digits)), 2)
    found = []
    for (first, second), name in zip(pairs, LAYOUTS[scene.layout].relations, strict=True):
        relation = _PAIR_RELATIONS[name]
        found += [(first, relation, second), (second, INVERSE[relation], first)]
    return found


def pointers(scene: Scene) -> list[tuple[int, str, int]]:
    """The relations that point: "the digit <relation> the <second>" is the first digit and no other."""
    named = set(unique(scene))
    all_relations = relations(scene)
    meant = Counter((relation, second) for _, relation, second in all_relations)
    return [r for r in all_relations if r[2] in named and meant[r[1], r[2]] == 1]


def unique(scene: Scene) -> list[int]:
    """Numbers of the digits whose class no other digit of the scene has: "the seven" points to them."""
    counts = Counter(digit.label for digit in scene.digits)
    return [i for i, digit in enumerate(scene.digits) if counts[digit.label] == 1]


def name(scene: Scene, number: int) -> str:
    """``seven``."""
    return NAMES[scene.digits[number].label]


def absent(scene: Scene) -> list[int]:
    """The classes that no digit of the scene has."""
    present = {digit.label for digit in scene.digits}
    return [label for label in range(10) if label not in present]


def count_share(scene: Scene, share: float, most: int) -> float:
    """How likely a row is about the number of digits, so that every number is asked for equally often.

    Frequent numbers of digits are asked for less, the rarest with probability ``share``; 0 if scenes have one digit.
    """
    weights: dict[int, float] = {}
    for layout in LAYOUTS.values():
        if layout.count <= most:
            weights[layout.count] = weights.get(layout.count, 0.0) + layout.weight
    return 0.0 if len(weights) == 1 else share * min(weights.values()) / weights[len(scene.digits)]


def words_of(templates: Sequence[str]) -> list[str]:
    """The different words of templates, without their fields and punctuation, in the order of appearance."""
    text = " ".join(re.sub(r"\{[^}]*\}", " ", template) for template in templates)
    return list(dict.fromkeys(re.findall(r"[a-z]+", text)))
