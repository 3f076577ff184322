"""Expressions that point to exactly one digit, with its box: rows as those of RefCOCO."""

from __future__ import annotations

import numpy as np
from digits_language import ADJECTIVES, PLACES, Setting, name, pick, pointers, row_random, unique
from digits_scenes import Scene, encoded_picture

TASK_NUMBER = 2
NAME_SHARE = 0.1

LONE = ("the digit", "the digit in the image", "the {name} in the image")
NAMED = ("the {name}",)
PLACED = ("the digit {place}", "the {name} {place}")
ADJECTIVE = ("the {adjective} digit", "the {adjective} {name}")
RELATED = ("the digit {relation} the {anchor}", "the {name} {relation} the {anchor}")
TEMPLATES = (*LONE, *NAMED, *PLACED, *ADJECTIVE, *RELATED)


def grounding_row(scene: Scene, setting: Setting) -> list[str]:
    """Columns id, image id, expression, box "x0,y0,x1,y1" in pixels, picture: ``--selected-cols 0,4,2,3``."""
    rng = row_random(setting, scene, TASK_NUMBER)
    number = int(rng.integers(len(scene.digits)))
    box = ",".join(f"{float(edge)}" for edge in scene.digits[number].box)
    return [str(scene.number), scene.name, draw_expression(rng, scene, number), box, encoded_picture(scene)]


def draw_expression(rng: np.random.Generator, scene: Scene, number: int) -> str:
    """Words that describe digit ``number`` of the scene and no other.

    Among several digits the name alone is rare, as in RefCOCO, where people mostly add the place; the other ways that
    are possible are equally likely.
    """
    ways: list[str] = []
    if len(scene.digits) == 1:
        ways += [_named(rng, scene, number), pick(rng, LONE).format(name=name(scene, number))]
    elif number in unique(scene) and rng.random() < NAME_SHARE:
        return _named(rng, scene, number)
    else:
        place = PLACES[scene.layout][number]
        adjective = pick(rng, ADJECTIVES[place])
        ways.append(pick(rng, PLACED).format(place=place, name=name(scene, number)))
        ways.append(pick(rng, ADJECTIVE).format(adjective=adjective, name=name(scene, number)))
    if found := [(relation, anchor) for first, relation, anchor in pointers(scene) if first == number]:
        relation, anchor = pick(rng, found)
        text = pick(rng, RELATED)
        ways.append(text.format(relation=relation, anchor=name(scene, anchor), name=name(scene, number)))
    return pick(rng, ways)


def _named(rng: np.random.Generator, scene: Scene, number: int) -> str:
    return pick(rng, NAMED).format(name=name(scene, number))
