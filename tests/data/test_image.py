"""From pictures to tensors."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unival_plugin.data.image import (
    HALF_MEAN,
    HALF_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    eval_transform,
    resized_shape,
    train_transform,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "unival_tasks" / "image_transforms.npz")


def gradient(width: int, height: int) -> Image.Image:
    """The picture from which the golden tensors were made."""
    x = np.linspace(0, 255, width).astype(np.uint8)[None].repeat(height, 0)
    y = np.linspace(0, 255, height).astype(np.uint8)[:, None].repeat(width, 1)
    mixed = (7 * (np.arange(width)[None] + np.arange(height)[:, None]) % 256).astype(np.uint8)
    return Image.fromarray(np.stack([x, y, mixed], -1))


class TestEvalTransform:
    @pytest.mark.parametrize("key", [key for key in GOLDEN.files if key.startswith("eval_")])
    def test_is_bit_equal_to_unival(self, key: str) -> None:
        _, shape, size, norm = key.split("_")
        width, height = map(int, shape.split("x"))
        mean, std = (HALF_MEAN, HALF_STD) if norm == "half" else (IMAGENET_MEAN, IMAGENET_STD)
        assert np.array_equal(eval_transform(int(size), mean, std)(gradient(width, height)), GOLDEN[key])

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
    def test_modes_are_bit_equal_to_unival(self, mode: str) -> None:
        assert np.array_equal(eval_transform(32)(gradient(64, 48).convert(mode)), GOLDEN[f"mode_{mode}"])

    @settings(max_examples=40, deadline=None)
    @given(width=st.integers(1, 90), height=st.integers(1, 90), size=st.integers(1, 64), seed=st.integers(0, 9))
    def test_is_bit_equal_to_torchvision_on_noise(self, width: int, height: int, size: int, seed: int) -> None:
        transforms = pytest.importorskip("torchvision.transforms")
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        steps = [
            transforms.Resize((size, size), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
        image = Image.fromarray(noise)
        assert torch.equal(eval_transform(size, IMAGENET_MEAN, IMAGENET_STD)(image), transforms.Compose(steps)(image))

    def test_survives_pickling(self) -> None:
        transform = pickle.loads(pickle.dumps(eval_transform(16)))
        assert transform(gradient(9, 9)).shape == (3, 16, 16)


class TestTrainTransform:
    @pytest.mark.parametrize("size", [32, 480, 512, 700])
    def test_shape_and_type_for_sizes_below_and_above_the_usual_largest(self, size: int) -> None:
        out = train_transform(size)(gradient(50, 20), np.random.default_rng(1))
        assert (out.shape, out.dtype) == ((3, size, size), torch.float32)
        assert out.isfinite().all()

    def test_is_a_function_of_the_generator(self) -> None:
        transform, image = train_transform(48), gradient(80, 60)
        first, again, other = (transform(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_without_operations_it_crops_the_centre(self) -> None:
        transform = train_transform(480)
        transform.augment.count = 0
        image = gradient(600, 480)
        expected = (np.asarray(image)[:, 60:540].astype(np.float32) / 255 - 0.5) / 0.5
        out = transform(image, np.random.default_rng(0)).permute(1, 2, 0).numpy()
        assert np.allclose(out, expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("width", "height", "expected"),
        [(640, 480, (533, 400)), (480, 640, (400, 533)), (1000, 200, (672, 400)), (10, 10, (400, 400))],
    )
    def test_sides_are_cut_independently(self, width: int, height: int, expected: tuple[int, int]) -> None:
        assert resized_shape(width, height, 400, 672) == expected
