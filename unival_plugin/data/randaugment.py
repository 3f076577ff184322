"""The ten picture operations of UnIVAL's RandomAugment (utils/vision_helper.py), without OpenCV.

Every operation takes and returns a uint8 array ``(height, width, 3)``; those with a magnitude take it with its sign.
Pixels that would come from outside the picture are grey (128).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

_FILL = 128
_HIGHEST_LEVEL = 10
# Room around the picture, so that its rim blends into the filling as in OpenCV.
_MARGIN = 2


def identity(image: np.ndarray) -> np.ndarray:
    """The picture itself."""
    return image


def auto_contrast(image: np.ndarray, wrap_offset: bool = False) -> np.ndarray:
    """Stretch every colour to 0..255.

    Args:
        image: uint8 ``(height, width, 3)``.
        wrap_offset: repeat UnIVAL's overflow (the offset is computed in 8 bits), which turns a colour white whose
            darkest value is above 0. Only to compare with its output.
    """
    out = np.empty_like(image)
    levels = np.arange(256)
    for channel in range(3):
        colour = image[..., channel]
        low, high = int(colour.min()), int(colour.max())
        scale = 255 / (high - low) if high > low else 1.0
        offset = (-low % 256 if wrap_offset else -low) * scale if high > low else 0.0
        out[..., channel] = (levels * scale + offset).clip(0, 255).astype(np.uint8)[colour]
    return out


def equalize(image: np.ndarray) -> np.ndarray:
    """Flatten the histogram of every colour."""
    return np.array(ImageOps.equalize(Image.fromarray(image)))


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply by ``factor`` and cut at 255."""
    return (np.arange(256) * factor).clip(0, 255).astype(np.uint8)[image]


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Move away from a smoothed copy: 0 = smoothed (3 x 3 ones, centre 5, over 13), 1 = unchanged, above = sharper.

    The rim is left alone. As in UnIVAL, values out of range wrap around.
    """
    wide = image.astype(np.uint16)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    inner = wide[1:-1, 1:-1]
    smooth = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * inner + 6) // 13
    sharp = smooth + np.float32(factor) * (inner.astype(np.float32) - smooth)
    out = image.copy()
    out[1:-1, 1:-1] = sharp.astype(np.int32).astype(np.uint8)
    return out


def shear_x(image: np.ndarray, factor: float) -> np.ndarray:
    """Move row ``y`` to the right by ``factor * y`` pixels."""
    return _warp(image, 1, -factor, 0, 0, 1, 0)


def shear_y(image: np.ndarray, factor: float) -> np.ndarray:
    """Move column ``x`` down by ``factor * x`` pixels."""
    return _warp(image, 1, 0, 0, -factor, 1, 0)


def translate_x(image: np.ndarray, pixels: int) -> np.ndarray:
    """Move to the left by ``pixels``."""
    out = np.full_like(image, _FILL)
    width = image.shape[1]
    left, right = min(max(pixels, 0), width), min(max(-pixels, 0), width)
    out[:, right : width - left] = image[:, left : width - right]
    return out


def translate_y(image: np.ndarray, pixels: int) -> np.ndarray:
    """Move up by ``pixels``."""
    return translate_x(image.swapaxes(0, 1), pixels).swapaxes(0, 1)


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turn counter-clockwise around (width / 2, height / 2)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = image.shape[1] / 2, image.shape[0] / 2
    return _warp(image, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


class RandomAugment:
    """Apply ``count`` operations, drawn with replacement and each used with probability 1/2, at ``level`` of 10.

    Signs are drawn too. All randomness comes from the generator that is passed in.
    """

    def __init__(self, count: int = 2, level: int = 7) -> None:
        self.count = count
        strength = level / _HIGHEST_LEVEL
        self._plain: tuple[Callable[[np.ndarray], np.ndarray], ...] = (identity, auto_contrast, equalize)
        self._scaled = tuple((operation, strength * 1.8 + 0.1) for operation in (brightness, sharpness))
        self._signed: tuple[tuple[Callable[..., np.ndarray], float | int], ...] = (
            (shear_x, strength * 0.3),
            (shear_y, strength * 0.3),
            (translate_x, round(strength * 10)),
            (translate_y, round(strength * 10)),
            (rotate, strength * 30),
        )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augment a uint8 array ``(height, width, 3)``; the input is not changed."""
        for _ in range(self.count):
            choice = int(rng.integers(len(self._plain) + len(self._scaled) + len(self._signed)))
            used, positive = rng.random(2) < 0.5
            if used:
                image = self._apply(image, choice, 1 if positive else -1)
        return image

    def _apply(self, image: np.ndarray, choice: int, sign: int) -> np.ndarray:
        if choice < len(self._plain):
            return self._plain[choice](image)
        choice -= len(self._plain)
        if choice < len(self._scaled):
            scaled, factor = self._scaled[choice]
            return scaled(image, factor)
        signed, magnitude = self._signed[choice - len(self._scaled)]
        return signed(image, sign * magnitude)


def _warp(image: np.ndarray, a: float, b: float, c: float, d: float, e: float, f: float) -> np.ndarray:
    """Bilinear picture whose pixel (x, y) is taken from (a x + b y + c, d x + e y + f) of the input."""
    padded = ImageOps.expand(Image.fromarray(image), border=_MARGIN, fill=(_FILL,) * 3)
    # Pillow counts from the corners of the pixels, OpenCV (and the formula above) from their centres.
    c += _MARGIN + (1 - a - b) / 2
    f += _MARGIN + (1 - d - e) / 2
    size = (image.shape[1], image.shape[0])
    coefficients = (a, b, c, d, e, f)
    moved = padded.transform(
        size, Image.Transform.AFFINE, coefficients, resample=Image.Resampling.BILINEAR, fillcolor=(_FILL,) * 3
    )
    return np.array(moved)
