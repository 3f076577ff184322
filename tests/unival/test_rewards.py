"""What boxes and captions are worth, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unival_plugin.metrics.boxes import average_precision
from unival_plugin.metrics.cider import CiderD, DocumentFrequency
from unival_plugin.unival.criterions.rewards import (
    BoxReward,
    caption_scores,
    counts,
    parse_threshold,
    reward_text,
    self_critical,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "unival_tasks"
CAPTIONS = json.loads((GOLDEN / "scst_caption_reward.json").read_text())


def test_caption_rewards_of_the_reference() -> None:
    corpus = CAPTIONS["document_frequency_corpus"]
    cider = CiderD(DocumentFrequency.from_references(corpus))
    size = len(CAPTIONS["generated"]) // CAPTIONS["groups"]
    pictures = np.repeat(np.arange(CAPTIONS["groups"]), size)
    scores = caption_scores(CAPTIONS["generated"], [CAPTIONS["references"][i] for i in pictures], cider)
    np.testing.assert_allclose(scores, CAPTIONS["scores"], rtol=1e-6)
    np.testing.assert_allclose(self_critical(scores, pictures), CAPTIONS["reward"], rtol=1e-6)
    assert reward_text(CAPTIONS["references"][0][1]) == corpus[0][1]


@pytest.mark.parametrize(
    "limits, medium, kinds",
    [
        ({"max_area": 30.0}, False, "s"), ({"min_area": 100.0}, False, "l"),
        ({"max_area": 30.0, "min_area": 100.0}, False, "sl"), ({"max_area": 30.0, "min_area": 100.0}, True, "m"),
        ({"max_area": 30.0}, True, "ml"), ({"min_area": 100.0}, True, "sm"), ({}, False, "sml"), ({}, True, "sml"),
    ],
)  # fmt: skip
def test_objects_of_the_chosen_sizes_count(limits: dict[str, float], medium: bool, kinds: str) -> None:
    sizes = torch.tensor([10.0, 50.0, 200.0])
    chosen = counts(sizes, **{"max_area": None, "min_area": None, **limits}, medium=medium)
    assert chosen.tolist() == [float(kind in kinds) for kind in "sml"]


def test_an_area_at_a_limit_is_of_no_kind() -> None:
    assert counts(torch.tensor([30.0, 100.0]), 30.0, 100.0, False).tolist() == [0.0, 0.0]
    assert counts(torch.tensor([30.0, 100.0]), 30.0, 100.0, True).tolist() == [0.0, 0.0]


def test_boxes_without_overlap_are_worth_nothing() -> None:
    true = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    for found in ([20.0, 20.0, 30.0, 30.0], [10.0, 10.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]):
        assert BoxReward()(torch.tensor([found]), true).tolist() == [0.0]
        assert BoxReward(threshold=0.0, negative=-1.0)(torch.tensor([found]), true).tolist() == [-1.0]


def test_average_precision_of_a_batch() -> None:
    true = torch.tensor([[0.0, 0.0, 9.0, 9.0], [50.0, 50.0, 59.0, 59.0], [100.0, 0.0, 119.0, 9.0]])
    twice_the_first = torch.stack([true[0], true[0], true[1]])
    assert average_precision(true, true, 0.5) == 1.0
    assert average_precision(true + 200, true, 0.5) == 0.0
    # right, wrong (taken before), right: recall 1/3 at precision 1, then 2/3 at precision 2/3
    assert average_precision(twice_the_first, true, 0.5) == pytest.approx(1 / 3 + 2 / 9)
    assert BoxReward(threshold=0.5, metric="map")(true, true).tolist() == [1.0, 1.0, 1.0]


@given(st.lists(st.lists(st.floats(0, 10), min_size=2, max_size=5), max_size=4))
def test_self_critical_rewards_of_a_picture_sum_to_zero(groups: list[list[float]]) -> None:
    pictures = np.repeat(np.arange(len(groups)), [len(group) for group in groups]).astype(np.int64)
    rewards = self_critical(np.array([score for group in groups for score in group]), pictures)
    sums = np.bincount(pictures, rewards, minlength=max(len(groups), 1))
    np.testing.assert_allclose(sums, 0, atol=1e-9)


def test_the_only_caption_of_a_picture_has_nothing_to_beat() -> None:
    assert self_critical(np.array([3.0, 5.0, 1.0]), np.array([0, 1, 1])).tolist() == [0.0, 4.0, -4.0]


def test_of_several_thresholds_the_first_is_rewarded() -> None:
    assert [parse_threshold(text) for text in ("0.4,0.5", "0.5", 0.5, "", None)] == [0.4, 0.5, 0.5, None, None]
