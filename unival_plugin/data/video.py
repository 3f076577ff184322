"""From a film file to a normalised tensor of a few frames.

UnIVAL, data/video_utils.py and data/mm_data/video_caption_dataset.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .image import HALF_MEAN, HALF_STD
from .video_decord import read_with_decord
from .video_readers import DEFAULT_VIDEO_LIMITS, Film, ShorterThanPromised, VideoLimits

__all__ = [
    "DEFAULT_VIDEO_LIMITS",
    "FilmEvalTransform",
    "FilmTrainTransform",
    "FrameSampling",
    "VideoLimits",
    "frame_indices",
    "read_frames",
]


READERS = ("auto", "pyav", "decord")
_HIGHEST_RATE = 1000.0


class Draws(Protocol):
    """What is needed of a random generator; numpy's ``Generator`` has it."""

    def integers(self, low: int, high: int) -> int:
        """A number from low up to, not including, high."""

    def permutation(self, x: int) -> np.ndarray:
        """0 .. x - 1 in random order."""


@dataclass(frozen=True)
class FrameSampling:
    """Which frames of a film are taken.

    Attributes:
        num_frames: how many, for ``rand`` and ``middle``.
        method: ``rand``: one from each of ``num_frames`` equal parts; ``middle``: the middle one of each part; ``fpsX``
            (fps1, fps0.5): the middle one of every 1/X seconds, as many as the film has.
        max_num_frames: most frames of ``fpsX``; -1: any number.
        fix_start: with ``middle``: the frame at this place of each part instead of the middle one.

    Raises:
        ConfigError: values that mean nothing.
    """

    num_frames: int = 4
    method: str = "rand"
    max_num_frames: int = -1
    fix_start: Optional[int] = None

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ConfigError(f"number of frames {self.num_frames}: use 1 or more")
        if self.max_num_frames != -1 and self.max_num_frames < 1:
            raise ConfigError(f"largest number of frames {self.max_num_frames}: use 1 or more, or -1 for any")
        if self.method not in ("rand", "middle") and self.rate is None:
            raise ConfigError(f"way to choose frames '{self.method}': use rand, middle or fpsX, such as fps1 or fps0.5")
        if self.fix_start is not None and (self.method != "middle" or self.fix_start < 0):
            raise ConfigError(f"fixed start {self.fix_start}: goes with middle only, and must not be negative")

    @property
    def rate(self) -> Optional[float]:
        """X of ``fpsX``."""
        try:
            rate = float(self.method[3:]) if self.method.startswith("fps") else 0.0
        except ValueError:
            return None
        return rate if 0 < rate <= _HIGHEST_RATE else None


