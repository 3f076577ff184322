"""Shards, batches, orders, randomness, padding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unival_plugin.data.batching import (
    collate_tokens,
    epoch_batches,
    row_generator,
    row_order,
    shard_batches,
    shard_range,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "unival_tasks"


def test_shards_are_the_references() -> None:
    for case in json.loads((GOLDEN / "shards.json").read_text()):
        rows = shard_range(case["rows"], case["slices"], case["slice"])
        assert (rows.start, len(rows)) == (case["start"], case["count"]), case


def test_batches_are_the_references() -> None:
    for case in json.loads((GOLDEN / "batches.json").read_text()):
        batches = shard_batches(case["rows"], case["slices"], case["slice"], case["batch_size"])
        assert batches == case["batches"], case


@given(total=st.integers(0, 60), shards=st.integers(1, 9), size=st.integers(1, 7), shuffle=st.booleans())
def test_shards_cover_all_rows_once_in_equally_many_batches(total: int, shards: int, size: int, shuffle: bool) -> None:
    parts = [epoch_batches(total, shards, shard, size, seed=3, epoch=2, shuffle=shuffle) for shard in range(shards)]
    assert len({len(part) for part in parts}) == 1
    assert sorted(row for part in parts for batch in part for row in batch) == list(range(total))


def test_without_shuffling_rows_come_in_file_order() -> None:
    assert epoch_batches(5, 2, 1, 2, seed=1, epoch=1, shuffle=False) == [[3, 4], []]
    assert row_order(4, 1, 1, shuffle=False).tolist() == [0, 1, 2, 3]


def test_order_depends_on_seed_and_epoch_only() -> None:
    order = row_order(50, 1, 1, shuffle=True)
    assert order.dtype == np.int64
    assert np.array_equal(order, row_order(50, 1, 1, shuffle=True))
    assert not np.array_equal(order, row_order(50, 1, 2, shuffle=True))
    assert not np.array_equal(order, row_order(50, 2, 1, shuffle=True))


def test_row_randomness_is_a_function_of_seed_epoch_and_row() -> None:
    draws = {key: row_generator(*key).random() for key in [(1, 1, 0), (1, 1, 1), (1, 2, 0), (2, 1, 0), (-1, 1, 0)]}
    assert len(set(draws.values())) == 5
    assert all(row_generator(*key).random() == value for key, value in draws.items())


@pytest.mark.parametrize("arguments", [(-1, 1, 0), (5, 2, 2), (5, 2, -1), (5, 0, 0)])
def test_impossible_shards_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no shard"):
        shard_range(*arguments)


def test_impossible_batch_size_is_refused() -> None:
    with pytest.raises(ValueError, match="batch size"):
        shard_batches(5, 1, 0, 0)


class TestCollateTokens:
    def test_pads_on_the_right(self) -> None:
        batch = collate_tokens([torch.tensor([5, 6, 7]), torch.tensor([8]), torch.tensor([], dtype=torch.long)], pad=1)
        assert batch.tolist() == [[5, 6, 7], [8, 1, 1], [1, 1, 1]]

    def test_masks_keep_type_and_width(self) -> None:
        batch = collate_tokens([torch.zeros(2, 3, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)], pad=1)
        assert batch.dtype == torch.bool
        assert batch.tolist() == [[[False] * 3] * 2, [[False] * 3, [True] * 3]]

    def test_no_rows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="empty"):
            collate_tokens([], pad=1)
