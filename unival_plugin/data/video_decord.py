"""Frames of film files with decord 0.6, to compare with.

It was the references' reader. It is not the one that is used by default: with PyAV the same frames come sooner
(``benchmarks/video_decoding.py``), and decord

- gives wrong frames where key frames are shown later than their place in the file (open groups of pictures: most H.265,
  some H.264), and of MPEG transport streams;
- has no decoder for AV1, and fails on GIF;
- waits for ever, beyond the reach of signals, for a frame that a file lists and does not hold (its issues 373 and 375).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from .video_readers import Film, FilmIndex

_CODECS = ("h264", "mpeg4", "vp8", "vp9")
_CONTAINERS = frozenset(["mov", "matroska", "avi"])


def decord_fits(index: FilmIndex) -> bool:
    """Whether decord gives the right frames of such a film, as far as that can be told without decoding."""
    known = index.codec in _CODECS and not _CONTAINERS.isdisjoint(index.container.split(","))
    return known and index.plain and index.times is not None


def read_with_decord(film: Film, wanted: Sequence[int]) -> Tensor:
    """As :meth:`Film.read`. decord turns frames as well.

    Raises:
        DataError: decord cannot decode the film, counts its frames otherwise, or is known to mistake them.
        ConfigError: decord is missing.
    """
    decord = load_decord()
    if decord is None:
        raise ConfigError(f"{film.where}: decord is missing: pip install 'unival-plugin[video]' or use reader pyav")
    if not decord_fits(film.index):
        raise film.error(f"({film.index.codec}) is none that decord reads rightly: use reader pyav")
    try:
        reader = decord.VideoReader(str(film.path.absolute()), num_threads=1)
        if len(reader) != film.index.frames:
            raise film.error(f"has {film.index.frames} frames, decord counts {len(reader)}: use reader pyav")
        # never decord's bridges: they are a setting of the whole process
        frames = reader.get_batch(list(wanted)).asnumpy()
    except (RuntimeError, decord.DECORDError) as error:
        raise film.error(f"is none that decord can read ({str(error).splitlines()[0]}): use reader pyav") from error
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


@functools.lru_cache(maxsize=1)
def load_decord() -> Any:
    """The module, told to be silent; None where it is not installed."""
    try:
        import decord
    except (ImportError, OSError):  # OSError: its library does not load on this machine
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord
