"""Training transform of pictures in which a box is to be found (pretraining).

Random size as for all training pictures, then a square that has the box in its middle as far as the picture allows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from .image import (
    HALF_MEAN,
    HALF_STD,
    LARGEST_SHORTER_SIDE,
    LARGEST_SIDE,
    normalise,
    resized_shape,
    to_rgb,
)
from .resize import resize_planes


class GroundingTrainTransform:
    """Shorter side uniformly from size..480 with no side above 672, crop around the box, normalise.

    The crop begins at a whole pixel and the box moves by the same; in the original the box moves by the fraction as
    well, and so lies up to half a pixel beside its object.
    UnIVAL, data/pretrain_data/unify_dataset.py and utils/transforms.py.

    Args:
        size: side of the pictures that come out. Above 480, where the original has no size to choose from, the shorter
            side is the size itself.
        mean: of the three colours in [0, 1].
        std: of the three colours in [0, 1].
        resizes: draw the size of the picture; otherwise its shorter side is always ``size``.
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float] = HALF_MEAN,
        std: Sequence[float] = HALF_STD,
        resizes: bool = True,
    ) -> None:
        self.size = size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.largest = max(LARGEST_SHORTER_SIDE, size) if resizes else size

    def __call__(
        self, image: Image.Image, box: Tensor, rng: np.random.Generator, where: str = "box"
    ) -> tuple[Tensor, Tensor]:
        """Picture float32 ``(3, size, size)`` and box float32 ``(4,)`` in its pixels, cut at its edges.

        Args:
            image: of any mode.
            box: ``x0, y0, x1, y1``, float32 ``(4,)`` in pixels of ``image``.
            rng: all randomness comes from it.
            where: place of the box for messages.

        Raises:
            DataError: nothing of the box is in the picture, or it is empty.
        """
        width, height = self._shape(image, rng)
        scaled = box * torch.tensor([width / image.width, height / image.height] * 2, dtype=torch.float32)
        if not bool(scaled.isfinite().all()):
            raise _nothing_left(box, image, where)
        x0, y0, x1, y1 = scaled.tolist()
        left, top = self._start(x0, x1, width), self._start(y0, y1, height)
        cut = (scaled - torch.tensor([left, top, left, top], dtype=torch.float32)).clamp(0, self.size)
        if not bool((cut[:2] < cut[2:]).all()):
            raise _nothing_left(box, image, where)
        pixels = resize_planes(to_rgb(image), width, height)[:, top : top + self.size, left : left + self.size]
        return normalise(pixels, self.mean, self.std), cut

    def _shape(self, image: Image.Image, rng: np.random.Generator) -> tuple[int, int]:
        """Width and height of the whole picture after resizing; neither is below the size."""
        shorter = int(rng.integers(self.size, self.largest + 1))
        return resized_shape(image.width, image.height, shorter, max(LARGEST_SIDE, self.size))

    def _start(self, low: float, high: float, side: int) -> int:
        """Where the crop begins along a side of the picture with the box from ``low`` to ``high``."""
        return round(min(max((low + high - self.size) / 2, 0.0), float(side - self.size)))


def _nothing_left(box: Tensor, image: Image.Image, where: str) -> DataError:
    corners = ",".join(f"{number:g}" for number in box.tolist())
    return DataError(
        f"{where}: the box {corners} shows nothing of the picture of {image.width} x {image.height} pixels; boxes are "
        "x0,y0,x1,y1 with x0 < x1 and y0 < y1 in pixels of the original picture"
    )
