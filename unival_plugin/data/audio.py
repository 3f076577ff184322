"""From a sound file to a mono waveform of a fixed number of samples; only the part that is wanted is read."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError, DataError
from .audio_readers import DEFAULT_AUDIO_LIMITS, HIGHEST_RATE, LOWEST_RATE, AudioLimits, Sound, open_sound

SAMPLE_RATE = 48_000
"""Hz that the network's log-mel front end expects."""

FILLS = ("repeatpad", "pad", "repeat")
CHANNELS = ("mean", "first")

# torchaudio's kernel has about (old rate x new rate) / gcd ** 2 numbers: gigabytes for 47,999 to 48,000 Hz.
_LARGEST_RATIO = 2**22
_PIECE = 2**20  # samples resampled at a time: torchaudio computes lengths in float32, which errs beyond 2 ** 24


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} '{value}' of sounds is not known: choose from {', '.join(choices)}")


@dataclass(frozen=True)
class SoundOptions:
    """How a sound becomes a waveform.

    The defaults do what the original expects to have been done beforehand: a file of another sample rate is read as if
    it had been converted to 48 kHz. The original's two ways, which released figures depend on, are (UnIVAL,
    ``data/mm_data/audio_caption_dataset.py`` and ``data/audio_utils.py``):

    - without ``--audio-sample-rate``: ``SoundOptions(sample_rate=None)``. Samples of any rate are taken for samples at
      48 kHz, so speed and pitch of other files change. The same as the default for files at 48 kHz.
    - with ``--audio-sample-rate``: ``SoundOptions(channels="first", int16=False)``. Resampled, but all channels except
      the first are thrown away.

    Attributes:
        length: samples of the waveform (``--max-audio-len``).
        sample_rate: Hz of the waveform; None: that of the file.
        channels: "mean" of all channels or the "first".
        int16: clip to [-1, 1] and round towards zero to multiples of 1 / 32767, as 16-bit numbers would.
        fill: how shorter sounds are filled up, see :func:`fit_length`.
    """

    length: int = 480_000
    sample_rate: Optional[int] = SAMPLE_RATE
    channels: str = "mean"
    int16: bool = True
    fill: str = "repeatpad"

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"a waveform of {self.length} samples: give a length of at least 1")
        if self.sample_rate is not None and not LOWEST_RATE <= self.sample_rate <= HIGHEST_RATE:
            raise ConfigError(
                f"a sample rate of {self.sample_rate} Hz: give one from {LOWEST_RATE} to {HIGHEST_RATE} Hz"
            )
        _check_choice("channels", self.channels, CHANNELS)
        _check_choice("fill", self.fill, FILLS)


DEFAULT_SOUND_OPTIONS = SoundOptions()


def read_waveform(
    path: Path,
    where: str,
    options: SoundOptions = DEFAULT_SOUND_OPTIONS,
    limits: AudioLimits = DEFAULT_AUDIO_LIMITS,
) -> Tensor:
    """The whole sound of a file, mono: float32 ``(N,)``; ``options.length`` and ``options.fill`` play no part.

    Values are in [-1, 1] if ``options.int16``; otherwise they are what the file holds.

    Args:
        path: the file.
        where: place of the path for messages ("file.tsv:row 17, column 4").
        limits: checked from the header, before anything is decoded.

    Raises:
        DataError: no such file; no sound; empty, damaged, truncated, too long or too large; NaN or infinite samples.
        ConfigError: soundfile or, for a file of another sample rate, torchaudio is not installed.
    """
    with open_sound(path, where, options.channels, limits) as sound:
        total = _wanted_samples(sound, options)
        pieces = (_samples(sound, i, min(_PIECE, total - i), options) for i in range(0, total, _PIECE))
        return torch.from_numpy(np.concatenate(list(pieces)))


def read_clip(
    path: Path,
    where: str,
    options: SoundOptions = DEFAULT_SOUND_OPTIONS,
    rng: Optional[np.random.Generator] = None,
    limits: AudioLimits = DEFAULT_AUDIO_LIMITS,
) -> Tensor:
    """A part of a file as a waveform of fixed length: float32 ``(options.length,)``.

    Equals :func:`fit_length` of :func:`read_waveform` within 1e-4 (a step of 16 bits), but only the part that is wanted
    is read and resampled, with what the resampling filter needs on both sides. Only what PyAV has to read is decoded
    from its beginning.

    Raises:
        DataError, ConfigError: as :func:`read_waveform`.
    """
    with open_sound(path, where, options.channels, limits) as sound:
        start, count = _cut(_wanted_samples(sound, options), options.length, rng)
        wave = torch.from_numpy(_samples(sound, start, count, options))
    return fit_length(wave, options.length, options.fill)


