"""Sets of frequent answers: what counts as the same answer, how many times, in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unival_cli.answer_set import VQA_MINIMUM, count_answers, frequent_answers, normalise, numbered


def test_answers_are_counted_as_the_evaluation_of_vqa_compares_them():
    assert count_answers(["Two", "2", "the two.", "a", "?", "yes"]) == {"2": 3, "yes": 1}


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
    from unival_cli.light import light

    assert normalise("The dont.") == light("metrics.vqa").normalise("The dont.") == "don't"
