"""Questions: the answer is right by the boxes, answers are balanced, confidences are as in VQA."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import digits_questions
import numpy as np
import pytest
from digits_language import Setting, row_random
from digits_questions import ANSWERS, Question, draw_answers, draw_question, question_row
from digits_scenes import NAMES
from scene_reading import at, label, labels, related

RELATION = "(left of|right of|above|below)"


@pytest.fixture(scope="module")
def asked(many_scenes):
    setting = Setting(seed=7)
    return [(scene, draw_question(row_random(setting, scene, 1), scene, 3)) for scene in many_scenes]


def true_answer(scene, text) -> str:
    """The answer by labels and boxes."""
    if text.startswith("how many"):
        return NAMES[len(scene.digits)]
    if found := re.match(r"(?:is there|can you see) an? (\w+)", text):
        return "yes" if label(found[1]) in labels(scene) else "no"
    if found := re.fullmatch(rf"is the (\w+) {RELATION} the (\w+)\?", text):
        firsts, seconds = ([i for i, v in enumerate(labels(scene)) if v == label(found[k])] for k in (1, 3))
        assert len(firsts) == len(seconds) == 1
        return "yes" if (firsts[0], found[2], seconds[0]) in related(scene) else "no"
    if found := re.fullmatch(rf"what (?:is|digit is) {RELATION} the (\w+)\?", text):
        anchors = [i for i, v in enumerate(labels(scene)) if v == label(found[2])]
        assert len(anchors) == 1
        answers = [i for i, word, j in related(scene) if word == found[1] and j == anchors[0]]
        assert len(answers) == 1
        return NAMES[labels(scene)[answers[0]]]
    if len(scene.digits) == 1:
        return NAMES[labels(scene)[0]]
    return NAMES[labels(scene)[at(scene, text.rstrip("?"))]]


def test_every_answer_is_right(asked):
    for scene, question in asked:
        assert question.answer == true_answer(scene, question.text), (scene.caption, question)


def test_every_kind_is_asked_and_no_answer_wins(asked):
    answers = defaultdict(Counter)
    for _, question in asked:
        answers[question.kind][question.answer] += 1
    assert set(answers) == {"which", "place", "relation", "compare", "exists", "count"}
    for kind, counts in answers.items():
        assert max(counts.values()) <= 0.6 * counts.total(), (kind, counts)


def test_no_wording_of_a_question_has_one_answer(asked):
    """Not even the words of a question, digits left out, give the answer away."""
    answers = defaultdict(Counter)
    for _, question in asked:
        answers[re.sub("|".join(NAMES), "digit", question.text)][question.answer] += 1
    common = [counts for counts in answers.values() if counts.total() >= 70]
    assert len(common) >= 5
    assert all(max(counts.values()) <= 0.7 * counts.total() for counts in common)


@pytest.mark.parametrize("most", [1, 2])
def test_pictures_with_fewer_digits_stay_balanced(many_scenes, most):
    scenes = [scene for scene in many_scenes if len(scene.digits) <= most]
    questions = [draw_question(np.random.default_rng(i), scene, most) for i, scene in enumerate(scenes)]
    counts = Counter(question.answer for question in questions if question.kind == "count")
    assert not counts if most == 1 else max(counts.values()) <= 0.6 * counts.total()


def test_all_answers_are_in_the_set(asked):
    assert {question.answer for _, question in asked} == set(ANSWERS)


def test_answer_cells_have_the_right_answer_most_sure(many_scenes):
    several = 0
    for scene in many_scenes[:400]:
        cells = question_row(scene, Setting(seed=7))
        parts = [part.split("|!+") for part in cells[3].split("&&")]
        sure = {answer: float(confidence) for confidence, answer in parts}
        assert len(sure) == len(parts) and set(sure) <= set(ANSWERS)
        assert max(sure, key=sure.__getitem__) == true_answer(scene, cells[2])
        several += len(sure) > 1
    assert 40 < several < 120


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_answers_are_certain(split):
    question = Question("count", "how many digits are there?", "two")
    cells = {draw_answers(np.random.default_rng(i), question, split) for i in range(100)}
    assert cells == {"1.0|!+two", "1.0|!+two&&0.3|!+three", "0.3|!+three&&1.0|!+two"}


def test_some_training_answers_are_less_sure():
    question = Question("which", "what digit is this?", "one")
    cells = {draw_answers(np.random.default_rng(i), question, "train") for i in range(100)}
    assert {"0.6|!+one", "0.9|!+one", "1.0|!+one"} < cells


def test_look_alikes_are_other_answers():
    for table in (digits_questions.LOOK_ALIKES, digits_questions.MISCOUNTS):
        assert all(right != wrong and wrong in ANSWERS for right, wrong in table.items())
    assert set(digits_questions.LOOK_ALIKES) == set(ANSWERS)
