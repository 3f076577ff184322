"""The ten operations against UnIVAL's, and the random chain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from unival_plugin.data import randaugment
from unival_plugin.data.randaugment import RandomAugment

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "unival_tasks" / "randaug_ops.npz")
EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Identity": randaugment.identity,
    "AutoContrast": lambda image: randaugment.auto_contrast(image, wrap_offset=True),
    "Equalize": randaugment.equalize,
    "Brightness": lambda image: randaugment.brightness(image, 1.36),
    "Sharpness": lambda image: randaugment.sharpness(image, 1.36),
    "TranslateX_p": lambda image: randaugment.translate_x(image, 7),
    "TranslateX_n": lambda image: randaugment.translate_x(image, -7),
    "TranslateY_p": lambda image: randaugment.translate_y(image, 7),
    "TranslateY_n": lambda image: randaugment.translate_y(image, -7),
}
CLOSE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ShearX_p": lambda image: randaugment.shear_x(image, 0.21),
    "ShearX_n": lambda image: randaugment.shear_x(image, -0.21),
    "ShearY_p": lambda image: randaugment.shear_y(image, 0.21),
    "ShearY_n": lambda image: randaugment.shear_y(image, -0.21),
    "Rotate_p": lambda image: randaugment.rotate(image, 21),
    "Rotate_n": lambda image: randaugment.rotate(image, -21),
}


def difference(name: str, source: str, operation: Callable[[np.ndarray], np.ndarray]) -> int:
    ours = operation(GOLDEN[source])
    assert ours.dtype == np.uint8
    return int(np.abs(ours.astype(int) - GOLDEN[f"{source}_{name}"]).max())


@pytest.mark.parametrize("source", ["in0", "in1"])
@pytest.mark.parametrize("name", EXACT)
def test_operation_is_pixel_identical_to_unival(name: str, source: str) -> None:
    assert difference(name, source, EXACT[name]) == 0


@pytest.mark.parametrize("source", ["in0", "in1"])
@pytest.mark.parametrize("name", CLOSE)
def test_warp_is_within_one_grey_level_of_opencv(name: str, source: str) -> None:
    assert difference(name, source, CLOSE[name]) <= 1


def test_auto_contrast_does_not_overflow_by_default() -> None:
    image = GOLDEN["in1"]
    assert np.array_equal(randaugment.auto_contrast(image), np.asarray(ImageOps.autocontrast(Image.fromarray(image))))


def test_auto_contrast_leaves_a_flat_picture_alone() -> None:
    image = np.full((4, 5, 3), 77, np.uint8)
    assert np.array_equal(randaugment.auto_contrast(image), image)


@pytest.mark.parametrize("pixels", [5, -5, 9, -9])
def test_translation_by_the_whole_width_leaves_only_filling(pixels: int) -> None:
    assert (randaugment.translate_x(np.zeros((4, 5, 3), np.uint8), pixels) == 128).all()


class TestRandomAugment:
    image = GOLDEN["in0"]

    def test_same_generator_state_gives_the_same_picture(self) -> None:
        first, second = (RandomAugment()(self.image, np.random.default_rng(5)) for _ in range(2))
        assert np.array_equal(first, second)

    def test_draws_from_no_other_source(self) -> None:
        before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
        RandomAugment()(self.image, np.random.default_rng(0))
        assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]

    def test_input_is_not_changed(self) -> None:
        image = self.image.copy()
        for seed in range(30):
            RandomAugment()(image, np.random.default_rng(seed))
        assert np.array_equal(image, self.image)

    def test_one_step_reaches_every_operation_and_sign(self) -> None:
        augment, seen = RandomAugment(count=1), set()
        expected = {name for name in [*EXACT, *CLOSE] if name not in ("Identity", "AutoContrast")}
        for seed in range(400):
            out = augment(self.image, np.random.default_rng(seed)).astype(int)
            seen |= {name for name in expected if np.abs(out - GOLDEN[f"in0_{name}"]).max() <= 1}
        assert seen == expected

    def test_tiny_pictures_work(self) -> None:
        for seed in range(60):
            assert RandomAugment()(np.zeros((1, 1, 3), np.uint8), np.random.default_rng(seed)).shape == (1, 1, 3)
