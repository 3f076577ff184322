"""Statements: labels are right by the boxes, classes are balanced, and the text alone does not tell them apart."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest
from digits_entailment import ELSEWHERE, LABELS, OPEN, entailment_row, label_of
from digits_language import Setting
from digits_scenes import NAMES
from scene_reading import at, label, labels, related

SETTING = Setting(seed=7)
WORDS = "|".join(NAMES)
RELATION = "left of|right of|above|below"


@pytest.fixture(scope="module")
def rows(many_scenes):
    """(scene, hypothesis, label)."""
    cells = [(scene, entailment_row(scene, SETTING)) for scene in many_scenes]
    return [(scene, row[3], row[5]) for scene, row in cells]


def open_patterns():
    subject = rf"(?:the (?:\w+ )*(?:digit|{WORDS})(?: (?:on|at|in) the [a-z ]+)?)"
    for template in OPEN:
        yield re.compile(template.replace("{subject}", subject))
    for template in ELSEWHERE:
        yield re.compile(template.replace("{digit}", rf"an? (?:{WORDS})"))


def true_label(scene, text) -> str:
    if any(pattern.fullmatch(text) for pattern in open_patterns()):
        return "neutral"
    return "entailment" if _holds(scene, text) else "contradiction"


def _holds(scene, text) -> bool:
    if found := re.search(rf"\b({WORDS}) digits?\b", text):
        return label(found[1]) == len(scene.digits)
    if found := re.fullmatch(rf"an? ({WORDS}) (?:is|was written) ({RELATION}) an? ({WORDS})", text):
        first, second = label(found[1]), label(found[3])
        return any(
            (labels(scene)[i], word, labels(scene)[j]) == (first, found[2], second) for i, word, j in related(scene)
        )
    if found := re.fullmatch(rf"the (?:digit )?(.*?)(?: digit)? (?:is|looks like) an? ({WORDS})", text):
        number = 0 if len(scene.digits) == 1 else at(scene, found[1])
        return labels(scene)[number] == label(found[2])
    found = re.fullmatch(
        rf"(?:there is|you can see|the image shows|) ?an? ({WORDS})(?: is in the image| was written here|)", text
    )
    assert found, text
    return label(found[1]) in labels(scene)


def test_every_label_is_right(rows):
    for scene, text, given in rows:
        assert given == true_label(scene, text), (scene.caption, text)


def test_the_caption_is_that_of_the_scene(many_scenes):
    assert entailment_row(many_scenes[0], SETTING)[4] == many_scenes[0].caption


def test_every_three_rows_hold_all_labels(many_scenes):
    given = [label_of(scene, SETTING) for scene in many_scenes]
    assert all(set(given[i : i + 3]) == set(LABELS) for i in range(0, len(given), 3))
    assert len({tuple(given[i : i + 3]) for i in range(0, len(given), 3)}) == 6


def test_the_length_does_not_give_the_label_away(rows):
    lengths = defaultdict(Counter)
    for _, text, given in rows:
        lengths[len(text.split())][given] += 1
    best = sum(max(counts.values()) for counts in lengths.values())
    assert best < 0.5 * len(rows)


def test_true_and_false_statements_have_the_same_wordings(rows):
    """Whoever reads only the statement, digits' names left out, hardly does better than guessing."""
    wordings = defaultdict(Counter)
    for _, text, given in rows:
        if given != "neutral":
            wordings[re.sub(rf"\ban? (?:{WORDS})\b", "a digit", text)][given] += 1
    best = sum(max(counts.values()) for counts in wordings.values())
    assert best < 0.6 * sum(counts.total() for counts in wordings.values())


def test_neutral_statements_speak_of_digits_of_the_picture_or_of_elsewhere(rows):
    elsewhere = [re.compile(text.replace("{digit}", rf"an? (?:{WORDS})")) for text in ELSEWHERE]
    for scene, text, given in rows:
        found = re.search(rf"\b({WORDS})\b", text)
        if given == "neutral" and found and not any(pattern.fullmatch(text) for pattern in elsewhere):
            assert label(found[1]) in labels(scene)


def test_statements_vary(rows):
    for given in LABELS:
        assert len({text for _, text, its in rows if its == given}) > 150
