"""The fast resize against Pillow's own."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from unival_plugin.data import resize
from unival_plugin.data.resize import planes, resize_planes


def noise(width: int, height: int, seed: int, extreme: bool = False) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray((np.where(values > 127, 255, 0) if extreme else values).astype(np.uint8))


def by_pillow(image: Image.Image, width: int, height: int) -> np.ndarray:
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


sides = st.integers(1, 150)


@settings(max_examples=150, deadline=None)
@given(width=sides, height=sides, new_width=sides, new_height=sides, seed=st.integers(0, 99), extreme=st.booleans())
@example(width=90, height=150, new_width=80, new_height=130, seed=0, extreme=False)
@example(width=90, height=150, new_width=80, new_height=129, seed=0, extreme=False)
@example(width=1, height=1, new_width=40, new_height=3, seed=0, extreme=True)
@example(width=150, height=2, new_width=1, new_height=2, seed=0, extreme=True)
def test_machine_code_is_pixel_identical_to_pillow(
    width: int, height: int, new_width: int, new_height: int, seed: int, extreme: bool
) -> None:
    pytest.importorskip("numba")
    image = noise(width, height, seed, extreme)
    out = resize_planes(image, new_width, new_height)
    assert out.dtype == np.uint8
    assert np.array_equal(out, by_pillow(image, new_width, new_height))


@pytest.mark.parametrize("size", [224, 384, 480])
def test_machine_code_is_pixel_identical_at_real_sizes(size: int) -> None:
    pytest.importorskip("numba")
    image = noise(640, 427, size)
    assert np.array_equal(resize_planes(image, size, size), by_pillow(image, size, size))


def test_kernel_is_plain_python_too() -> None:
    image = noise(9, 7, 1)
    lines = np.asarray(image).reshape(7, -1)
    out = resize._resize_first_axis(lines, 4).reshape(4, 9, 3).transpose(2, 0, 1)
    assert np.array_equal(out, by_pillow(image, 9, 4))


def test_another_order_of_the_passes_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(resize, "_agrees", lambda *_: False)
    resize._compiled.cache_clear()
    assert resize._compiled() is None
    resize._compiled.cache_clear()


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real_import = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "numba":
            raise ImportError("No module named 'numba'")
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    resize._compiled.cache_clear()
    yield
    resize._compiled.cache_clear()


@pytest.mark.usefixtures("without_numba")
def test_without_numba_pillow_does_the_work_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    image = noise(31, 17, 3)
    with caplog.at_level(logging.INFO, logger=resize.__name__):
        for _ in range(2):
            assert np.array_equal(resize_planes(image, 12, 20), by_pillow(image, 12, 20))
    assert len(caplog.records) == 1


def test_planes_are_the_colours() -> None:
    image = noise(5, 4, 2)
    assert np.array_equal(planes(image), np.asarray(image).transpose(2, 0, 1))
