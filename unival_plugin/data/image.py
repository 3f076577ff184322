"""From the bytes of a picture, or the cell that holds them, to a normalised tensor.

Pictures come from strangers: the header is checked against limits before anything is decoded, only plain raster formats
are opened, and paths must stay inside the picture folder.
"""

from __future__ import annotations

import binascii
import functools
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ConfigError, DataError
from .randaugment import RandomAugment
from .resize import resize_planes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF_MEAN = (0.5, 0.5, 0.5)
HALF_STD = (0.5, 0.5, 0.5)

# Formats that only describe pixels. Left out on purpose: EPS, WMF and others that start programs or interpret commands.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
_URLSAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")

# Training pictures get a random shorter side up to the first number and no side longer than the second (UnIVAL).
LARGEST_SHORTER_SIDE = 480
LARGEST_SIDE = 672


@dataclass(frozen=True)
class ImageLimits:
    """What a picture may cost.

    Attributes:
        max_pixels: width x height; the default is the size from which Pillow itself warns of a decompression bomb.
        max_bytes: length of the encoded picture.
    """

    max_pixels: int = 178_956_970
    max_bytes: int = 100 * 2**20


DEFAULT_LIMITS = ImageLimits()


def decode_image(data: bytes, where: str, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Decode a JPEG, PNG, WebP, GIF (first frame), BMP, TIFF … to RGB.

    Transparency is dropped; of 16-bit pictures the upper 8 bits are kept.

    Args:
        data: encoded picture.
        where: place of the picture for messages ("file.tsv:row 17, column 4").
        limits: checked from the header, before any pixel is decoded.

    Raises:
        DataError: not a picture, damaged, truncated or too large.
    """
    if not data:
        raise DataError(f"{where}: the picture is empty: fill in the cell or remove the row")
    if len(data) > limits.max_bytes:
        raise DataError(f"{where}: the picture has {len(data)} bytes, allowed are {limits.max_bytes}: shrink it")
    image = _open_header(data, where)
    width, height = image.size
    if width * height > limits.max_pixels:
        raise DataError(
            f"{where}: {width} x {height} pixels, allowed are {limits.max_pixels} in all: shrink the picture"
        )
    try:
        image.load()
        return to_rgb(image)
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged bytes.
        raise DataError(
            f"{where}: the picture is damaged ({_one_line(error)}): write it anew or remove the row"
        ) from error


def read_cell_image(
    cell: str | bytes,
    where: str,
    image_dir: Path | None = None,
    from_path: bool = False,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Image.Image:
    """Picture of a cell: base64 (url-safe or standard alphabet) or, with ``from_path``, a path below ``image_dir``.

    Raises:
        DataError: as :func:`decode_image`; not base64; no such file; a path that leaves ``image_dir``.
        ConfigError: ``from_path`` without ``image_dir``.
    """
    if not from_path:
        return decode_image(_from_base64(cell, where, limits), where, limits)
    name = cell if isinstance(cell, str) else cell.decode("utf-8", errors="replace")
    path = path_below(name, where, image_dir)
    try:
        if path.stat().st_size > limits.max_bytes:
            raise DataError(f"{where}: {path} is larger than the allowed {limits.max_bytes} bytes: shrink the picture")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{where}: {path} cannot be read ({error.strerror}): correct the path or --image-dir"
        ) from error
    return decode_image(data, f"{where} ({path})", limits)


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


@functools.lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Allowed formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _open_header(data: bytes, where: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=_formats())
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: too many pixels ({_one_line(error)}): shrink the picture") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{where}: not a picture in a known format: write it anew or remove the row") from error
    except Exception as error:  # Pillow's parsers raise nearly every type on damaged headers.
        raise DataError(
            f"{where}: the picture is damaged ({_one_line(error)}): write it anew or remove the row"
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, without transparency; of 16-bit grey the upper 8 bits."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey to 255, which turns nearly every picture white.
        grey = np.clip(np.asarray(image), 0, 65535) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")


def _from_base64(cell: str | bytes, where: str, limits: ImageLimits) -> bytes:
    if len(cell) > (limits.max_bytes + 3) * 4 // 3:
        raise DataError(f"{where}: the picture is larger than the allowed {limits.max_bytes} bytes: shrink it")
    try:
        text = cell.encode("ascii") if isinstance(cell, str) else cell
        if b"-" in text or b"_" in text:
            text = text.translate(_URLSAFE_TO_STANDARD)
        return binascii.a2b_base64(text)
    except ValueError as error:
        raise DataError(
            f"{where}: not base64 ({_one_line(error)}): write the picture anew or remove the row"
        ) from error


def path_below(name: str, where: str, folder: Path | None) -> Path:
    """Real path of the file that a cell names by its path below ``folder``.

    Raises:
        DataError: a path that leaves the folder.
        ConfigError: no folder.
    """
    if folder is None:
        raise ConfigError(f"{where} holds a path: name the folder that paths are relative to with --image-dir")
    try:
        root = folder.resolve()
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: not a path ({_one_line(error)}): correct the cell") from error
    if not path.is_relative_to(root):
        raise DataError(f"{where}: path '{name}' leaves the folder {folder}: use paths below it")
    return path


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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
