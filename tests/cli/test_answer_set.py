"""Sets of frequent answers: what counts as the same answer, how many times, in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unival_cli.answer_set import VQA_MINIMUM, frequent_answers, normalise, numbered, parse_answers
from unival_cli.light import light


def test_answers_are_the_same_as_the_evaluation_of_vqa_compares_them():
    assert [normalise(answer) for answer in ("Two", "2", "the two.", "a", "yes")] == ["2", "2", "2", "", "yes"]


def test_the_answers_of_a_cell_keep_their_order():
    assert parse_answers("0.3|!+no&&1|!+ yes ", "a.tsv:1") == [(0.3, "no"), (1.0, "yes")]


@pytest.mark.parametrize("cell", ["yes", "|!+yes", "x|!+yes", "nan|!+yes", "inf|!+yes", "1.0|!+ ", "1.0|!+yes&&"])
def test_what_is_no_answer_is_named(cell):
    with pytest.raises(light("errors").DataError, match=r"^a\.tsv:1: .* is no answer: write confidence"):
        parse_answers(cell, "a.tsv:1")


def test_rare_answers_are_left_out():
    counts = {"yes": VQA_MINIMUM, "no": VQA_MINIMUM - 1, "maybe": 100}
    assert frequent_answers(counts) == ["maybe", "yes"]
    assert frequent_answers(counts, minimum=101) == []


def test_at_most_so_many_are_kept_and_ties_are_alphabetical():
    counts = {"b": 2, "c": 3, "a": 2, "d": 1}
    assert frequent_answers(counts, minimum=1) == ["c", "a", "b", "d"]
    assert frequent_answers(counts, minimum=1, limit=2) == ["c", "a"]


def test_numbers_follow_the_order():
    assert numbered(["yes", "no"]) == {"yes": 0, "no": 1}


@given(st.dictionaries(st.text(), st.integers(1, 30)), st.integers(1, 30))
def test_the_set_does_not_depend_on_the_order_of_the_data(counts, minimum):
    backwards = dict(reversed(counts.items()))
    assert frequent_answers(counts, minimum) == frequent_answers(backwards, minimum)


def test_a_normalised_answer_is_the_package_s_own():
    assert normalise("The dont.") == light("metrics.vqa").normalise("The dont.") == "don't"
