"""Opening sound files: mono samples at any place of WAV, FLAC, MP3, Ogg, AIFF, M4A, films …

Files come from strangers: the header is checked against limits before anything is decoded. soundfile reads what it
knows; the rest (M4A, the sound track of a film) PyAV decodes from the beginning.

A file is checked as far as it is read: damage behind the part that is wanted goes unnoticed, unless the header or the
length of a WAV, AIFF or Ogg file tells of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from ..errors import ConfigError, DataError

LOWEST_RATE, HIGHEST_RATE = 1000, 768_000
"""Hz that a file may have."""

_BLOCK = 2**18  # frames decoded at a time: bounds what many channels cost
_UNKNOWN_FRAMES = 2**62  # libsndfile's count where the header gives none
_UNKNOWN_BYTES = 0x7FFF0000  # programs that write into a pipe fill in the largest lengths
_MOST_CHUNKS = 1000

# libsndfile's error codes: it does not know the format, or the codec in it.
_UNKNOWN_TO_SOUNDFILE = (1, 4)
# Left out on purpose: formats that name other files or addresses (hls, concat, dash …) and those that guess at text.
_CONTAINERS = "mov,mp4,matroska,webm,avi,flv,asf,mpegts,mpeg,ogg,aac,mp3,flac,wav,w64,aiff,caf,amr,ac3,eac3,ape,wv"


@dataclass(frozen=True)
class AudioLimits:
    """What a sound may cost.

    Attributes:
        max_bytes: length of the file.
        max_seconds: how long the sound may play, whatever part of it is wanted.
        max_channels: channels of the file.
    """

    max_bytes: int = 2**30
    max_seconds: float = 3600.0
    max_channels: int = 8


DEFAULT_AUDIO_LIMITS = AudioLimits()


class Sound(Protocol):
    """An open sound of ``frames`` samples a channel at ``rate`` Hz."""

    place: str
    rate: int

    @property
    def frames(self) -> int: ...

    def read(self, first: int, last: int) -> np.ndarray:
        """Mono samples float ``(last - first,)``."""


@contextmanager
def open_sound(
    path: Path, where: str, channels: str = "mean", limits: AudioLimits = DEFAULT_AUDIO_LIMITS
) -> Iterator[Sound]:
    """The sound of a file, header and limits checked; closed at the end of the ``with`` block.

    Args:
        path: the file.
        where: place of the path for messages ("file.tsv:row 17, column 4").
        channels: mono is the "mean" of all channels or the "first".

    Raises:
        DataError: no such file; no sound; empty, damaged, truncated, too long or too large. Reading raises it too, for
            damage on the way and for NaN or infinite samples.
        ConfigError: soundfile is not installed.
    """
    place = f"{where}: {path}"
    _check_file(path, place, limits)
    file = _sound_file(path, place)
    if file is None:
        yield _decoded(path, place, channels, limits)
        return
    with file:
        _check_header(place, file.samplerate, file.channels, file.frames / file.samplerate, limits)
        if not file.frames:
            raise DataError(_empty(place))
        yield _FileSound(file, place, channels)


def _check_file(path: Path, place: str, limits: AudioLimits) -> None:
    try:
        if not path.is_file() and path.exists():
            raise DataError(f"{place} is no file: correct the path")
        size = path.stat().st_size
        if not size:
            raise DataError(f"{place} is empty (0 bytes): write it anew or remove the row")
        if size > limits.max_bytes:
            raise DataError(f"{place} has {size} bytes, allowed are {limits.max_bytes}: shorten the sound")
        with path.open("rb") as file:
            missing = _missing_bytes(file, size)
    except OSError as error:
        raise DataError(f"{place} cannot be read ({error.strerror}): correct the path") from error
    if missing:
        raise DataError(f"{place} is truncated, at least {missing} bytes are missing: write it anew or remove the row")


def _check_header(place: str, rate: int, channels: int, seconds: float, limits: AudioLimits) -> None:
    if channels > limits.max_channels:
        raise DataError(f"{place} has {channels} channels, allowed are {limits.max_channels}: mix them down")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise DataError(f"{place} has {rate} Hz, allowed are {LOWEST_RATE} to {HIGHEST_RATE}: convert the file")
    if seconds > limits.max_seconds:
        raise DataError(
            f"{place} plays for {seconds:.0f} seconds, allowed are {limits.max_seconds:g}: cut it into shorter files"
        )


def _missing_bytes(file: BinaryIO, size: int) -> int:
    """How much shorter a WAV, AIFF or Ogg file is than it says: libsndfile would read what is there without a word."""
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return _missing_of_chunks(file, size, "<4sI", b"data")
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return _missing_of_chunks(file, size, ">4sI", b"SSND")
    return _missing_of_page(file, size) if head[:4] == b"OggS" else 0


def _missing_of_chunks(file: BinaryIO, size: int, header: str, wanted: bytes) -> int:
    for _ in range(_MOST_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8:
            break
        name, length = struct.unpack(header, chunk)
        if name == wanted:
            return 0 if length >= _UNKNOWN_BYTES else max(0, file.tell() + length - size)
        file.seek(length + length % 2, 1)
    return 0


def _missing_of_page(file: BinaryIO, size: int) -> int:
    """Bytes that the last page of an Ogg file lacks (RFC 3533, section 6)."""
    file.seek(max(0, size - 2**17))  # two of the largest pages
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return 27 + (page[26] if len(page) > 26 else 0) - len(page)
    return max(0, 27 + page[26] + sum(page[27 : 27 + page[26]]) - len(page))


def _sound_file(path: Path, place: str) -> Any:
    """The open ``soundfile.SoundFile``, or None if soundfile does not know the format or the length."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"{place}: sounds need soundfile: pip install 'unival-plugin[audio]' ({_reason(error)})"
        ) from error
    if path.suffix.lower() == ".raw":  # soundfile would ask the caller for rate and channels
        return None
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        if error.code in _UNKNOWN_TO_SOUNDFILE:
            return None
        raise DataError(_damaged(place, error)) from error
    if file.frames >= _UNKNOWN_FRAMES:
        file.close()
        return None
    return file


