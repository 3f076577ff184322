"""Boxes to bins and back, and what is no box."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unival_plugin.data.boxes import BoxCodec, parse_box
from unival_plugin.errors import ConfigError, DataError

sides = st.integers(1, 4000)
shares = st.lists(st.floats(0, 1), min_size=4, max_size=4)


@given(st.integers(2, 2000), st.integers(16, 1024), st.floats(1, 3), sides, sides, shares)
def test_a_round_trip_is_off_by_at_most_half_a_bin(bins, size, factor, width, height, edges):
    codec = BoxCodec(bins, int(size * factor), size)
    whole = torch.tensor([width, height, width, height], dtype=torch.float32)
    box = torch.tensor(edges) * whole
    ratios = codec.ratios((width, height))
    back = codec.decode(codec.encode(box, ratios)[None], ratios[None])[0]
    bin_in_pixels = codec.max_image_size / (bins - 1) / ratios.repeat(2)
    assert ((back - box).abs() <= 0.5 * bin_in_pixels + 1e-5 * whole).all()


@given(st.integers(2, 2000), sides, sides, st.lists(st.floats(-2, 3), min_size=4, max_size=4))
def test_what_lies_outside_moves_to_the_border(bins, width, height, edges):
    codec = BoxCodec(bins, 224, 224)
    found = codec.encode(torch.tensor(edges) * torch.tensor([width, height] * 2), codec.ratios((width, height)))
    assert found.min() >= 0 and found.max() < bins
    for bin_, edge in zip(found.tolist(), edges, strict=True):
        assert bin_ == (0 if edge < 0 else bins - 1) or 0 <= edge <= 1


@pytest.mark.parametrize("cell", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,nan,4", "1,2,inf,4"])
def test_what_is_no_box_is_named(cell):
    with pytest.raises(DataError, match="row 7: .* is no box"):
        parse_box(cell, "row 7")


@pytest.mark.parametrize("cell", ["5,2,3,4", "1,4,3,2", "1,2,1,4"])
def test_reversed_and_empty_boxes_are_named(cell):
    with pytest.raises(DataError, match="row 7: the box .* is empty; needs x0 < x1 and y0 < y1"):
        parse_box(cell, "row 7")


def test_pictures_larger_than_the_bins_span_are_refused():
    with pytest.raises(ConfigError, match="--max-image-size"):
        BoxCodec(1000, 512, 640)
    with pytest.raises(ConfigError, match="--num-bins 1"):
        BoxCodec(1, 512, 512)
