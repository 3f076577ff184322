"""The training transform of pictures with a box: the box stays on its object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from unival_plugin.data.grounding_transform import GroundingTrainTransform
from unival_plugin.data.image import eval_transform
from unival_plugin.errors import DataError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "unival_tasks" / "refcoco_transform.npz")
BACKGROUND, OBJECT = -1.0, 1.0
"""Black and white, normalised with mean and standard deviation 0.5."""

sizes = st.sampled_from([32, 63, 96])
sides = st.integers(40, 160)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def objects(draw: st.DrawFn, width: int, height: int) -> list[int]:
    """A box in a picture, at least a quarter of it wide and high, so that resizing does not make it vanish."""
    starts = [draw(st.integers(0, side - side // 4 - 1)) for side in (width, height)]
    ends = [draw(st.integers(low + side // 4, side)) for low, side in zip(starts, (width, height), strict=True)]
    return starts + ends


def picture(width: int, height: int, box: list[int]) -> Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return Image.fromarray(pixels)


def seen(pixels: Tensor) -> Tensor:
    """The box around the bright part of a transformed picture."""
    bright = pixels[0] > (BACKGROUND + OBJECT) / 2
    columns, rows = bright.any(0).nonzero(), bright.any(1).nonzero()
    corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return torch.tensor([float(corner) for corner in corners])


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


@settings(max_examples=60, deadline=None)
@given(st.data(), sizes, sides, sides, seeds)
def test_the_box_stays_on_its_object(data, size, width, height, seed):
    box = data.draw(objects(width, height))
    pixels, moved = GroundingTrainTransform(size)(
        picture(width, height, box), torch.tensor(box, dtype=torch.float32), np.random.default_rng(seed)
    )
    assert (pixels.shape, pixels.dtype) == ((3, size, size), torch.float32)
    assert (moved.shape, moved.dtype) == ((4,), torch.float32)
    assert (seen(pixels) - moved).abs().max() <= 1


@settings(max_examples=40, deadline=None)
@given(st.data(), sizes, sides, sides, seeds)
def test_the_crop_holds_the_middle_of_the_object_and_all_of_it_that_fits(data, size, width, height, seed):
    box = torch.tensor(data.draw(objects(width, height)), dtype=torch.float32)
    shorter = int(np.random.default_rng(seed).integers(size, 481))
    _, moved = GroundingTrainTransform(size)(Image.new("RGB", (width, height)), box, np.random.default_rng(seed))
    for axis, side in enumerate((width, height)):
        scale = min(shorter * side // min(width, height), 672) / side
        whole = float(box[axis + 2] - box[axis]) * scale
        assert float(moved[axis + 2] - moved[axis]) >= min(whole, size) - 0.501
        if whole > size:
            assert abs(float(moved[axis] + moved[axis + 2]) - size) <= 1.01


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-200, 400, width=32), min_size=4, max_size=4), seeds)
def test_a_box_beyond_the_edges_is_cut_or_refused(edges, seed):
    box = torch.tensor([*sorted(edges[::2]), *sorted(edges[1::2])])[[0, 2, 1, 3]]
    assume(bool((box[:2] + 1 < box[2:]).all()))
    inside = bool((box[2:] > 0).all()) and float(box[0]) < 90 and float(box[1]) < 70
    transform, rng = GroundingTrainTransform(32), np.random.default_rng(seed)
    if inside:
        _, moved = transform(Image.new("RGB", (90, 70)), box, rng)
        assert moved.min() >= 0 and moved.max() <= 32 and (moved[:2] < moved[2:]).all()
    else:
        with pytest.raises(DataError, match="shows nothing of the picture of 90 x 70 pixels"):
            transform(Image.new("RGB", (90, 70)), box, rng)


@pytest.mark.parametrize("numbers", [[5, 5, 5, 9], [9, 5, 5, 9], [0, 0, 9, float("nan")], [0, 0, float("inf"), 9]])
def test_what_is_no_box_is_refused(numbers):
    with pytest.raises(DataError, match="^rows.tsv:row 7: the box .*x0 < x1 and y0 < y1"):
        GroundingTrainTransform(32)(
            Image.new("RGB", (90, 70)), torch.tensor(numbers), np.random.default_rng(0), "rows.tsv:row 7"
        )


def test_a_picture_that_needs_no_resizing_is_the_golden_one():
    x = np.linspace(0, 255, 512).astype(np.uint8)[None].repeat(512, 0)
    mixed = (7 * (np.arange(512)[None] + np.arange(512)[:, None]) % 256).astype(np.uint8)
    image, box = Image.fromarray(np.stack([x, x.T, mixed], -1)), torch.tensor([0.4, 1.6, 511.9, 300.5])
    pixels, moved = GroundingTrainTransform(512)(image, box, np.random.default_rng(0))
    stride = int(GOLDEN["512x512_p512_stride"])
    assert np.abs(pixels[:, ::stride, ::stride].numpy() - GOLDEN["512x512_p512"]).max() <= 1e-6
    assert torch.equal(moved, box)


def test_sizes_above_the_usual_range_leave_no_choice():
    image, box = noise(60, 60), torch.tensor([3.0, 6.0, 30.0, 60.0])
    pixels, moved = GroundingTrainTransform(600)(image, box, np.random.default_rng(5))
    assert torch.equal(pixels, eval_transform(600)(image)) and torch.allclose(moved, box * 10)


def test_the_same_generator_gives_the_same_result_and_others_vary():
    image, box = noise(120, 90), torch.tensor([50.0, 40.0, 60.0, 48.0])
    transform = GroundingTrainTransform(48, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    first, again, other = (transform(image, box, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])


def test_other_modes_and_the_callers_box_are_left_alone():
    box = torch.tensor([1.0, 2.0, 30.0, 40.0])
    pixels, _ = GroundingTrainTransform(32)(Image.new("RGBA", (50, 60)), box, np.random.default_rng(0))
    assert pixels.shape == (3, 32, 32) and box.tolist() == [1, 2, 30, 40]
