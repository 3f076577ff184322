"""Command lines of the real programs with a very small network, how to run and kill them, and what they leave."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "unival_plugin"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}
SEARCH = {"beam": 2, "max_len_b": 16}
LIMIT = 240
"""Seconds after which a program is taken for stuck."""

NETWORK = shlex.split(
    "--arch unival_tiny --encoder-embed-dim 32 --encoder-ffn-embed-dim 64 --encoder-layers 1 --decoder-layers 1 "
    "--encoder-attention-heads 2 --decoder-attention-heads 2 --code-image-size 32 --image-bucket-size 4 "
    "--token-bucket-size 16"
)
OPTIMISATION = shlex.split(
    "--criterion adjust_label_smoothed_cross_entropy --label-smoothing 0.1 --batch-size 4 --optimizer adam "
    "--clip-norm 1.0 --lr 1e-2 --lr-scheduler polynomial_decay_ratio --warmup-ratio 0.1 --no-epoch-checkpoints "
    "--log-interval 1 --log-format json --num-workers 0"
)


@dataclass(frozen=True)
class Outcome:
    """How a program ended and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """Everything printed, for messages of failed assertions."""
        return f"exit code {self.code}\n{self.stdout[-6000:]}\n{self.stderr[-6000:]}"

    def logged(self, tag: str) -> list[dict[str, Any]]:
        """The JSON records that fairseq logged under ``tag`` ("train", "train_inner", "valid"), in order."""
        return [json.loads(record) for record in re.findall(rf"\| {tag} \| (\{{.*\}})", self.stdout + self.stderr)]

    def last(self, tag: str, name: str) -> str:
        """The last logged value of a metric, as printed."""
        return str(self.logged(tag)[-1][name])

    def complaint(self) -> str:
        """The one line on standard error that a user's mistake gives; fails when there is a traceback or more lines."""
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        assert self.code != 0, self.text
        assert "Traceback" not in self.stdout + self.stderr, self.text
        assert len(lines) == 1, self.text
        return lines[0]


@dataclass(frozen=True)
class Data:
    """A digits data set (see the fixture ``digits``) or one made of it."""

    folder: Path

    def file(self, name: str) -> Path:
        """One of its files."""
        return self.folder / name

    def flags(self, *names: str) -> list[str]:
        """Files and the flags that say how they are read."""
        return [
            ",".join(str(self.file(name)) for name in names or ("train_1.tsv", "train_2.tsv", "val.tsv")),
            *f"--user-dir {PLUGIN} --task caption --selected-cols 0,4,2 --patch-image-size 32".split(),
            *f"--bpe sentencepiece --sentencepiece-model {self.file('digits.model')}".split(),
            *shlex.split("--code-dict-size 8 --num-bins 8 --max-source-positions 32 --max-target-positions 64"),
        ]


def program(name: str) -> str:
    """Path of a console script that belongs to this Python."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert path, f"{name} is not installed"
    return path


def train(data: Data, save_dir: Path, *more: str, files: tuple[str, ...] = ()) -> list[str]:
    """A fairseq-train command; later flags replace earlier ones."""
    return [program("fairseq-train"), *data.flags(*files), *NETWORK, *OPTIMISATION, "--save-dir", str(save_dir), *more]


def validate(data: Data, checkpoint: Path, *more: str) -> list[str]:
    """A fairseq-validate command on ``val.tsv``."""
    plain = shlex.split("--valid-subset valid --batch-size 4 --num-workers 0 --log-format json")
    return [program("fairseq-validate"), *data.flags("val.tsv"), "--path", str(checkpoint), *plain, *more]


def generate(data: Data, checkpoint: Path, results: Path, *more: str) -> list[str]:
    """A fairseq-generate command on ``val.tsv`` with the search of validation."""
    search = f"--beam {SEARCH['beam']} --max-len-a 0 --max-len-b {SEARCH['max_len_b']}".split()
    plain = shlex.split("--gen-subset valid --batch-size 4 --num-workers 0 --scoring caption")
    paths = ["--path", str(checkpoint), "--results-path", str(results)]
    return [program("fairseq-generate"), *data.flags("val.tsv"), *paths, *plain, *search, *more]


def run(command: list[str], cwd: Path | None = None, **environment: str) -> Outcome:
    """Runs a program to its end, which must come within the time limit."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, cwd=cwd, env={**ENVIRONMENT, **environment}
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def succeed(command: list[str], cwd: Path | None = None, **environment: str) -> Outcome:
    """As :func:`run`; the program must end well."""
    outcome = run(command, cwd, **environment)
    assert outcome.code == 0, outcome.text
    return outcome


def together(*commands: list[str]) -> list[Outcome]:
    """As :func:`succeed` for programs that do not depend on each other, two at a time."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(succeed, commands))


def kill_when(command: list[str], moment: Callable[[str], bool]) -> Outcome:
    """Runs a program and kills it, with all its workers, as soon as ``moment`` holds for its output so far.

    The program must not have ended before; ``moment`` is asked about every millisecond.
    """
    log = Path(command[command.index("--save-dir") + 1]).with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True
        )
        try:
            for text in _growing(log, process):
                if moment(text):
                    break
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = log.read_text()
    log.unlink()
    assert process.returncode == -signal.SIGKILL, text
    return Outcome(process.returncode, text, "")


def _growing(log: Path, process: subprocess.Popen[bytes]) -> Iterator[str]:
    end = time.monotonic() + LIMIT
    while process.poll() is None:
        assert time.monotonic() < end, log.read_text()
        yield log.read_text()
        time.sleep(0.001)
    raise AssertionError(f"the program ended before it could be killed: {log.read_text()}")


def update_logged(number: int) -> Callable[[str], bool]:
    """Moment at which update ``number`` has been made."""
    return lambda text: f'"num_updates": "{number}"' in text


def being_written(folder: Path, name: str, after: Callable[[str], bool]) -> Callable[[str], bool]:
    """Moment after ``after`` at which a checkpoint (``name`` may hold ``*``) is just being written."""
    return lambda text: after(text) and any(folder.glob(f"{name}.tmp"))


def checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint file, read safely."""
    return torch.load(path, map_location="cpu", weights_only=True)


def differing(first: Any, second: Any, name: str = "") -> list[str]:
    """Names of the entries in which two nested structures of tensors are not the same bit for bit."""
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) and first.dtype == second.dtype else [name]
    if isinstance(first, dict):
        assert first.keys() == second.keys(), (name, first.keys() ^ second.keys())
        return [found for key in first for found in differing(first[key], second[key], f"{name}.{key}")]
    if isinstance(first, (list, tuple)):
        return [
            found
            for i, (a, b) in enumerate(zip(first, second, strict=True))
            for found in differing(a, b, f"{name}[{i}]")
        ]
    return [] if first == second else [name]


Change = Callable[[int, list[bytes]], list[bytes]]


def copy_with(source: Path, target: Path, change: Change, rows: int | None = None) -> Path:
    """Copies the first ``rows`` rows of a table, with ``change(row number, cells)`` in place of a row's cells."""
    lines = source.read_bytes().splitlines()[:rows]
    target.write_bytes(b"".join(b"\t".join(change(i, line.split(b"\t"))) + b"\n" for i, line in enumerate(lines)))
    return target
