"""Finds the digits in pictures and reads them, with scikit-learn and SciPy only.

A digit is a piece of ink, connected or nearly so, which a support vector machine reads. It is trained, in seconds, on
the training scans only, so no digit of the pictures for testing is known to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from digits_scenes import Box, ink_box, load_source, scan_mask
from PIL import Image
from scipy import ndimage

SIDE = 64
"""Side in pixels at which pictures are read; lengths below are in these pixels."""
CROP = 8
"""Side of what the classifier sees."""
INK = 0.4
"""From this share of the contrast a pixel is ink."""
THRESHOLDS = (INK, 0.5, 0.6, 0.7)
"""Digits that touch at one of them may be apart at the next."""
LEAST_CONTRAST = 40.0
"""Difference of colours, 0..255, below which a picture is empty."""
LARGEST, PIECE = 28, 11
"""Sides that no digit exceeds, and that each digit exceeds in height."""
BREAK = 4
"""Pieces of one digit are at most so far apart."""
SPECK = 6
"""Pieces of fewer pixels are nothing."""
COPIES = 8
"""Times that each scan is drawn for the training."""


# -------------------------------------------------------------------------------- where digits are


def ink_of(picture: Image.Image) -> np.ndarray:
    """How much each pixel differs from the background: float32 ``(64, 64)``, 0 (background) to 1 (ink).

    The background is the median colour of the border.
    """
    small = picture.convert("RGB")
    if small.size != (SIDE, SIDE):
        small = small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(small, dtype=np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    distance: np.ndarray = np.sqrt(np.square(pixels - np.median(border, axis=0)).mean(axis=2))
    return (distance / max(float(np.percentile(distance, 99)), LEAST_CONTRAST)).clip(0, 1)


def pieces_of(ink: np.ndarray) -> list[np.ndarray]:
    """The digits of ``ink_of``: for each one a mask, bool ``(64, 64)``, of its pixels."""
    found = [piece for mask in _connected(ink > INK) for piece in _apart(ink, mask, THRESHOLDS[1:])]
    return [piece for piece in _joined(found) if _height(piece) > PIECE]


def _connected(mask: np.ndarray) -> list[np.ndarray]:
    labels, number = ndimage.label(mask, structure=np.ones((3, 3)))
    masks = (labels == i for i in range(1, number + 1))
    return [mask for mask in masks if mask.sum() >= SPECK]


def _apart(ink: np.ndarray, mask: np.ndarray, thresholds: Sequence[float]) -> list[np.ndarray]:
    """The parts of a mask that is too large for one digit: by less ink, else cut where there is the least."""
    x0, y0, x1, y1 = ink_box(mask)
    if max(x1 - x0, y1 - y0) <= LARGEST:
        return [mask]
    if thresholds:
        cores = _connected(mask & (ink > thresholds[0]))
        if sum(_height(core) > PIECE for core in cores) < 2:
            return _apart(ink, mask, thresholds[1:])
        return [part for near in _nearest(mask, cores) for part in _apart(ink, near, thresholds[1:])]
    return [part for half in _cut(ink, mask) for part in _apart(ink, half, ())]


def _nearest(mask: np.ndarray, cores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The pixels of a mask, each with the core that is nearest to it."""
    nearest = np.argmin([ndimage.distance_transform_edt(~core) for core in cores], axis=0)
    return [mask & (nearest == i) for i in range(len(cores))]


