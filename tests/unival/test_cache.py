"""The decoder's cache: it gives what a pass without it gives, and copies of it do not disturb each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_size import tiny
from torch import Tensor

from unival_plugin.unival.model.cache import KeyValueCache


def positions(length: int, rows: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 2, length, 4), torch.randn(rows, 2, length, 4)


class TestKeysAndValues:
    @settings(max_examples=30, deadline=None)
    @given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=12))
    def test_are_all_that_were_appended(self, lengths: list[int]) -> None:
        cache, parts = KeyValueCache(), [positions(length) for length in lengths]
        for keys, values in parts:
            found = cache.extend(keys, values)
        for each, wanted in zip(found, zip(*parts, strict=True), strict=True):
            assert torch.equal(each, torch.cat(wanted, dim=2))
        assert (cache.length, cache.rows) == (sum(lengths), 3)

    def test_follow_a_new_order_of_the_rows(self) -> None:
        cache, order = KeyValueCache(), torch.tensor([2, 2, 0, 1])
        first, second = positions(5), positions(1, rows=4)
        cache.extend(*first)
        for found, before, new in zip(cache.reordered(order).extend(*second), first, second, strict=True):
            assert torch.equal(found, torch.cat([before[order], new], dim=2))

    def test_of_a_copy_are_its_own_also_in_the_same_order(self) -> None:
        cache, same = KeyValueCache(), torch.arange(3)
        cache.extend(*positions(5))
        one, other = cache.reordered(same), cache.reordered(same)
        first, second, third = positions(1), positions(1), positions(1)
        found = [each.extend(*new) for each, new in ((one, first), (other, second), (cache, third))]
        for (keys, values), new in zip(found, (first, second, third), strict=True):
            assert torch.equal(keys[:, :, -1:], new[0]) and torch.equal(values[:, :, -1:], new[1])

    def test_handed_out_do_not_change_later(self) -> None:
        cache = KeyValueCache()
        keys, _ = cache.extend(*positions(3))
        before = keys.clone()
        for _ in range(9):
            cache.extend(*positions(1))
        assert torch.equal(keys, before)


@pytest.mark.parametrize("codes", [None, [True], [True, False]])
@pytest.mark.parametrize("steps", [[1] * 40, [30, 1, 1, 8], [40]])
@torch.no_grad()
def test_reading_step_by_step_equals_reading_at_once(codes: list[bool] | None, steps: list[int]) -> None:
    net = tiny().eval()
    tokens = torch.randint(4, 20, (2, 40), generator=torch.Generator().manual_seed(1))
    masks = None if codes is None else torch.tensor(codes)
    encoder_out = net.encoder(torch.tensor([[0, 5, 6, 2], [0, 7, 2, 1]]))
    wanted, _ = net.decoder(tokens, encoder_out, code_masks=masks)
    state: dict = {}
    parts = [
        net.decoder(tokens[:, :end], encoder_out, incremental_state=state, code_masks=masks)[0]
        for end in torch.tensor(steps).cumsum(0).tolist()
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_1024_codes_of_a_picture_and_their_end_are_read() -> None:
    net = tiny(code_image_size=256).eval()
    tokens = torch.randint(4, 20, (1, 1025), generator=torch.Generator().manual_seed(1))
    encoder_out, masks = net.encoder(torch.tensor([[0, 5, 6, 2]])), torch.tensor([True])
    state: dict = {}
    wanted, _ = net.decoder(tokens, encoder_out, code_masks=masks)
    for end in (1022, 1023, 1024, 1025):
        found, _ = net.decoder(tokens[:, :end], encoder_out, incremental_state=state, code_masks=masks)
        torch.testing.assert_close(found[:, -1], wanted[:, end - 1], atol=1e-4, rtol=1e-4)