def fit_length(wave: Tensor, length: int, fill: str = "repeatpad", rng: Optional[np.random.Generator] = None) -> Tensor:
    """A waveform ``(N,)`` cut or filled up to ``(length,)``.

    Longer ones lose a random number of samples before the part that is kept, or, without ``rng``, as many before as
    behind it. Shorter ones are followed by zeros ("pad"), by themselves as often as they fit and then zeros
    ("repeatpad"), or by themselves until the end ("repeat").
    UnIVAL, data/audio_utils.py.

    Raises:
        DataError: an empty waveform.
        ConfigError: another ``fill``.
    """
    _check_choice("fill", fill, FILLS)
    if not len(wave):
        raise DataError("a sound without samples cannot be filled up: leave it out")
    start, count = _cut(len(wave), length, rng)
    wave = wave[start : start + count]
    if fill == "repeatpad":
        wave = wave.repeat(length // count)
    elif fill == "repeat":
        wave = wave.repeat(-(-length // count))[:length]
    return F.pad(wave, (0, length - len(wave)))


def through_int16(wave: np.ndarray) -> np.ndarray:
    """Samples as 16-bit numbers would keep them: clipped to [-1, 1], rounded towards zero; float32 of the same shape.

    UnIVAL, data/audio_utils.py.
    """
    return (np.clip(wave, -1.0, 1.0) * 32767.0).astype(np.int16).astype(np.float32) / np.float32(32767)


def _cut(total: int, length: int, rng: Optional[np.random.Generator]) -> tuple[int, int]:
    """Start and number of the samples to keep."""
    overflow = total - length
    if overflow <= 0:
        return 0, total
    return (overflow // 2 if rng is None else int(rng.integers(0, overflow + 1))), length


def _wanted_samples(sound: Sound, options: SoundOptions) -> int:
    """Length of the whole sound at the wanted sample rate."""
    return -(-sound.frames * (options.sample_rate or sound.rate) // sound.rate)


def _samples(sound: Sound, start: int, count: int, options: SoundOptions) -> np.ndarray:
    """Samples float32 ``(count,)`` at the wanted rate, ``start`` counted at that rate."""
    if options.sample_rate in (None, sound.rate):
        mono = sound.read(start, start + count)
    else:
        mono = _resampled(sound, start, count, options.sample_rate)
    return through_int16(mono) if options.int16 else mono.astype(np.float32)


def _resampled(sound: Sound, start: int, count: int, rate: int) -> np.ndarray:
    """As if the whole sound had been resampled and then cut.

    Every ``new`` samples of the result belong to ``old`` samples of the file, so a part that begins with such a group,
    as many samples early as the filter reaches, gives the same samples as the whole.
    """
    common = math.gcd(sound.rate, rate)
    old, new = sound.rate // common, rate // common
    if old * new > _LARGEST_RATIO:
        raise DataError(
            f"{sound.place} has {sound.rate} Hz, too odd a ratio to {rate} Hz: convert the file to {rate} Hz"
        )
    resample = _resampler(sound.rate, rate)
    group = max(0, start // new - -(-resample.width // old))
    first = group * old
    last = min(sound.frames, ((start + count - 1) // new + 1) * old + resample.width)
    part = torch.from_numpy(sound.read(first, last)).float()
    # torchaudio may round the length down: with a group of zeros at the end nothing that is wanted is lost
    whole = resample(F.pad(part, (0, old)))
    skipped = start - group * new
    return whole[skipped : skipped + count].numpy()


@functools.lru_cache(maxsize=16)
def _resampler(old: int, new: int) -> Any:
    """torchaudio's transform, which keeps its kernel."""
    try:
        from torchaudio.transforms import Resample
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"sounds of {old} Hz need torchaudio to become {new} Hz: pip install 'unival-plugin[audio]', "
            f"or convert the files ({error})"
        ) from error
    return Resample(old, new)
