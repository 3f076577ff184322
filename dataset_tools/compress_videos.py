"""Make films (or sounds, or pictures) small before training: shorter side 224 pixels, 3 frames a second.

    python dataset_tools/compress_videos.py --input-root data/msrvtt/raw --output-root data/msrvtt/films

writes every file below the input folder under the same name below the output folder. It uses ffmpeg where that is
installed and PyAV otherwise, several files at a time. Outputs appear under their names only when they are complete, so
that the same command again goes on where it was stopped. Sources that cannot be converted are listed with the reason in
compress_failures.tsv in the output folder, and the exit code is 1. (The original put a copy of the source in their
place.) File names from lists are taken as paths below the input folder and never reach ffmpeg as options or addresses.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, Optional

from compress_pyav import Failure, convert_film, convert_sound, open_film, scale_filter
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.light import light

FAILURES = "compress_failures.tsv"
ENDINGS = {
    "video": ["mp4", "m4v", "mov", "mkv", "webm", "avi", "gif", "mpg", "mpeg", "ts", "flv", "wmv", "3gp", "ogv"],
    "audio": ["wav", "flac", "mp3", "ogg", "opus", "m4a", "aac"],
    "image": ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif"],
}
"""What is taken from the input folder when no list names the files."""


@dataclass(frozen=True)
class Plan:
    """How to convert; the fields are the flags of the command."""

    size: int = 224
    fps: Fraction = Fraction(3)
    file_type: str = "video"
    keep_audio: bool = False
    only_audio: bool = False
    sample_rate: int = 48000
    ffmpeg: Optional[str] = None
    timeout: float = 3600.0

    @property
    def filters(self) -> str:
        """ffmpeg's filters: fewer frames, then shorter side ``size`` and the other one even."""
        return f"fps={self.fps},scale={scale_filter(self.size)}"


@dataclass(frozen=True)
class Job:
    """One file to convert."""

    name: str
    source: Path
    output: Path


# -------------------------------------------------------------------------------- which files


def find_jobs(
    names: Iterable[str], input_root: Path, output_root: Path, ending: Optional[str]
) -> tuple[list[Job], list[tuple[str, str]]]:
    """Files to convert, and names that cannot be taken, with the reason."""
    jobs: dict[Path, Job] = {}
    refused = []
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
            refused.append((name, "is no path below the input folder"))
            continue
        output = output_root.joinpath(*parts)
        output = output.with_suffix(f".{ending}") if ending else output
        job = Job(name, input_root.joinpath(*parts), output)
        if output in jobs:
            refused.append((name, f"would be written to the same file as {jobs[output].name}"))
        else:
            jobs[output] = job
    return list(jobs.values()), refused


