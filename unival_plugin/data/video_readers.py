"""What a film file holds, and its frames by number, with PyAV.

Films come from strangers: only formats that describe nothing but pictures and sound are opened, only from the file
itself, and size, length and the work of decoding are limited.

Frame ``i`` is the ``i``-th that is shown. Its number comes from the packets' time stamps, which are read without
decoding; a decoder then starts at the last key frame before it. Where time stamps are missing, doubled or disagree with
the decoder, frames are counted from the beginning instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError

# Left out on purpose: play lists and scripts that name other files (hls, concat, dash, image2 ...) and devices.
_CONTAINERS = "mov,matroska,avi,gif,mpeg,mpegts,mpegvideo,flv,ogg,asf,rm,ivf,h264,hevc,m4v,yuv4mpegpipe"
# Older ones crash where options are given for containers that name their streams late (PyAV's issue 2010).
_OLDEST_PYAV = 18
# A film of which more is missing or cannot be decoded is refused; a few lost packets are usual.
_LARGEST_LOSS = 0.1


@dataclass(frozen=True)
class VideoLimits:
    """What a film may cost.

    Attributes:
        max_bytes: length of the file.
        max_pixels: width x height of a frame.
        max_seconds: playing time.
        max_frames: frames in the file; bounds the list of them that is made before decoding.
        max_decoded_pixels: pixels of all frames that are decoded to get at the wanted ones; bounds the time.
        max_result_bytes: memory of the wanted frames, 3 bytes a pixel.
    """

    max_bytes: int = 4 * 2**30
    max_pixels: int = 8192 * 4320
    max_seconds: float = 2 * 3600
    max_frames: int = 1_000_000
    max_decoded_pixels: int = 10**11
    max_result_bytes: int = 2 * 2**30


DEFAULT_VIDEO_LIMITS = VideoLimits()


@dataclass(frozen=True)
class FilmIndex:
    """What the packets of a film say before anything is decoded.

    Attributes:
        frames: how many frames there are; a promise, some may prove undecodable.
        fps: average frames a second.
        width, height: of the coded frames, before they are turned.
        container, codec: FFmpeg's names; the container's are several, separated by commas.
        times: int64, ascending: when each frame is shown, in the film's own unit; None where time stamps are of no use.
        keys: int64, ascending: numbers of the frames at which decoding can start.
        plain: every packet gives a frame, and key frames have the same number in the file's order as they are shown.
    """

    frames: int
    fps: float
    width: int
    height: int
    container: str
    codec: str
    times: np.ndarray | None
    keys: np.ndarray
    plain: bool


class ShorterThanPromised(Exception):
    """Fewer frames can be decoded than the packets promise: ``frames``."""

    def __init__(self, frames: int) -> None:
        self.frames = frames


class Film:
    """An open film; a context manager.

    Args:
        path: the file.
        where: place that names the film, for messages ("file.tsv:row 17, column 4").

    Raises:
        DataError: no such file, not a film, no picture in it, damaged, or beyond the limits.
        ConfigError: PyAV is missing.
    """

    def __init__(self, path: Path, where: str, limits: VideoLimits = DEFAULT_VIDEO_LIMITS) -> None:
        self.path = path
        self.where = where
        self.limits = limits
        self._av = _pyav(where)
        self._container: Any = None
        self._check_file()
        try:
            self._open()
            self.index = self._read_index()
        except self._av.FFmpegError as error:
            self.close()
            raise self.damaged(_one_line(error)) from error
        except DataError:
            self.close()
            raise

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives decoder and file back."""
        if self._container is not None:
            self._container.close()

    def read(self, wanted: Sequence[int]) -> Tensor:
        """Frames with PyAV.

        Args:
            wanted: frame numbers in any order, also repeated.

        Returns:
            uint8 ``(len(wanted), 3, height, width)``, turned as the film asks for.

        Raises:
            ShorterThanPromised: a wanted frame does not exist after all.
            DataError: damaged, or the work of decoding is beyond the limits.
        """
        numbers = sorted(set(wanted))
        self._decoded = 0
        try:
            frames = self._by_time(numbers) or self._by_counting(numbers)
        except self._av.FFmpegError as error:
            raise self.damaged(_one_line(error)) from error
        unique = torch.stack(frames)
        return unique if list(wanted) == numbers else unique[torch.from_numpy(np.searchsorted(numbers, wanted))]

    def decoded(self) -> Iterator[Any]:
        """All frames as PyAV's objects, in order, not turned; packets that cannot be decoded are left out.

        Raises:
            DataError: the work of decoding is beyond the limits.
        """
        self._container.close()
        self._open()
        self._decoded = 0
        return self._decode()

    def check_decoded(self, frames: int) -> None:
        """Raises DataError if ``frames``, decoded from the whole film, are much fewer than there should be."""
        if frames < (1 - _LARGEST_LOSS) * self.index.frames:
            raise self.damaged(f"only {frames} of {self.index.frames} frames can be decoded")

    def damaged(self, why: str) -> DataError:
        """The error that says so."""
        return self.error(f"is no film or damaged ({why}): write it anew or remove the row")

    def error(self, what: str) -> DataError:
        """An error of this film: where, which file, ``what``."""
        return DataError(f"{self.where}: {self.path} {what}")

    # ---- opening

    def _check_file(self) -> None:
        try:
            if not self.path.is_file():
                raise self.error("is no file: correct the path")
            size = self.path.stat().st_size
        except OSError as error:
            raise self.error(f"cannot be read ({error.strerror}): correct the path") from error
        if size == 0:
            raise self.error("is empty: write the film anew or remove the row")
        if size > self.limits.max_bytes:
            raise self.error(f"has {size} bytes, allowed are {self.limits.max_bytes}: shrink the film")

    def _open(self) -> None:
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        self._container = self._av.open(str(self.path.absolute()), options=options, metadata_errors="ignore")
        if not self._container.streams.video:
            only_sound = self.error("has no picture, only sound: name a film or remove the row")
            raise only_sound if self._container.streams.audio else self.damaged("no picture in it")
        self._stream = self._container.streams.best("video") or self._container.streams.video[0]
        coder = self._stream.codec_context
        if coder is None:
            raise self.error("is coded in a way that PyAV does not know: re-encode it (compress_videos.py)")
        self._check_frame(coder.width, coder.height)
        # One thread, as in the references: frames do not depend on it, and loader workers share the machine.
        coder.thread_count = 1
        coder.options = {"max_pixels": str(self.limits.max_pixels)}

    def _check_frame(self, width: int, height: int) -> None:
        allowed = self.limits.max_pixels
        if width * height > allowed:
            raise self.error(f"has frames of {width} x {height} pixels, allowed are {allowed} in all: shrink the film")
        if width * height == 0:
            raise self.damaged("frames without a size")

    def _check_seconds(self, seconds: float) -> None:
        if seconds > self.limits.max_seconds:
            allowed = _clock(self.limits.max_seconds)
            raise self.error(f"lasts {_clock(seconds)}, allowed are {allowed}: cut it into shorter films")

    # ---- the index

    def _read_index(self) -> FilmIndex:
        self._check_seconds(self._promised_seconds())
        self._check_complete()
        times, keys, hidden = self._list_packets()
        count = len(times)
        promised = self._promised_frames()
        if count < (1 - _LARGEST_LOSS) * promised:
            raise self.damaged(f"cut off: {promised} frames are promised, {count} are there")
        if count == 0:
            raise self.error("has no frame: write the film anew or remove the row")
        usable = None not in times and len(set(times)) == count
        stamps = np.array(times, dtype=np.int64) if usable else None
        written = shown = np.flatnonzero(keys)
        if stamps is not None:
            order = np.argsort(stamps)
            stamps, shown = stamps[order], np.flatnonzero(np.array(keys)[order])
        fps = self._fps(stamps)
        self._check_tagged_seconds(count / fps if stamps is None else self._seconds(stamps) + 1 / fps)
        coder = self._stream.codec_context
        return FilmIndex(
            frames=count,
            fps=max(fps, count / self.limits.max_seconds),
            width=coder.width,
            height=coder.height,
            container=self._container.format.name,
            codec=coder.codec.canonical_name,
            times=stamps,
            keys=shown,
            plain=not hidden and np.array_equal(written, shown),
        )

    def _list_packets(self) -> tuple[list[int | None], list[bool], bool]:
        """Time and key flag of every packet that gives a frame, in the file's order; whether there are others."""
        times: list[int | None] = []
        keys: list[bool] = []
        hidden = False
        unit = float(self._stream.time_base or 0)
        first = None
        for packet in self._container.demux(self._stream):
            if packet.size == 0:
                continue
            if packet.is_discard:
                hidden = True
                continue
            times.append(packet.pts)
            keys.append(packet.is_keyframe)
            if packet.pts is not None:
                first = packet.pts if first is None else first
                self._check_seconds((packet.pts - first) * unit)
            if len(times) > self.limits.max_frames:
                allowed = self.limits.max_frames
                raise self.error(f"has more than the allowed {allowed} frames: cut it into shorter films")
        return times, keys, hidden

    def _promised_seconds(self) -> float:
        """Playing time by the header; 0 where it says nothing."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return (self._container.duration or 0) / self._av.time_base

    def _promised_frames(self) -> int:
        """Frames by the header; 0 where it says nothing or counts frames that are not shown (mp4's edit lists)."""
        return 0 if "mov" in self._container.format.name.split(",") else self._stream.frames

    def _check_complete(self) -> None:
        """mp4 lists the place of every packet: places behind the file's end tell that it was cut off."""
        if "mov" not in self._container.format.name.split(","):
            return
        places = self._stream.index_entries
        size = self.path.stat().st_size
        behind = sum(1 for entry in places if entry.pos + entry.size > size)
        if behind:
            raise self.damaged(f"cut off: {behind} of {len(places)} frames lie behind its end")

    def _fps(self, stamps: np.ndarray | None) -> float:
        if self._stream.average_rate:
            return float(self._stream.average_rate)
        if stamps is not None and len(stamps) > 1:
            return (len(stamps) - 1) / self._seconds(stamps)
        return 1.0

    def _seconds(self, stamps: np.ndarray) -> float:
        """From the first frame to the last."""
        return float((int(stamps[-1]) - int(stamps[0])) * self._stream.time_base)

    def _check_tagged_seconds(self, seconds: float) -> None:
        """mkv and webm tell the length of each track."""
        clock = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", self._stream.metadata.get("DURATION", "").strip("\0 "))
        hours, minutes, rest = map(float, clock.groups()) if clock else (0.0, 0.0, 0.0)
        promised = 3600 * hours + 60 * minutes + rest
        if seconds < (1 - _LARGEST_LOSS) * promised:
            raise self.damaged(f"cut off: {promised:.1f} seconds are promised, {seconds:.1f} are there")

    # ---- frames

    def _by_time(self, numbers: Sequence[int]) -> list[Tensor] | None:
        """Frames found by their time stamps; None where those do not lead to them."""
        times = self.index.times
        if times is None:
            return None
        place = {int(time): i for i, time in enumerate(times)}
        out: list[Tensor] = []
        position: float = math.inf
        frames: Iterator[Any] = iter(())
        for number in numbers:
            key = self._key_before(number)
            if not position < number or key > position + 1:
                self._container.seek(int(times[key]), stream=self._stream)
                frames = self._decode()
            found = None
            for frame in frames:
                position = place.get(frame.pts, math.inf)
                if position >= number:
                    found = frame if position == number else None
                    break
            if found is None:
                return None
            out.append(self._pixels(found))
        return out

    def _by_counting(self, numbers: Sequence[int]) -> list[Tensor]:
        """Frames found by counting from the beginning."""
        wanted, count = set(numbers), 0
        out: list[Tensor] = []
        for frame in self.decoded():
            if count in wanted:
                out.append(self._pixels(frame))
            count += 1
            if len(out) == len(wanted):
                return out
        self.check_decoded(count)
        raise ShorterThanPromised(count)

    def _key_before(self, number: int) -> int:
        """Number of the last frame up to ``number`` at which decoding can start."""
        place = int(np.searchsorted(self.index.keys, number, side="right"))
        return int(self.index.keys[place - 1]) if place else 0

    def _decode(self) -> Iterator[Any]:
        """Frames from where the file stands; packets that cannot be decoded are left out."""
        pixels = self.index.width * self.index.height
        for packet in self._container.demux(self._stream):
            try:
                frames = packet.decode()
            except self._av.error.InvalidDataError:
                continue
            for frame in frames:
                self._decoded += pixels
                if self._decoded > self.limits.max_decoded_pixels:
                    allowed = self.limits.max_decoded_pixels // pixels
                    why = f"needs more than {allowed} frames decoded to get at the wanted ones"
                    raise self.error(f"{why}: cut it, or re-encode it with more key frames (compress_videos.py)")
                yield frame

    def _pixels(self, frame: Any) -> Tensor:
        """uint8 ``(3, height, width)``. Frames of another size than the first are scaled to it."""
        size = {"width": self.index.width, "height": self.index.height}
        # PyAV would start threads for every frame, which on busy machines takes longer than the conversion
        pixels = frame.to_ndarray(format="rgb24", threads=1, **size)
        turns = frame.rotation / 90
        if turns.is_integer():
            pixels = np.rot90(pixels, int(turns))
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _pyav(where: str) -> Any:
    try:
        import av
    except ImportError:
        raise ConfigError(f"{where}: films need PyAV: pip install 'unival-plugin[video]'") from None
    if int(av.__version__.partition(".")[0]) < _OLDEST_PYAV:
        raise ConfigError(f"{where}: films need PyAV {_OLDEST_PYAV}, not {av.__version__}: pip install --upgrade av")
    return av


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _one_line(error: BaseException) -> str:
    """What went wrong, without the path and the number that PyAV adds."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())
