"""Films for tests, made by real encoders: every frame shows its own number as a row of black and white fields.

The number survives lossy coding, so that a test can tell which frame a reader gave. Needs PyAV.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

BITS = 10
FIELD = 16
WIDTH, HEIGHT = BITS * FIELD, 64

CONTAINERS: dict[str, dict[str, Any]] = {
    "mp4": {},
    "avi": {"codec": "mpeg4"},
    "mkv": {},
    "webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "gif": {"codec": "gif", "pixels": "rgb8"},
}
"""What :func:`write_film` takes besides the path, by the ending of the file's name."""


def draw(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Picture uint8 ``(height, width, 3)``: the number's bits from left to right, lowest first, above a grey ramp."""
    bits = (number >> np.arange(BITS)) & 1
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2] = np.repeat(bits * 255, width // BITS)[None, :width, None]
    picture[height // 2 :] = np.linspace(40, 200, width).astype(np.uint8)[None, :, None]
    return picture


def read_number(frame: Tensor | np.ndarray) -> int:
    """The number that a frame ``(3, height, width)`` shows."""
    planes = np.asarray(frame)
    field = planes.shape[2] // BITS
    line = planes[:, planes.shape[1] // 4].mean(0)
    return sum(int(line[bit * field + field // 2] > 127) << bit for bit in range(BITS))


def numbers(frames: Tensor) -> list[int]:
    """The numbers that frames ``(T, 3, height, width)`` show."""
    return [read_number(frame) for frame in frames]


def write_film(
    path: Path,
    frames: int = 40,
    fps: Fraction | int = 25,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    gop: int = 12,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    picture: Callable[[int], np.ndarray] = draw,
    times: Sequence[int] | None = None,
    sound: bool = False,
) -> Path:
    """Encodes a film of ``frames`` numbered pictures.

    Args:
        times: when each frame is shown, in units of 1/1000 s; by default at a constant rate.
        sound: add a tone.
    """
    import av

    with av.open(str(path), "w", options=dict(container_options or {})) as output:
        stream = output.add_stream(codec, rate=Fraction(fps), options=dict(options or {}))
        height, width = picture(0).shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.gop_size = gop
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        tone = _add_tone(output) if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if tone is not None:
            _write_tone(output, tone, seconds=float(frames / Fraction(fps)))
    return path


def write_sound(path: Path, seconds: float = 1.0) -> Path:
    """A file of the film's kind that holds a tone and no picture."""
    import av

    with av.open(str(path), "w") as output:
        _write_tone(output, _add_tone(output), seconds)
    return path


def write_header_only(path: Path) -> Path:
    """A film without a single frame."""
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        output.start_encoding()
    return path


def turn(source: Path, target: Path, quarter_turns: int) -> Path:
    """A copy of an mp4 film whose header asks players to turn the picture clockwise by so many quarters."""
    one = 1 << 16
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter_turns % 4]
    matrix = struct.pack(">9i", cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    data = bytearray(source.read_bytes())
    place = data.index(b"tkhd") + 44
    data[place : place + len(matrix)] = matrix
    target.write_bytes(data)
    return target


def _add_tone(output: Any) -> Any:
    return output.add_stream("aac", rate=16000, layout="mono")


def _write_tone(output: Any, stream: Any, seconds: float) -> None:
    import av

    for start in range(0, int(16000 * seconds), 1024):
        wave = np.sin(np.arange(start, start + 1024) / 10).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