class _FileSound:
    """A file in which soundfile reads at any place."""

    def __init__(self, file: Any, place: str, channels: str) -> None:
        self.file, self.place, self.channels = file, place, channels
        self.rate: int = file.samplerate
        self.frames: int = file.frames

    def read(self, first: int, last: int) -> np.ndarray:
        """Mono samples float64 ``(last - first,)``."""
        self._guarded(self.file.seek, first)
        mono = np.empty(last - first)
        for start in range(0, last - first, _BLOCK):
            part = mono[start : start + _BLOCK]
            block = self._guarded(self.file.read, len(part), dtype="float64", always_2d=True)
            if len(block) < len(part):
                raise DataError(
                    f"{self.place} is truncated, it ends after {first + start + len(block)} of {self.frames} samples: "
                    "write it anew or remove the row"
                )
            part[:] = _mono(block, self.channels, self.place)
        return mono

    def _guarded(self, function: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except RuntimeError as error:  # what soundfile's errors have in common
            raise DataError(_damaged(self.place, error)) from error


@dataclass
class _DecodedSound:
    """A sound that had to be decoded from the beginning."""

    place: str
    rate: int
    samples: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.samples)

    def read(self, first: int, last: int) -> np.ndarray:
        return self.samples[first:last]


def _decoded(path: Path, place: str, channels: str, limits: AudioLimits) -> _DecodedSound:
    """The first sound track of what soundfile does not know."""
    try:
        import av
    except ImportError as error:
        raise DataError(
            f"{place} is no sound that soundfile knows: write it anew or remove the row "
            "(films and M4A need PyAV: pip install 'unival-plugin[video]')"
        ) from error
    safe = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        with av.open(str(path), container_options=safe, metadata_errors="ignore") as container:
            return _decode_track(container, place, channels, limits)
    except DataError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise DataError(
            f"{place} is no known sound, or is damaged ({_reason(error)}): write it anew or remove the row"
        ) from error


def _decode_track(container: Any, place: str, channels: str, limits: AudioLimits) -> _DecodedSound:
    import av

    if not container.streams.audio:
        raise DataError(f"{place} has no sound track: correct the path or remove the row")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise DataError(f"{place} has a sound track in an unknown codec: write it anew or remove the row")
    told = _told_seconds(container, stream)
    _check_header(place, stream.rate, stream.channels, told, limits)
    as_floats = av.AudioResampler(format="fltp")
    parts: list[np.ndarray] = []
    rate, seconds = stream.rate, 0.0
    for frame in container.decode(stream):
        rate = frame.sample_rate
        seconds += frame.samples / rate
        _check_header(place, rate, len(frame.layout.channels), seconds, limits)
        parts += [_mono(part.to_ndarray().T, channels, place) for part in as_floats.resample(frame)]
    if not parts:
        raise DataError(_empty(place))
    if _knows_seconds(container) and seconds < told - 0.25:
        raise DataError(
            f"{place} is truncated, it ends after {seconds:.2f} of {told:.2f} seconds: write it anew or remove the row"
        )
    return _DecodedSound(place, rate, np.concatenate(parts))


def _told_seconds(container: Any, stream: Any) -> float:
    """How long a track plays by the header; 0 where it does not say."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6


def _knows_seconds(container: Any) -> bool:
    """Other containers only estimate; Matroska gives the time of its longest track."""
    name = container.format.name
    return "mp4" in name or ("matroska" in name and len(container.streams) == 1)


def _mono(block: np.ndarray, channels: str, place: str) -> np.ndarray:
    """Samples ``(frames, channels)`` -> ``(frames,)``."""
    mono = block[:, 0].copy()
    if channels == "mean":
        for other in range(1, block.shape[1]):  # as np.mean along the short axis, many times faster
            mono += block[:, other]
        mono /= block.shape[1]
    if not np.isfinite(mono).all():
        raise DataError(f"{place} holds NaN or infinite samples: write it anew or remove the row")
    return mono


def _empty(place: str) -> str:
    return f"{place} has a header but no samples: write it anew or remove the row"


def _damaged(place: str, error: BaseException) -> str:
    return f"{place} is damaged ({_reason(error)}): write it anew or remove the row"


def _reason(error: BaseException) -> str:
    """What libsndfile or FFmpeg say, without the path that the message has already."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())
