"""How fast are the rows of a large file indexed, shuffled and validated, and in how much memory?

Makes a caption file with small pictures and runs ``unival data index``, ``shuffle`` and ``validate`` on it, each as a
process of its own. Memory is what is resident at most, of the largest process and of all processes of a command
together, in which what they share counts several times; only Linux tells. On a busy machine compare the seconds of the
processors. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("a", "red", "green", "small", "large", "cat", "dog", "bus", "tree", "on", "under", "two", "runs", "sleeps")
POLL_SECONDS = 0.05


def make_pictures(number: int, side: int, rng: np.random.Generator) -> list[bytes]:
    """JPEG files with base64 around them."""
    pictures = []
    for _ in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        pictures.append(base64.b64encode(buffer.getvalue()))
    return pictures


def write_file(path: Path, rows: int, side: int, seed: int) -> None:
    """Columns id, image id, caption, objects, image."""
    rng = np.random.default_rng(seed)
    pictures = make_pictures(min(rows, 997), side, rng)
    captions = [" ".join(rng.choice(WORDS, size)).encode() for size in rng.integers(4, 16, 1009)]
    with path.open("wb") as file:
        for row in range(rows):
            picture, caption = pictures[row % len(pictures)], captions[row % len(captions)]
            file.write(b"%d\timage_%d\t%s\t\t%s\n" % (row, row, caption, picture))


def family(pid: int) -> Iterator[int]:
    """A process and all that it started, as far as they still run."""
    yield pid
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from family(child)


def resident(pid: int) -> tuple[int, int]:
    """Bytes now and at most so far; 0 for a process that has ended."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(status["VmRSS"].split()[0]) * 1024, int(status["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0, 0


def measure(*arguments: str) -> dict[str, Any]:
    """Seconds, those of the processors, and peak memory of ``unival data ...``."""
    start, before = time.perf_counter(), os.times()
    command = [sys.executable, "-m", "unival_cli", "data", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    largest = together = 0
    while process.poll() is None:
        sizes = [resident(pid) for pid in family(process.pid)]
        largest = max(largest, *(most for _, most in sizes))
        together = max(together, sum(now for now, _ in sizes))
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - start
    if process.returncode:
        _, errors = process.communicate()
        raise SystemExit(f"{' '.join(arguments)} failed: {errors.decode(errors='replace')}")
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    memory = {"largest_MB": megabytes(largest), "together_MB": megabytes(together)}
    return {"seconds": round(seconds, 2), "processor_seconds": round(processor, 2), **memory}


def megabytes(size: int) -> float | None:
    """MB of 10^6 bytes; None where nothing could be measured."""
    return round(size / 1e6, 1) if size else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=32, help="side of the pictures in pixels (32: about 1 kB a row)")
    parser.add_argument("--copies", type=int, default=1, help="copies that are shuffled")
    parser.add_argument("--memory", type=int, default=128, help="what shuffle may hold of the file, in MB")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes of validate")
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made (default: the usual place)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        source, output = Path(folder) / "rows.tsv", Path(folder) / "shuffled.tsv"
        write_file(source, args.rows, args.side, args.seed)
        size = source.stat().st_size
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        print(json.dumps({"machine": machine, "python": platform.python_version(), "file_MB": round(size / 1e6, 1)}))
        shuffle = ["shuffle", str(source), str(output), "--copies", str(args.copies), "--memory", str(args.memory)]
        commands = {"index": ["index", str(source)], "shuffle": shuffle}
        commands |= {f"validate, {n} workers": ["validate", str(source), "--workers", str(n)] for n in args.workers}
        for question, command in commands.items():
            found = measure(*command)
            rows = args.rows * (args.copies if question == "shuffle" else 1)
            speed = round(rows / found["seconds"])
            print(json.dumps({"question": question, "rows": rows, "rows_per_s": speed, **found}), flush=True)


if __name__ == "__main__":
    main()
