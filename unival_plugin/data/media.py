"""What a row shows or plays: how its cell becomes a picture, film or sound, and what that is in a sample.

Legend: s picture side, p frame side in pixels, T frames, N samples of a sound.
"""

from __future__ import annotations

import functools
import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from .audio import SoundOptions, fit_length, read_clip
from .audio_readers import DEFAULT_AUDIO_LIMITS, AudioLimits
from .image import DEFAULT_LIMITS, EvalTransform, ImageLimits, TrainTransform, decode_image, path_below, read_cell_image
from .video import FilmEvalTransform, FilmTrainTransform, FrameSampling, frame_indices, read_frames
from .video_readers import DEFAULT_VIDEO_LIMITS, VideoLimits

Media = Union[str, Path, bytes, Image.Image, Tensor]
"""The cell of a row, the path of a file, an encoded picture, or a picture, frames or a waveform themselves."""

Randomness = Callable[[], np.random.Generator]
"""Makes the random generator of a row; not called where nothing is drawn."""


class Medium(ABC):
    """Pictures, films or sounds.

    Attributes:
        name: one of them, for messages.
        kind: number in ``patch_types``.
    """

    name: str
    kind: int

    @abstractmethod
    def open(self, media: Media, where: str, rng: Randomness) -> Any:
        """What is decoded of ``media``.

        Args:
            where: place for messages.

        Raises:
            DataError: it cannot be used.
        """

    @abstractmethod
    def tensors(self, opened: Any, rng: Randomness) -> dict[str, Tensor]:
        """What :meth:`open` gave, under the names that a sample has it by."""

    def sample(self, media: Media, where: str, rng: Randomness) -> dict[str, Tensor]:
        """The medium's part of a sample.

        Returns:
            ``patch_mask`` bool (1,), ``patch_type`` int64 (1,), ``patch_image`` float32 (3, s, s), zeros unless it is
            a picture, and what the medium adds.

        Raises:
            DataError: as :meth:`open`.
        """
        rng = functools.cache(rng)  # two generators of a row would draw frames and augmentation from the same numbers
        opened = self.open(media, where, rng)
        kind = {"patch_mask": torch.tensor([True]), "patch_type": torch.tensor([self.kind])}
        return {**self.tensors(opened, rng), **kind}

    def warm_up(self) -> None:  # noqa: B027 (not abstract: there may be nothing to do)
        """Imports and compiles what reading needs; called before worker processes are forked."""


class NoMedium(Medium):
    """Rows of text alone."""

    name, kind = "text", -1

    def open(self, media: Media, where: str, rng: Randomness) -> None:
        """Nothing is opened."""

    def tensors(self, opened: None, rng: Randomness) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def sample(self, media: Media, where: str, rng: Randomness) -> dict[str, Tensor]:
        """Nothing."""
        return {}


@dataclass
class Pictures(Medium):
    """Cells with base64 or paths.

    Attributes:
        transform: picture to tensor; a :class:`TrainTransform` also takes the row's random generator.
        folder: paths are relative to it and must not leave it.
        from_path: all cells are paths; otherwise only cells that contain ".jpg" are.
        limits: see :class:`ImageLimits`.
    """

    transform: EvalTransform | TrainTransform
    folder: Optional[Path] = None
    from_path: bool = False
    limits: ImageLimits = field(default_factory=lambda: DEFAULT_LIMITS)

    name, kind = "picture", 0

    def open(self, media: Media, where: str, rng: Optional[Randomness] = None) -> Image.Image:
        """RGB picture; raises DataError as :func:`read_cell_image`, or for what is no picture."""
        if isinstance(media, Image.Image):
            return media
        if isinstance(media, str):
            is_path = self.from_path or ".jpg" in media[-8:]
            return read_cell_image(media, where, self.folder, is_path, self.limits)
        if isinstance(media, Tensor):
            raise DataError(f"{where}: is no picture; give a file, its bytes, or a PIL picture")
        try:
            data = media if isinstance(media, bytes) else media.read_bytes()
        except OSError as error:
            raise DataError(f"{where}: {error.strerror}; check the path") from error
        return decode_image(data, where, self.limits)

    def tensors(self, opened: Image.Image, rng: Randomness) -> dict[str, Tensor]:
        """``patch_image``: the picture, augmented in training."""
        pixels = self.transform(opened, rng()) if isinstance(self.transform, TrainTransform) else self.transform(opened)
        return {"patch_image": pixels}

    def warm_up(self) -> None:
        """As the base."""
        jpeg = io.BytesIO()
        Image.new("RGB", (64, 64)).save(jpeg, "JPEG")
        self.sample(jpeg.getvalue(), "warm-up", lambda: np.random.default_rng(0))


