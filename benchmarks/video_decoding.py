"""How fast do PyAV, decord and torchcodec get 8 or 16 frames of a film, and does memory grow over many films?

Films are made first: H.264 with a key frame every 12 and every 250 frames, and VP9. Every way opens the file, finds the
middle frames of equal parts and gives them as one tensor, in turns in this process; the numbers drawn into the frames
are compared. Memory: the same over 2,000 films, what the process holds at a tenth of them and at the end. Prints JSON
lines.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import CLOCKS, first_line, in_own_process, in_turns, ratio, report, report_machine, resident_bytes, spread
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from made_films import BITS, draw, numbers, write_film

from unival_plugin.data.video import FrameSampling, read_frames

Read = Callable[[Path, int], Tensor]

VP9 = {"deadline": "realtime", "cpu-used": "8"}
FILMS: dict[str, dict[str, Any]] = {
    "h264_short_gop.mp4": {"gop": 12},
    "h264_long_gop.mp4": {"gop": 250},
    "vp9.webm": {"codec": "libvpx-vp9", "gop": 128, "options": VP9},
}


def make_films(folder: Path, frames: int, width: int, height: int) -> list[Path]:
    """Films of moving noise below the drawn number, so that frames differ as in real ones."""
    noise = torch.randint(0, 256, (2 * height, 2 * width, 3), dtype=torch.uint8, generator=torch.manual_seed(1))
    smooth = torch.nn.functional.avg_pool2d(noise.permute(2, 0, 1).float(), 9, 1, 4).permute(1, 2, 0).byte().numpy()

    def picture(number: int) -> Any:
        shown = draw(number, width, height)
        row, column = number % height, 2 * number % width
        shown[height // 2 :] = smooth[row : row + height - height // 2, column : column + width]
        return shown

    return [write_film(folder / name, frames=frames, picture=picture, **options) for name, options in FILMS.items()]


def ours(reader: str) -> Read:
    return lambda path, count: read_frames(path, FrameSampling(count, "middle"), "film", reader=reader)


def decord_alone(path: Path, count: int) -> Tensor:
    """decord as UnIVAL calls it, without looking at the file first."""
    import decord

    from unival_plugin.data.video import frame_indices

    reader = decord.VideoReader(str(path), num_threads=1)
    chosen = frame_indices(len(reader), FrameSampling(count, "middle"), reader.get_avg_fps())
    return torch.from_numpy(reader.get_batch(chosen).asnumpy()).permute(0, 3, 1, 2)


def torchcodec(path: Path, count: int) -> Tensor:
    from torchcodec.decoders import VideoDecoder

    from unival_plugin.data.video import frame_indices

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode="exact")
    length, fps = len(decoder), decoder.metadata.average_fps or 1.0
    return decoder.get_frames_at(frame_indices(length, FrameSampling(count, "middle"), fps)).data


# decord: after PyAV has looked at the file, as the package reads with it
WAYS: dict[str, Read] = {
    "pyav": ours("pyav"),
    "decord": ours("decord"),
    "decord_alone": decord_alone,
    "torchcodec": torchcodec,
}


def ways_that_run(names: list[str], path: Path) -> dict[str, Read]:
    """Those whose library loads; a line says why others do not."""
    running = {}
    for name in names:
        try:
            WAYS[name](path, 1)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            report(left_out=name, why=first_line(error))
        else:
            running[name] = WAYS[name]
    return running


def measure_speed(path: Path, count: int, ways: dict[str, Read], rounds: int, repeats: int, clock: str) -> None:
    def timed(read: Read) -> Callable[[], float]:
        def run() -> float:
            start = CLOCKS[clock]()
            for _ in range(repeats):
                read(path, count)
            return (CLOCKS[clock]() - start) / repeats * 1000

        return run

    shown = {name: numbers(read(path, count)) for name, read in ways.items()}
    milliseconds = in_turns(rounds, {name: timed(read) for name, read in ways.items()})
    report(
        question="speed",
        film=path.name,
        frames=count,
        milliseconds={name: spread(values, 2) for name, values in milliseconds.items()},
        by_pyav={name: ratio(values, milliseconds["pyav"]) for name, values in milliseconds.items() if name != "pyav"},
        same_frames=all(value == shown["pyav"] for value in shown.values()),
    )


def grown_memory(films: list[Path], clips: int, name: str) -> dict[str, float]:
    """Resident MB after a tenth of the clips and after all."""
    torch.set_num_threads(1)
    early = 0
    for index in range(clips):
        WAYS[name](films[index % len(films)], 8)
        if index == clips // 10:
            early = resident_bytes("VmRSS")
    end = resident_bytes("VmRSS")
    return {"early_MB": round(early / 2**20, 1), "end_MB": round(end / 2**20, 1), "grown": round(end / early, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16], help="wanted frames")
    parser.add_argument("--length", type=int, default=300, help=f"frames of a film, below {2**BITS}")
    parser.add_argument("--size", type=int, nargs=2, default=[320, 240], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=5, help="readings a round")
    parser.add_argument("--clips", type=int, default=2000, help="films of the question of memory; 0: leave it out")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    args = parser.parse_args()
    torch.set_num_threads(1)
    report_machine(args.clock)
    with tempfile.TemporaryDirectory() as folder:
        films = make_films(Path(folder), args.length, *args.size)
        ways = ways_that_run(list(dict.fromkeys(["pyav", *args.ways])), films[0])
        for film in films:
            for count in args.frames:
                measure_speed(film, count, ways, args.rounds, args.repeats, args.clock)
        for name in ways if args.clips else ():
            memory = in_own_process(grown_memory, films, args.clips, name)
            report(question="memory", way=name, clips=args.clips, **memory)


if __name__ == "__main__":
    main()