def _cut(ink: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """The two parts of a mask across its longer side; where they fit digits if that is possible."""
    x0, y0, x1, y1 = ink_box(mask)
    axis = 0 if y1 - y0 >= x1 - x0 else 1
    start, stop = ((y0, y1), (x0, x1))[axis]
    third = (stop - start) // 3
    first, last = start + third, stop - third
    if stop - start < 2 * LARGEST:
        first, last = max(first, stop - LARGEST), min(last, start + LARGEST)
    place = first + int(np.argmin((ink * mask).sum(axis=1 - axis)[first : last + 1]))
    before = (np.arange(SIDE) < place).reshape((-1, 1) if axis == 0 else (1, -1))
    return [mask & before, mask & ~before]


def _joined(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Masks with pieces, too small for a digit, joined to what is near them."""
    masks = sorted(masks, key=np.sum, reverse=True)
    for i, j in itertools.combinations(range(len(masks)), 2):
        if _one_digit(masks[i], masks[j]):
            rest = [mask for k, mask in enumerate(masks) if k not in (i, j)]
            return _joined([*rest, masks[i] | masks[j]])
    return masks


def _one_digit(large: np.ndarray, small: np.ndarray) -> bool:
    x0, y0, x1, y1 = ink_box(large | small)
    fits = max(x1 - x0, y1 - y0) <= LARGEST
    return fits and (_height(small) <= PIECE or _height(large) <= PIECE) and _distance(large, small) <= BREAK


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(ndimage.distance_transform_edt(~first)[second].min())


def _height(mask: np.ndarray) -> int:
    _, y0, _, y1 = ink_box(mask)
    return y1 - y0


# -------------------------------------------------------------------------------- what they are


@dataclass(frozen=True)
class Found:
    """A digit that was found: what it is, 0..9, its box in a picture of 64 x 64 pixels, and how sure that is.

    ``margin`` is the distance of the votes of the best and the second-best class.
    """

    label: int
    box: Box
    margin: float


class Reader:
    """Reads pictures; made by :meth:`trained`."""

    def __init__(self, classifier: Any) -> None:
        self._classifier = classifier

    @classmethod
    def trained(cls, seed: int = 7, copies: int = COPIES) -> Reader:
        """A reader that knows the training scans of the data that were built with this seed.

        Args:
            seed: of the build; it decides which scans are for training.
            copies: times that each scan is drawn: in several sizes, turned, blurred, with noise.
        """
        from sklearn.svm import SVC

        source, rng = load_source(seed), np.random.default_rng([seed, 1])
        scans = np.concatenate(source.pools["train"])
        tiles = [_tile(source.scans[scan], rng) for _ in range(copies) for scan in scans]
        return cls(SVC(C=10).fit([_crop(tile, tile > INK) for tile in tiles], np.tile(source.labels[scans], copies)))

    def read(self, picture: Image.Image) -> list[Found]:
        """The digits of a picture of any size, those above first."""
        ink = ink_of(picture)
        masks = pieces_of(ink)
        if not masks:
            return []
        votes = self._classifier.decision_function([_crop(ink, mask) for mask in masks])
        best = np.sort(votes, axis=1)
        labels, margins = votes.argmax(axis=1).tolist(), (best[:, -1] - best[:, -2]).tolist()
        found = [Found(label, ink_box(mask), gap) for label, mask, gap in zip(labels, masks, margins, strict=True)]
        return sorted(found, key=lambda digit: (digit.box[1], digit.box[0]))


def _tile(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A scan as it may stand in a picture: ink float32 ``(size + 8, size + 8)``."""
    mask = np.pad(scan_mask(scan, int(rng.integers(16, 27)), float(rng.uniform(-10, 10))), 4)
    tile = ndimage.gaussian_filter(mask, rng.uniform(0, 1.2)) + rng.normal(0, rng.uniform(0, 0.06), mask.shape)
    return (tile / np.percentile(tile, 97)).clip(0, 1).astype(np.float32)


def _crop(ink: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What the classifier sees of a mask and its soft edge: float32 ``(CROP * CROP,)``, the digit in the middle."""
    x0, y0, x1, y1 = ink_box(mask)
    near = ndimage.binary_dilation(mask, iterations=1)
    digit = (ink * near)[y0:y1, x0:x1]
    digit = digit / max(float(np.percentile(digit, 95)), 1e-3)
    side = max(digit.shape)
    square = np.zeros((side, side), np.float32)
    top, left = (side - digit.shape[0]) // 2, (side - digit.shape[1]) // 2
    square[top : top + digit.shape[0], left : left + digit.shape[1]] = digit.clip(0, 1)
    return np.asarray(Image.fromarray(square).resize((CROP, CROP), Image.Resampling.BOX)).ravel()