@dataclass
class Films(Medium):
    """Cells with paths of films.

    Attributes:
        transform: frames to tensor; a :class:`FilmTrainTransform` also takes the row's random generator.
        sampling: which frames.
        folder: paths are relative to it and must not leave it.
        picture_size: side of the picture of zeros that the original's samples have.
        draws: choose frames at random where the sampling says so; otherwise the middle ones are taken.
        limits: see :class:`VideoLimits`.
    """

    transform: FilmEvalTransform | FilmTrainTransform
    sampling: FrameSampling
    folder: Optional[Path] = None
    picture_size: int = 480
    draws: bool = False
    limits: VideoLimits = DEFAULT_VIDEO_LIMITS

    name, kind = "film", 1

    def open(self, media: Media, where: str, rng: Randomness) -> Tensor:
        """Frames uint8 (T, 3, height, width); T is ``sampling.num_frames``: the last one is repeated where they end.

        Raises:
            DataError: as :func:`read_frames`, or for what is no film.
        """
        if isinstance(media, Tensor):
            if media.dtype != torch.uint8 or media.ndim != 4 or media.shape[1] != 3 or not media.numel():
                raise DataError(f"{where}: frames must be uint8 (T, 3, height, width), are {tuple(media.shape)}")
            frames = media[frame_indices(len(media), self.sampling, 1.0)]
        else:
            path = _file(media, where, self.folder, self.name)
            frames = read_frames(path, self.sampling, where, rng() if self.draws else None, self.limits)
        missing = self.sampling.num_frames - len(frames)
        return torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)]) if missing else frames

    def tensors(self, opened: Tensor, rng: Randomness) -> dict[str, Tensor]:
        """``patch_video`` float32 (3, T, p, p)."""
        apply = self.transform
        film = apply(opened, rng()) if isinstance(apply, FilmTrainTransform) else apply(opened)
        return {"patch_image": torch.zeros(3, self.picture_size, self.picture_size), "patch_video": film}

    def warm_up(self) -> None:
        """As the base."""
        self.tensors(
            torch.zeros(self.sampling.num_frames, 3, 8, 8, dtype=torch.uint8), lambda: np.random.default_rng(0)
        )


@dataclass
class Sounds(Medium):
    """Cells with paths of sounds.

    Attributes:
        options: how a file becomes a waveform.
        folder, picture_size, draws: as of :class:`Films`; what is drawn is the place of the part that is heard.
        limits: see :class:`AudioLimits`.
    """

    options: SoundOptions
    folder: Optional[Path] = None
    picture_size: int = 480
    draws: bool = False
    limits: AudioLimits = DEFAULT_AUDIO_LIMITS

    name, kind = "sound", 2

    def open(self, media: Media, where: str, rng: Randomness) -> Tensor:
        """Waveform float32 (N,); raises DataError as :func:`read_clip`, or for what is no sound."""
        draws = rng() if self.draws else None
        if isinstance(media, Tensor):
            if media.ndim != 1 or not media.is_floating_point() or not len(media) or not bool(media.isfinite().all()):
                raise DataError(
                    f"{where}: a waveform must be finite floats (N,), is {media.dtype} {tuple(media.shape)}"
                )
            return fit_length(media.float(), self.options.length, self.options.fill, draws)
        return read_clip(_file(media, where, self.folder, self.name), where, self.options, draws, self.limits)

    def tensors(self, opened: Tensor, rng: Randomness) -> dict[str, Tensor]:
        """``patch_audio`` float32 (N,)."""
        return {"patch_image": torch.zeros(3, self.picture_size, self.picture_size), "patch_audio": opened}


def _file(media: Media, where: str, folder: Optional[Path], name: str) -> Path:
    """The file that a cell or a user names."""
    if isinstance(media, Path):
        return media
    if isinstance(media, str):
        return path_below(media, where, folder)
    raise DataError(f"{where}: is no {name}; give the path of a file")
