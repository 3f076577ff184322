"""Cut out of ActivityNet's films the clips that its captions describe, for the rows of "build.py activitynet-captions".

    python dataset_tools/compress_videos.py --input-root raw/activitynet/v1-3 --output-root raw/activitynet/films
    python dataset_tools/cut_clips.py --raw raw/activitynet

reads train.json, val_1.json and val_2.json, as far as they are there, and writes RAW/clips/FILM_START_END.mp4 (times in
seconds) with the frames that are shown between these times, at least one, without sound. Films lie anywhere below RAW;
if there is a folder RAW/films, only those in it are taken: make the films small first, as above, which also makes
cutting fast. Clips appear under their names when they are complete, and those that are there are left alone, so that
the same command again goes on where it was stopped. Films that are missing or cannot be read are listed with the reason
in clips/cut_failures.tsv, and the exit code is 1. Needs PyAV.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from compress_pyav import Failure, open_film
from compress_videos import write_failures
from public.films import ANET_FILES, CLIPS, clip_name, films_below, segments
from tqdm import tqdm

from unival_cli.light import light

FAILURES = "cut_failures.tsv"
UNIT = 1000
"""Of a second, in which a clip's frames are timed."""


@dataclass(frozen=True)
class Clip:
    """A part of a film, in seconds, and its file."""

    start: float
    end: float
    path: Path

    @property
    def scratch(self) -> Path:
        """The file while it is not complete."""
        return self.path.with_name(f".{self.path.stem}.tmp{self.path.suffix}")


class ClipWriter:
    """Encodes frames; the file stays open until ``close``."""

    def __init__(self, clip: Clip, frame: Any, fps: float) -> None:
        import av

        self.clip = clip
        self.file = av.open(str(clip.scratch.absolute()), "w")
        self.stream = self.file.add_stream("libx264", rate=Fraction(fps).limit_denominator(UNIT))
        self.stream.width, self.stream.height = (side // 2 * 2 for side in (frame.width, frame.height))
        self.stream.pix_fmt = "yuv420p"
        self.stream.time_base = self.stream.codec_context.time_base = Fraction(1, UNIT)
        self.stream.codec_context.thread_count = 1
        self.last = -1

    def write(self, frame: Any, seconds: float) -> None:
        """A frame that is shown from so many seconds after the clip's start."""
        picture = frame.reformat(self.stream.width, self.stream.height, "yuv420p")
        self.last = max(self.last + 1, round(UNIT * seconds))
        picture.pts, picture.time_base, picture.pict_type = self.last, Fraction(1, UNIT), 0
        self.file.mux(self.stream.encode(picture))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self.file.mux(self.stream.encode(None))
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()


# -------------------------------------------------------------------------------- one film


def cut(film: Path, clips: Sequence[Clip]) -> None:
    """Write the clips of a film; it is decoded once.

    Raises:
        Failure: one line with the reason. No clip has been written.
    """
    import av

    try:
        _cut(film, clips)
    except (OSError, ValueError, av.FFmpegError) as error:
        raise Failure(" ".join(str(error).removeprefix("source: ").split())) from error
    finally:
        for clip in clips:
            clip.scratch.unlink(missing_ok=True)


def _cut(path: Path, clips: Sequence[Clip]) -> None:
    writers: dict[Clip, ClipWriter] = {}
    with ExitStack() as stack:
        film = stack.enter_context(open_film(path))
        frames = 0
        for frames, (frame, start, end) in enumerate(_shown(film), start=1):  # noqa: B007
            for clip in clips:
                if clip.start < end and start < clip.end:
                    if clip not in writers:
                        writers[clip] = ClipWriter(clip, frame, film.index.fps)
                        stack.callback(writers[clip].close)
                    writers[clip].write(frame, max(0.0, start - clip.start))
        film.check_decoded(frames)
        for writer in writers.values():
            writer.finish()
    if len(writers) < len(clips):
        raise Failure("no frame can be decoded")
    for clip in clips:
        clip.scratch.replace(clip.path)


def _shown(film: Any) -> Iterator[tuple[Any, float, float]]:
    """Frames and when each is shown, in seconds; the first one from the beginning of time, the last one to its end."""
    first = previous = None
    start = -inf
    for number, frame in enumerate(film.decoded()):
        if frame.rotation:
            raise Failure("is to be turned when it is shown: make it upright with compress_videos.py first")
        time = number / film.index.fps if frame.pts is None else float(frame.pts * frame.time_base)
        first = time if first is None else first
        if previous is not None:
            yield previous, start, time - first
            start = time - first
        previous = frame
    if previous is not None:
        yield previous, start, inf


# -------------------------------------------------------------------------------- all films


def find_clips(raw: Path, sources: Iterable[str]) -> dict[str, list[Clip]]:
    """The clips of each film that are not there yet. Raises DataError if a file is not as published."""
    found: dict[str, dict[Path, Clip]] = {}
    for source in sources:
        for film, start, end, _, where in segments(raw, source):
            if start < end:
                path = raw / CLIPS / f"{clip_name(film, start, end, where)}.mp4"
                found.setdefault(film, {})[path] = Clip(start, end, path)
    return {film: [clip for path, clip in clips.items() if not path.is_file()] for film, clips in found.items()}


def cut_all(raw: Path, wanted: dict[str, list[Clip]], workers: int) -> list[tuple[str, str]]:
    """Cut in parallel; gives films that failed, with their reasons."""
    films, failed = films_below(raw), []
    open_clips = {film: clips for film, clips in wanted.items() if clips}
    with ThreadPoolExecutor(workers) as pool:  # PyAV lets other threads run while it works
        futures = {pool.submit(cut, films.find(film, film).path, clips): film for film, clips in open_clips.items()}
        try:
            for future in tqdm(as_completed(futures), total=len(futures), unit="film", disable=None):
                try:
                    future.result()
                except Failure as failure:
                    failed.append((futures[future], str(failure)))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="folder with the captions and films")
    parser.add_argument(
        "--num-workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="films at a time (default: one a core)",
    )
    args = parser.parse_args(argv)
    sources = [file for file in ANET_FILES.values() if (args.raw / file).is_file()]
    if not sources or args.num_workers < 1:
        names = ", ".join(ANET_FILES.values())
        parser.error(f"--raw must have one of {names} in it" if not sources else "--num-workers must be at least 1")
    try:
        folder = args.raw / CLIPS
        folder.mkdir(exist_ok=True)
        wanted = find_clips(args.raw, sources)
        failed = cut_all(args.raw, wanted, args.num_workers)
        write_failures(folder / FAILURES, failed)
    except (OSError, light("errors").DataError) as error:
        print(f"cut_clips.py: error: {error}", file=sys.stderr)
        return 2
    see = f" (reasons in {folder / FAILURES})" if failed else ""
    clips = sum(map(len, wanted.values()))
    lost = sum(len(wanted[film]) for film, _ in failed)
    print(f"{len(wanted)} films: {clips - lost} clips written; {len(failed)} films failed{see}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
