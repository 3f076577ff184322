"""One-number checkpoints, a command that scores them, and ``unival merge`` on both."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from unival_cli.main import main
from unival_plugin.checkpoints.reading import read_checkpoint

# Prints the end of a validation whose score is how near the checkpoint's only number is to a target (0 is best), and
# notes that it ran. It reads the number out of the zip file: importing torch takes seconds.
EVALUATE = """
import pathlib, struct, sys, zipfile
checkpoint, target, calls = sys.argv[1], float(sys.argv[2]), pathlib.Path(sys.argv[3])
with zipfile.ZipFile(checkpoint) as file:
    (name,) = [name for name in file.namelist() if name.endswith("/data/0")]
    (weight,) = struct.unpack("<f", file.read(name)[:4])
with calls.open("a") as file:
    print(f"{weight:g}", file=file)
print("2026-01-01 00:00:00 | INFO | valid | valid on 'valid' subset:      2 / 9 loss=9, near=9")
print(f"2026-01-01 00:00:01 | INFO | valid | valid on 'valid' subset | loss 1.5 | near {0 - abs(weight - target):g}")
"""


class Bench:
    """A folder with one-number checkpoints, and the command on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output, self.calls = folder, folder / "out", folder / "calls.txt"
        (folder / "evaluate.py").write_text(EVALUATE)

    def file(self, name: str, weight: float) -> str:
        path = self.folder / name
        torch.save({"model": {"w": torch.tensor([weight])}, "extra_state": {"epoch": 3}}, path)
        return str(path)

    def script(self, target: float) -> str:
        """A command that scores how near a checkpoint is to ``target``, as ``near``."""
        words = [sys.executable, self.folder / "evaluate.py", "{checkpoint}", target, self.calls]
        return " ".join(word if word == "{checkpoint}" else shlex.quote(str(word)) for word in words)

    def python(self, code: str) -> str:
        return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {{checkpoint}} {{output}}"

    def evaluated(self) -> list[float]:
        """The weights that were evaluated, in order."""
        return [float(line) for line in self.calls.read_text().split()] if self.calls.exists() else []

    def lines(self, name: str = "sweep.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.output / name).read_text().splitlines()]

    def sweep(self, *flags: str, at: str = "0:1:0.5", commands: dict[str, str] | None = None) -> int:
        """Sweeps from b (3) to a (1)."""
        files = [self.file("a.pt", 1.0), self.file("b.pt", 3.0)]
        given = {"one": self.script(1.0)} if commands is None else commands
        evaluate = [word for name, line in given.items() for word in ("--evaluate", f"{name}={line}")]
        metric = [word for name in given for word in ("--metric", f"{name}=near")]
        chosen = metric if "--metric" not in flags else []
        return main(["merge", *files, "--sweep", at, "--output", str(self.output), *evaluate, *chosen, *flags])

    def greedy(self, weights: list[float], *flags: str, target: float = 2.0) -> int:
        files = [self.file(f"f{number}.pt", weight) for number, weight in enumerate(weights)]
        evaluate = ["--evaluate", f"one={self.script(target)}", "--metric", "one=near"]
        return main(["merge", *files, "--greedy", "--output", str(self.output), *evaluate, *flags])


def weight_in(path: Path) -> float:
    return float(read_checkpoint(path)["model"]["w"])