def names_below(folder: Path, file_type: str, outputs: Path) -> list[str]:
    """Files below the folder with a usual ending, sorted, without those below ``outputs``."""
    endings = {f".{ending}" for ending in ENDINGS[file_type]}
    files = (path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    sources = (path for path in files if not path.name.startswith(".") and outputs not in path.parents)
    return sorted(path.relative_to(folder).as_posix() for path in sources)


# -------------------------------------------------------------------------------- one file


def convert(job: Job, plan: Plan) -> bool:
    """Writes the output; False if it is there already.

    Raises:
        Failure: one line with the reason.
    """
    if job.output.is_file() and job.output.stat().st_size > 0:
        return False
    if not job.source.is_file():
        raise Failure("is no file")
    job.output.parent.mkdir(parents=True, exist_ok=True)
    # the ending stays: it tells the format
    scratch = job.output.with_name(f".{job.output.stem}.tmp{job.output.suffix}")
    try:
        _convert_to(job.source, scratch, plan)
        if not scratch.is_file() or scratch.stat().st_size == 0:
            raise Failure("nothing could be converted")
        scratch.replace(job.output)
    except (OSError, ValueError) as error:
        raise Failure(" ".join(str(error).split())) from error
    finally:
        scratch.unlink(missing_ok=True)
    return True


def _convert_to(source: Path, scratch: Path, plan: Plan) -> None:
    sound = plan.file_type == "audio" or plan.only_audio
    if plan.file_type == "image":
        _shrink_picture(source, scratch, plan.size)
    elif plan.ffmpeg is not None:
        if not sound and find_spec("av") is not None:
            open_film(source).close()  # ffmpeg takes what is there of a film that was cut off
        _run(ffmpeg_command(plan.ffmpeg, source, scratch, plan), plan.timeout)
    elif sound:
        convert_sound(source, scratch, None if plan.only_audio else plan.sample_rate)
    else:
        convert_film(source, scratch, plan.fps, plan.size, plan.keep_audio)


def ffmpeg_command(program: str, source: Path, output: Path, plan: Plan) -> list[str]:
    """Arguments of ffmpeg. ``file:`` before absolute paths keeps names from being options, patterns or addresses."""
    command = [program, "-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
    command += ["-abort_on", "empty_output", "-max_error_rate", "0.1"]
    command += ["-protocol_whitelist", "file", "-i", f"file:{source.absolute()}", "-map_metadata", "-1"]
    if plan.file_type == "audio":
        command += ["-map", "0:a:0", "-ar", str(plan.sample_rate), "-ac", "1"]
    elif plan.only_audio:
        command += ["-map", "0:a:0"]
    else:
        command += ["-map", "0:v:0", "-filter:v", plan.filters, "-threads", "1"]
        command += ["-map", "0:a:0?"] if plan.keep_audio else ["-an"]
        if output.suffix.lower() != ".gif":
            command += ["-pix_fmt", "yuv420p"]
    return [*command, f"file:{output.absolute()}"]


def _run(command: list[str], timeout: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failure(f"took more than {timeout:g} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Failure(f"ffmpeg: {lines[-1]}")


def _shrink_picture(source: Path, scratch: Path, size: int) -> None:
    pictures = light("data.image")
    image = pictures.decode_image(source.read_bytes(), str(source))
    width, height = pictures.resized_shape(image.width, image.height, size, sys.maxsize)
    image.resize((width, height)).save(scratch)


# -------------------------------------------------------------------------------- all files


def convert_all(jobs: Sequence[Job], plan: Plan, workers: int) -> tuple[int, int, list[tuple[str, str]]]:
    """Converts in parallel; returns how many were written, how many were there, and failures with their reasons."""
    written = there = 0
    failed = []
    # Threads do: ffmpeg is a process of its own, PyAV and Pillow let other threads run while they work.
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(convert, job, plan): job for job in jobs}
        try:
            for future in tqdm(as_completed(futures), total=len(jobs), unit="file", disable=None):
                try:
                    done = future.result()
                except Failure as failure:
                    failed.append((futures[future].name, str(failure)))
                else:
                    written, there = written + done, there + (not done)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return written, there, failed


def write_failures(path: Path, failed: Sequence[tuple[str, str]]) -> None:
    """One line a source: its name, a tab, the reason; no file where nothing failed."""
    if not failed:
        path.unlink(missing_ok=True)
        return
    scratch = path.with_name(f".{path.name}.tmp")
    lines = ("\t".join(" ".join(text.split()) for text in line) for line in sorted(failed))
    scratch.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    scratch.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add(name: str, **options: Any) -> None:
        parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}", **options)

    add("input-root", type=Path, required=True, help="folder of the sources")
    add(
        "input-file-list-path",
        type=Path,
        help="text file: a path below it a line (default: all files with a usual ending)",
    )
    add("output-root", type=Path, required=True, help="folder of the outputs")
    parser.add_argument("--size", type=int, default=224, help="shorter side in pixels (default: 224)")
    parser.add_argument("--fps", type=_rate, default=Fraction(3), help="frames a second of films (default: 3)")
    add("num-workers", type=int, default=os.cpu_count() or 1, help="files at a time (default: one a core)")
    add("file-type", choices=list(ENDINGS), default="video", help="what the sources are (default: video)")
    add("keep-audio", action="store_true", help="films keep their sound")
    add("only-audio", action="store_true", help="take only the sound of films, as it is (default format: wav)")
    add("sample-rate", type=int, default=48000, help="samples a second of sounds, which become mono (default: 48000)")
    parser.add_argument("--format", help="ending of the outputs, such as mp4 (default: the source's)")
    parser.add_argument(
        "--tool", choices=["auto", "ffmpeg", "pyav"], default="auto", help="default: ffmpeg if installed"
    )
    parser.add_argument(
        "--timeout", type=float, default=3600, help="seconds that ffmpeg may take for a file (default: 3600)"
    )
    return parser


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError(text) from None


def _plan(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Plan:
    if min(args.size, args.fps, args.num_workers, args.sample_rate, args.timeout) <= 0:
        parser.error("--size, --fps, --num-workers, --sample-rate and --timeout must be positive")
    if args.file_type == "video" and args.size % 2:
        parser.error("--size must be even for films")
    if not args.input_root.is_dir():
        parser.error(f"--input-root {args.input_root} is no folder")
    if args.input_root.resolve() == args.output_root.resolve():
        parser.error("--output-root must be another folder than --input-root")
    if args.format is not None and not args.format.isalnum():
        parser.error("--format is an ending, such as mp4")
    if (args.only_audio or args.keep_audio) and args.file_type != "video":
        parser.error("--only-audio and --keep-audio are for --file-type video")
    ffmpeg = None if args.tool == "pyav" else shutil.which("ffmpeg")
    if args.tool == "ffmpeg" and ffmpeg is None:
        parser.error("ffmpeg is not installed; use --tool pyav")
    settings = {name: getattr(args, name) for name in ("size", "fps", "file_type", "keep_audio", "only_audio")}
    return Plan(**settings, sample_rate=args.sample_rate, ffmpeg=ffmpeg, timeout=args.timeout)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    plan = _plan(parser, args)
    ending = args.format or ("wav" if args.only_audio else None)
    try:
        if args.input_file_list_path is None:
            names = names_below(args.input_root, args.file_type, args.output_root)
        else:
            lines = args.input_file_list_path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            names = [line.strip() for line in lines if line.strip()]
        args.output_root.mkdir(parents=True, exist_ok=True)
        jobs, refused = find_jobs(dict.fromkeys(names), args.input_root, args.output_root, ending)
        written, there, failed = convert_all(jobs, plan, args.num_workers)
        failed += refused
        write_failures(args.output_root / FAILURES, failed)
    except OSError as error:
        print(f"compress_videos.py: error: {error}", file=sys.stderr)
        return 2
    see = f" (reasons in {args.output_root / FAILURES})" if failed else ""
    total = len(jobs) + len(refused)
    print(f"{total} files: {written} written, {there} there already, {len(failed)} failed{see}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
