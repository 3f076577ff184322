"""Overlap and accuracy of boxes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unival_plugin.errors import ConfigError, DataError
from unival_plugin.metrics.boxes import BoxMetric, iou

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "unival_tasks" / "boxes.json").read_text())
HYPOTHESES, REFERENCES = torch.tensor(GOLDEN["hyps"]), torch.tensor(GOLDEN["refs"])
BOXES = st.lists(st.floats(0, 500, width=32), min_size=4, max_size=4).map(
    lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
)


def box(*coordinates: float) -> Tensor:
    return torch.tensor([coordinates], dtype=torch.float32)


class TestIou:
    def test_original(self) -> None:
        torch.testing.assert_close(iou(HYPOTHESES, REFERENCES, clip=False), torch.tensor(GOLDEN["scores"]["iou"]))

    def test_differs_from_the_original_only_without_overlap(self) -> None:
        apart_or_reversed = torch.tensor([False, False, True, True, False])
        wanted = torch.tensor(GOLDEN["scores"]["iou"]).masked_fill(apart_or_reversed, 0)
        torch.testing.assert_close(iou(HYPOTHESES, REFERENCES), wanted)

    @given(one=BOXES, other=BOXES)
    def test_is_symmetric_and_between_0_and_1(self, one: list[float], other: list[float]) -> None:
        first, second = torch.tensor([one]), torch.tensor([other])
        overlap = iou(first, second)
        assert 0 <= float(overlap) <= 1
        assert torch.allclose(overlap, iou(second, first))

    def test_of_equal_boxes_is_1(self) -> None:
        assert float(iou(box(3, 4, 10, 20), box(3, 4, 10, 20))) == pytest.approx(1)

    @pytest.mark.parametrize("other", [box(0, 0, 0, 0), box(5, 5, 5, 9), box(20, 20, 30, 30), box(9, 9, 2, 2)])
    def test_without_overlap_is_0(self, other: Tensor) -> None:
        assert float(iou(box(0, 0, 10, 10), other)) == 0

    @pytest.mark.parametrize("shape", [(1, 4), (2, 3), (8,)])
    def test_other_shapes_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(DataError, match=r"\(2, 4\) cannot be compared"):
            iou(torch.zeros(shape), torch.zeros(2, 4))


class TestBoxMetric:
    def test_original(self) -> None:
        scores = BoxMetric([0.5, 0.9], min_area=5000, max_area=5000).score(HYPOTHESES, REFERENCES)
        wanted = GOLDEN["scores"]
        assert scores["acc0.5"].tolist() == wanted["acc0.5"]
        assert scores["acc0.9"].tolist() == wanted["acc0.9"]
        assert scores["acc0.5_small"].tolist() == wanted["small<5000"]
        assert scores["acc0.5_large"].tolist() == wanted["large>5000"]
        both = iou(HYPOTHESES, REFERENCES, clip=False) * (scores["small"] + scores["large"]) / 2
        torch.testing.assert_close(both, torch.tensor(wanted["both"]))

    def test_a_threshold_of_0_still_needs_overlap(self) -> None:
        assert BoxMetric([0]).score(HYPOTHESES, REFERENCES)["acc0"].tolist() == [1, 1, 0, 0, 1]

    def test_reaching_the_threshold_is_enough(self) -> None:
        halves = BoxMetric([0.5]).score(box(0, 0, 2000, 1000), box(0, 0, 1000, 1000))
        assert halves["acc0.5"].tolist() == [1]

    def test_bands_are_of_the_true_box(self) -> None:
        references = torch.cat([box(0, 0, 10, 10), box(0, 0, 20, 20), box(0, 0, 30, 30)])
        scores = BoxMetric([0.5], min_area=500, max_area=200).score(torch.zeros(3, 4), references)
        assert [scores[band].tolist() for band in ("small", "medium", "large")] == torch.eye(3).tolist()
        assert scores["acc0.5_medium"].tolist() == [0, 0, 0]

    def test_bands_need_their_areas(self) -> None:
        assert set(BoxMetric([]).score(HYPOTHESES, REFERENCES)) == {"iou"}
        assert "medium" not in BoxMetric(min_area=3).score(HYPOTHESES, REFERENCES)

    def test_no_boxes_no_scores(self) -> None:
        scores = BoxMetric(max_area=3).score(torch.empty(0, 4), torch.empty(0, 4))
        assert all(values.shape == (0,) for values in scores.values())

    def test_thresholds_outside_0_to_1_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="50"):
            BoxMetric([50])
