"""What compress_videos.py does with films and sounds where ffmpeg is not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.light import light

# Encoder and pixel format by the output's ending.
_H264 = ("libx264", "yuv420p")
_FILMS = {
    **dict.fromkeys(["mp4", "m4v", "mov", "mkv"], _H264),
    "webm": ("libvpx-vp9", "yuv420p"),
    "avi": ("mpeg4", "yuv420p"),
    "gif": ("gif", "rgb8"),
}
# Encoder and sample format by the output's ending.
_SOUNDS = {
    "wav": ("pcm_s16le", "s16"),
    "flac": ("flac", "s16"),
    "mp3": ("libmp3lame", "fltp"),
    "ogg": ("flac", "s16"),
    "m4a": ("aac", "fltp"),
}


class Failure(Exception):
    """A source cannot be converted."""


def scale_filter(size: int) -> str:
    """Options of ffmpeg's filter ``scale``: shorter side ``size``, the other one even."""
    wide = f"if(gt(iw,ih),2*trunc({size}*iw/ih/2),{size})"
    high = f"if(gt(iw,ih),{size},2*trunc({size}*ih/iw/2))"
    return f"w='{wide}':h='{high}'"


def open_film(source: Path) -> Any:
    """The package's Film, which raises DataError for what is none, or cut off; long ones are welcome here."""
    readers = light("data.video_readers")
    limits = readers.VideoLimits(max_seconds=float("inf"), max_decoded_pixels=10**13)
    return readers.Film(source, "source", limits)


def convert_film(source: Path, output: Path, fps: Fraction, size: int, keep_sound: bool) -> None:
    """Writes the film at another rate and size, upright.

    Raises:
        Failure: the encoder or the container does not take it.
        ValueError: the source cannot be read.
    """
    import av

    codec, pixels = _coder(_FILMS, output)
    try:
        with ExitStack() as stack:
            film = stack.enter_context(open_film(source))
            written = stack.enter_context(av.open(str(output.absolute()), "w"))
            stream = written.add_stream(codec, rate=fps)
            stream.pix_fmt = pixels
            stream.codec_context.thread_count = 1
            sound = _copied_sound(stack, source, written) if keep_sound else ()
            for frame in _filtered(film, fps, size, pixels):
                if not stream.codec_context.is_open:
                    stream.width, stream.height = frame.width, frame.height
                written.mux(stream.encode(frame))
            written.mux(stream.encode(None))
            for packet in sound:
                written.mux(packet)
    except av.FFmpegError as error:
        raise Failure(str(error)) from error


def convert_sound(source: Path, output: Path, rate: Optional[int]) -> None:
    """Writes the first sound track, mono at ``rate``; None: as it is.

    Raises:
        Failure: there is none, or it cannot be read or written.
    """
    import av

    codec, samples = _coder(_SOUNDS, output)
    try:
        with av.open(str(source.absolute()), metadata_errors="ignore") as sound:
            if not sound.streams.audio:
                raise Failure("has no sound")
            track = sound.streams.audio[0]
            layout = track.layout.name if rate is None and track.layout.nb_channels > 1 else "mono"
            with av.open(str(output.absolute()), "w") as written:
                stream = written.add_stream(codec, rate=rate or track.rate, layout=layout)
                resampler = av.AudioResampler(samples, layout, rate or track.rate)
                for frame in [*sound.decode(track), None]:
                    for piece in resampler.resample(frame):
                        written.mux(stream.encode(piece))
                written.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:
        raise Failure(str(error)) from error


def _filtered(film: Any, fps: Fraction, size: int, pixels: str) -> Iterable[Any]:
    """The film's frames, upright, at the rate and size."""
    graph = first = None
    count = 0
    for count, frame in enumerate(film.decoded(), start=1):
        if frame.pts is None:
            frame.pts, frame.time_base = count, 1 / Fraction(film.index.fps).limit_denominator(1000)
        if first is None:
            first, graph = frame, _graph(frame, fps, size, pixels)
        elif (frame.width, frame.height, frame.format.name) != (first.width, first.height, first.format.name):
            frame = frame.reformat(first.width, first.height, first.format.name)
        graph.push(frame)
        yield from _pulled(graph)
    film.check_decoded(count)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)


def _graph(frame: Any, fps: Fraction, size: int, pixels: str) -> Any:
    import av

    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    turns = {90: ["2"], -90: ["1"], 180: ["1", "1"], -180: ["1", "1"]}.get(frame.rotation, [])
    nodes = [source, *(graph.add("transpose", turn) for turn in turns)]
    nodes += [graph.add("fps", str(fps)), graph.add("scale", scale_filter(size)), graph.add("format", pixels)]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph


def _pulled(graph: Any) -> Iterable[Any]:
    import av

    while True:
        try:
            frame = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        frame.pict_type = 0  # the source's key frames are none of the output's business
        yield frame


def _copied_sound(stack: ExitStack, source: Path, written: Any) -> Iterable[Any]:
    """Packets of the film's sound for the output; the track is added at once."""
    import av

    film = stack.enter_context(av.open(str(source.absolute()), metadata_errors="ignore"))
    if not film.streams.audio:
        return ()
    track = film.streams.audio[0]
    copy = written.add_stream_from_template(track)

    def packets() -> Iterable[Any]:
        for packet in film.demux(track):
            if packet.dts is not None:
                packet.stream = copy
                yield packet

    return packets()


def _coder(coders: dict[str, tuple[str, str]], output: Path) -> tuple[str, str]:
    coder = coders.get(output.suffix.lower().lstrip("."))
    if coder is None:
        ending = output.suffix or "files without ending"
        raise Failure(f"{ending} is not written without ffmpeg: install it, or choose --format {next(iter(coders))}")
    return coder
