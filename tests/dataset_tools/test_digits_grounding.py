"""Referring expressions: they point to one digit, and the box is that of its ink."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from digits_grounding import grounding_row
from digits_language import ADJECTIVES, Setting
from digits_scenes import NAMES, SceneMaker, load_source
from PIL import Image
from scene_reading import at, label, labels, related

SETTING = Setting(seed=7)
WORDS = "|".join(NAMES)
ADJECTIVE = "|".join(sorted(sum(ADJECTIVES.values(), ()), key=len, reverse=True))
EXPRESSION = re.compile(
    rf"the (?:(?P<adjective>{ADJECTIVE}) )?(?P<name>digit|{WORDS})"
    rf"(?: (?:(?P<place>(?:on|at|in) the (?!image).+)|in the image|(?P<relation>left of|right of|above|below) the "
    rf"(?P<anchor>{WORDS})))?"
)


def meant(scene, expression) -> list[int]:
    """All digits that an expression may mean, by labels and boxes."""
    found = EXPRESSION.fullmatch(expression)
    assert found, expression
    digits = [i for i, v in enumerate(labels(scene)) if found["name"] in ("digit", NAMES[v])]
    if place := found["place"] or found["adjective"]:
        digits = [i for i in digits if i == at(scene, place)]
    if found["anchor"]:
        anchors = [i for i, v in enumerate(labels(scene)) if v == label(found["anchor"])]
        assert len(anchors) == 1
        digits = [i for i in digits if (i, found["relation"], anchors[0]) in related(scene)]
    return digits


def test_expressions_point_to_one_digit_and_its_box(many_scenes):
    for scene in many_scenes:
        cells = grounding_row(scene, SETTING)
        digits = meant(scene, cells[2])
        assert len(digits) == 1, (scene.caption, cells[2])
        assert tuple(map(float, cells[3].split(","))) == scene.digits[digits[0]].box


def test_all_forms_and_all_digits_occur(many_scenes):
    forms, targets = set(), set()
    for scene in many_scenes:
        cells = grounding_row(scene, SETTING)
        found = EXPRESSION.fullmatch(cells[2])
        forms.add(
            tuple(bool(found[group]) for group in ("adjective", "place", "relation")) + (found["name"] == "digit",)
        )
        targets.add((scene.layout, meant(scene, cells[2])[0]))
    assert len(forms) == 8
    assert len(targets) == 1 + 2 + 2 + 4 * 3


def test_few_expressions_point_by_the_name_alone(many_scenes):
    """Finding a digit by its class must not be all that is asked."""
    alone = [re.fullmatch(rf"the ({WORDS})", grounding_row(scene, SETTING)[2]) for scene in many_scenes]
    assert sum(map(bool, alone)) < 0.5 * len(alone)


@pytest.mark.parametrize("row", range(12))
def test_boxes_are_tight_around_the_ink(row):
    maker = SceneMaker(load_source(seed=3), seed=3, file_format="png")
    scene = maker.make("train", 1, row)
    with Image.open(io.BytesIO(scene.picture)) as picture:
        grey = np.asarray(picture.convert("L"), dtype=np.float32)
    contrast = np.abs(grey - np.median(grey))
    for digit in scene.digits:
        x0, y0, x1, y1 = digit.box
        near = np.zeros_like(contrast)
        window = (slice(max(0, y0 - 1), y1 + 1), slice(max(0, x0 - 1), x1 + 1))
        near[window] = contrast[window]
        ys, xs = np.nonzero(near > 0.33 * near.max())
        measured = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert np.abs(np.subtract(measured, digit.box)).max() <= 1
