"""How much time and memory does merging checkpoints take, against loading all of them?

Ours (`unival merge`: mapped files, a tensor at a time, SHA-256 of the files written into the result) and the plain way
(torch.load of every file, sum of dictionaries, torch.save) run in turns on made files, each run in a process of its
own, imports not counted. Memory is the most that the process holds; `above_idle` is that without what the imports
hold. `results_differ` is the largest difference of the two results. Files lie in --folder, whose disk takes part.
Prints JSON lines.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from common import in_own_process, ratio, report, report_machine, resident_bytes, spread, timed

TABLE_SHARE = 0.2
"""Part of the parameters in the largest tensor: the words of UnIVAL's base model."""
WIDTH = 768


def make_file(path: Path, parameters: int, seed: int) -> None:
    """A checkpoint of about so many fp32 parameters: a large table, matrices and vectors."""
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, int(TABLE_SHARE * parameters) // WIDTH)
    model = {"encoder.embed_tokens.weight": torch.randn(rows, WIDTH, generator=generator)}
    layers = max(1, (parameters - rows * WIDTH) // (WIDTH * (WIDTH + 1)))
    for i in range(layers):
        model[f"layers.{i}.weight"] = torch.randn(WIDTH, WIDTH, generator=generator)
        model[f"layers.{i}.bias"] = torch.randn(WIDTH, generator=generator)
    torch.save({"model": model, "extra_state": {"epoch": 1}}, path)


def ours(paths: list[Path], output: Path) -> None:
    from unival_plugin.checkpoints.averaging import MergePlan, merge

    merge(MergePlan(tuple(paths)), output, progress=False)


def plain(paths: list[Path], output: Path) -> None:
    states = [torch.load(path, map_location="cpu", weights_only=True) for path in paths]
    share = 1 / len(states)
    model = {key: sum(share * state["model"][key] for state in states) for key in states[0]["model"]}
    torch.save({**states[0], "model": model}, output)


WAYS: dict[str, Callable[[list[Path], Path], None]] = {"ours": ours, "plain": plain}


def measured(way: str, paths: list[Path], output: Path, threads: int, clock: str) -> dict[str, float]:
    """Seconds and GB of one merge, in this process."""
    torch.set_num_threads(threads)
    import unival_plugin.checkpoints.averaging  # noqa: F401  (not counted)

    idle = resident_bytes()
    seconds = timed(lambda: WAYS[way](paths, output), clock)
    peak = resident_bytes()
    return {"seconds": seconds, "peak_GB": peak / 1e9, "above_idle_GB": (peak - idle) / 1e9}


def difference(folder: Path) -> float:
    """The largest difference between the results of all ways."""
    one, two = (torch.load(folder / f"{way}.pt", mmap=True, weights_only=True)["model"] for way in WAYS)
    return max(float((one[key] - two[key]).abs().max()) for key in two)


def many_files(folder: Path, paths: list[Path], count: int) -> list[Path]:
    """``count`` names for the same files: what they hold does not matter for memory."""
    names = [folder / f"many{i}.pt" for i in range(count)]
    for i, name in enumerate(names):
        os.link(paths[i % len(paths)], name)
    return names


def compare(folder: Path, paths: list[Path], args: argparse.Namespace) -> None:
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for index in range(args.rounds + 1):
        for way in list(WAYS)[:: 1 if index % 2 else -1]:
            runs[way].append(in_own_process(measured, way, paths, folder / f"{way}.pt", args.threads, args.clock))
    kept = {way: values[1:] for way, values in runs.items()}  # the first round warms the files

    def column(name: str) -> dict[str, list[float]]:
        return {way: [run[name] for run in values] for way, values in kept.items()}

    seconds, peaks, above = column("seconds"), column("peak_GB"), column("above_idle_GB")
    report(
        question="two files",
        parameters=args.parameters,
        seconds={way: spread(values) for way, values in seconds.items()},
        plain_by_ours=ratio(seconds["plain"], seconds["ours"]),
        peak_GB={way: spread(values) for way, values in peaks.items()},
        above_idle_GB={way: spread(values) for way, values in above.items()},
        ours_of_plain_peak=ratio(peaks["ours"], peaks["plain"]),
        results_differ=difference(folder),
    )


def compare_counts(folder: Path, paths: list[Path], args: argparse.Namespace) -> None:
    counts: dict[str, dict[str, Any]] = {}
    for names in (paths, many_files(folder, paths, args.many)):
        run = in_own_process(measured, "ours", names, folder / "ours.pt", args.threads, args.clock)
        counts[str(len(names))] = {name: round(value, 3) for name, value in run.items()}
    report(question="many files", files=counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=250_000_000, help="of each made file (fp32)")
    parser.add_argument("--many", type=int, default=10, help="files whose memory is compared with that of two")
    parser.add_argument("--folder", type=Path, help="where the made files lie (default: the temporary folder)")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds; every way runs once a round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: seconds of all threads")
    args = parser.parse_args()
    report_machine(args.clock)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        paths = [folder / "one.pt", folder / "two.pt"]
        for seed, path in enumerate(paths):
            make_file(path, args.parameters, seed)
        compare(folder, paths, args)
        compare_counts(folder, paths, args)


if __name__ == "__main__":
    main()
