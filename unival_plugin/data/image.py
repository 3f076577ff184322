"""From a decoded picture to a normalised tensor; decoding itself is in :mod:`.picture_cells`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .picture_cells import DEFAULT_LIMITS, ImageLimits, decode_image, path_below, read_cell_image, to_rgb
from .randaugment import RandomAugment
from .resize import resize_planes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF_MEAN = (0.5, 0.5, 0.5)
HALF_STD = (0.5, 0.5, 0.5)

__all__ = [  # what decodes is imported from here by those who have torch anyway
    "DEFAULT_LIMITS",
    "HALF_MEAN",
    "HALF_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "CentreTransform",
    "EvalTransform",
    "ImageLimits",
    "TrainTransform",
    "decode_image",
    "eval_transform",
    "normalise",
    "path_below",
    "read_cell_image",
    "resized_shape",
    "to_rgb",
    "train_transform",
]

# Training pictures get a random shorter side up to the first number and no side longer than the second (UnIVAL).
LARGEST_SHORTER_SIDE = 480
LARGEST_SIDE = 672


class EvalTransform:
    """RGB, bicubic (antialiased) resize to a square, [0, 1], normalise; see :func:`eval_transform`."""

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self.size = size
        self.mean = tuple(mean)
        self.std = tuple(std)

    def __call__(self, image: Image.Image) -> Tensor:
        return normalise(resize_planes(to_rgb(image), self.size, self.size), self.mean, self.std)


class CentreTransform(EvalTransform):
    """RGB, centre crop to a square, [0, 1], normalise; what a small picture lacks is black."""

    def __call__(self, image: Image.Image) -> Tensor:
        from torchvision.transforms.functional import center_crop

        pixels = np.asarray(center_crop(to_rgb(image), [self.size, self.size]))
        return normalise(pixels.transpose(2, 0, 1), self.mean, self.std)


class TrainTransform:
    """Random size, centre crop, two random operations, normalise; see :func:`train_transform`."""

    def __init__(
        self, size: int, mean: Sequence[float], std: Sequence[float], same_operations: Sequence[int] | None = None
    ) -> None:
        self.size = size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.augment = RandomAugment()
        self.same_operations = same_operations

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        # Sizes above the usual largest one leave no choice: the shorter side is then the size itself.
        shorter = int(rng.integers(self.size, max(LARGEST_SHORTER_SIDE, self.size) + 1))
        width, height = resized_shape(image.width, image.height, shorter, max(LARGEST_SIDE, self.size))
        pixels = _centre_crop(resize_planes(to_rgb(image), width, height), self.size).transpose(1, 2, 0)
        draws = rng if self.same_operations is None else np.random.default_rng(list(self.same_operations))
        augmented = self.augment(np.ascontiguousarray(pixels), draws)
        return normalise(augmented.transpose(2, 0, 1), self.mean, self.std)


def eval_transform(size: int, mean: Sequence[float] = HALF_MEAN, std: Sequence[float] = HALF_STD) -> EvalTransform:
    """Transform for evaluation: PIL picture -> float32 ``(3, size, size)``; the aspect ratio is not kept.

    Bit-equal to torchvision's Resize (on PIL, bicubic), ToTensor and Normalize in sequence.
    UnIVAL, data/mm_data/caption_dataset.py.
    """
    return EvalTransform(size, mean, std)


def train_transform(
    size: int,
    mean: Sequence[float] = HALF_MEAN,
    std: Sequence[float] = HALF_STD,
    same_operations: Sequence[int] | None = None,
) -> TrainTransform:
    """Augmentation for training: (PIL picture, generator) -> float32 ``(3, size, size)``.

    Shorter side uniformly from size..480 with no side above 672, centre crop, RandomAugment(2, 7), normalise.
    All randomness comes from the generator; with ``same_operations``, numbers from 0 on, the operations are drawn from
    these instead, for every picture alike.
    UnIVAL, utils/transforms.py and utils/vision_helper.py.
    """
    return TrainTransform(size, mean, std, same_operations)


def resized_shape(width: int, height: int, shorter: int, longest: int) -> tuple[int, int]:
    """Width and height with the shorter side at ``shorter``; each is cut to ``longest``: the aspect may change."""
    if width < height:
        width, height = shorter, shorter * height // width
    else:
        width, height = shorter * width // height, shorter
    return min(width, longest), min(height, longest)


def _centre_crop(planes: np.ndarray, size: int) -> np.ndarray:
    """Centre of pixels ``(3, height, width)``, neither side below ``size``."""
    top = round((planes.shape[1] - size) / 2)
    left = round((planes.shape[2] - size) / 2)
    return planes[:, top : top + size, left : left + size]


def normalise(planes: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels uint8 ``(3, height, width)`` -> float32 of the same shape, bit-equal to ToTensor and Normalize.

    One colour at a time: a plane stays in the cache through all three steps.
    """
    out = torch.empty(planes.shape)
    for plane, colour, centre, spread in zip(out, planes, mean, std, strict=True):
        plane.copy_(torch.tensor(colour)).div_(255).sub_(centre).div_(spread)
    return out