def frame_indices(length: int, sampling: FrameSampling, fps: float, rng: Optional[Draws] = None) -> list[int]:
    """Numbers of the frames to take from a film of ``length`` frames, equal to UnIVAL's.

    ``rand`` and ``middle`` always give ``num_frames`` numbers (shorter films repeat the last one). With ``rand`` the
    last frame of a part is never drawn; where a part is thus left without any, the frames are the first of a
    permutation of all, sorted. ``fpsX`` gives one number or more.

    Two films that UnIVAL fails on: ``fpsX`` with a film shorter than half a step takes its middle frame, and a
    ``fix_start`` behind the film's end its last.

    Args:
        length: frames in the film, 1 or more.
        fps: frames a second, for ``fpsX``.
        rng: draws for ``rand``; None (evaluation): ``rand`` becomes ``middle``.
    """
    if sampling.rate is not None:
        return _by_rate(length, sampling, sampling.rate, fps)
    count = min(sampling.num_frames, length)
    edges = np.linspace(0, length, count + 1).astype(int).tolist()
    parts = list(zip(edges[:-1], edges[1:], strict=True))
    if sampling.method == "rand" and rng is not None:
        chosen = _drawn(parts, length, rng)
    elif sampling.fix_start is not None:
        chosen = [min(start + sampling.fix_start, length - 1) for start, _ in parts]
    else:
        chosen = [(start + end - 1) // 2 for start, end in parts]
    return chosen + chosen[-1:] * (sampling.num_frames - count)


def read_frames(
    path: Path,
    sampling: FrameSampling,
    where: str,
    rng: Optional[Draws] = None,
    limits: VideoLimits = DEFAULT_VIDEO_LIMITS,
    reader: str = "auto",
) -> Tensor:
    """Frames of a film in their own size, turned as the film asks for (phones film sideways).

    Both readers give the same frames.

    Args:
        path: mp4, webm, mkv, avi, gif and other usual containers.
        where: place that names the film, for messages ("file.tsv:row 17, column 4").
        rng: see :func:`frame_indices`.
        reader: ``auto`` is ``pyav``, which was never the slower one and is right where decord is not; ``decord``, the
            references' reader, is kept to compare with, and refuses films that it mistakes (see ``video_decord.py``).

    Returns:
        uint8 ``(T, 3, height, width)``.

    Raises:
        DataError: no film, no pictures in it, damaged, or beyond the limits.
        ConfigError: unknown reader, or its library is missing.
    """
    if reader not in READERS:
        raise ConfigError(f"reader of films '{reader}': use {', '.join(READERS)}")
    with Film(path, where, limits) as film:
        wanted = frame_indices(film.index.frames, sampling, film.index.fps, rng)
        _check_result(film, wanted)
        try:
            return read_with_decord(film, wanted) if reader == "decord" else film.read(wanted)
        except ShorterThanPromised as error:
            # The file lists packets that hold no frame; now that the true number is known, choose again.
            if error.frames == 0:
                raise film.damaged("not one frame can be decoded") from None
            return film.read(frame_indices(error.frames, sampling, film.index.fps, rng))


class FilmEvalTransform:
    """Centre of every frame, normalised: uint8 ``(T, 3, height, width)`` -> float32 ``(3, T, size, size)``.

    Frames are not resized; what is missing to ``size`` is black. Films are expected with a shorter side of 224.
    """

    def __init__(self, size: int, mean: Sequence[float] = HALF_MEAN, std: Sequence[float] = HALF_STD) -> None:
        self.size = size
        self.mean = tuple(mean)
        self.std = tuple(std)

    def __call__(self, frames: Tensor) -> Tensor:
        from torchvision.transforms.functional import center_crop

        return _normalise(center_crop(frames, [self.size, self.size]), self.mean, self.std)


class FilmTrainTransform:
    """Augmentation: (uint8 ``(T, 3, height, width)``, generator) -> float32 ``(3, T, size, size)``.

    Two random operations of magnitude 9, a random part of 50-100 % of the area resized to a square, mirrored half of
    the time; all frames of a film alike. torchvision draws from torch's own generator: it is seeded with a number from
    ``rng`` and put back afterwards, so that all randomness comes from ``rng``.

    Args:
        size: side of the frames that come out.
        mean, std: of the three colours in [0, 1].
        operations_last: the two operations come after the part was taken, as in the original's pretraining.
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float] = HALF_MEAN,
        std: Sequence[float] = HALF_STD,
        operations_last: bool = False,
    ) -> None:
        from torchvision import transforms

        self.size = size
        self.mean = tuple(mean)
        self.std = tuple(std)
        operations = [transforms.RandAugment(num_ops=2, magnitude=9)]
        bicubic = transforms.InterpolationMode.BICUBIC
        part = [
            transforms.RandomResizedCrop(size, scale=(0.5, 1.0), interpolation=bicubic),
            transforms.RandomHorizontalFlip(0.5),
        ]
        self.augment = transforms.Compose([*part, *operations] if operations_last else [*operations, *part])

    def __call__(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        seed = int(rng.integers(2**63))
        with torch.random.fork_rng(devices=[]):
            # not torch.manual_seed: it seeds accelerators, too, which nobody would put back
            torch.default_generator.manual_seed(seed)
            frames = self.augment(frames)
        return _normalise(frames, self.mean, self.std)


def _by_rate(length: int, sampling: FrameSampling, rate: float, fps: float) -> list[int]:
    step = 1 / rate
    seconds = np.arange(step / 2, length / fps + step / 2, step)
    chosen = [number for number in np.around(seconds * fps).astype(int).tolist() if number < length]
    if sampling.max_num_frames > 0:
        chosen = chosen[: sampling.max_num_frames]
    return chosen or [(length - 1) // 2]


def _drawn(parts: Sequence[tuple[int, int]], length: int, rng: Draws) -> list[int]:
    if any(end - 1 <= start for start, end in parts):
        return sorted(int(number) for number in rng.permutation(length)[: len(parts)])
    return [int(rng.integers(start, end - 1)) for start, end in parts]


def _check_result(film: Film, wanted: Sequence[int]) -> None:
    size = len(wanted) * 3 * film.index.width * film.index.height
    if size > film.limits.max_result_bytes:
        frames = f"{len(wanted)} frames of {film.index.width} x {film.index.height} pixels"
        raise film.error(
            f"gives {frames}, {size} bytes, allowed are {film.limits.max_result_bytes}: take fewer or shrink the film"
        )


def _normalise(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 ``(T, 3, h, w)`` -> [0, 1], normalised, float32 ``(3, T, h, w)``."""
    out = frames.permute(1, 0, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    for plane, centre, spread in zip(out, mean, std, strict=True):
        plane.div_(255).sub_(centre).div_(spread)
    return out
