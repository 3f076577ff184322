"""``unival merge``: the command around the merging (see tests/checkpoints/test_averaging.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unival_cli import merge as command
from unival_cli import merge_sweep
from unival_cli.main import main
from unival_plugin.checkpoints.matching import MISSING
from unival_plugin.checkpoints.merge_methods import METHODS
from unival_plugin.checkpoints.merge_plan import SOURCES, MergePlan
from unival_plugin.checkpoints.reading import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two files of ones and threes, whose averages are ten times that, and a base of zeros."""
    for name, value in (("a", 1.0), ("b", 3.0), ("base", 0.0)):
        model = {"w": torch.full((2,), value), "n": torch.tensor(int(value))}
        extra = {"ema": {"w": model["w"] * 10}}
        torch.save({"model": model, "extra_state": extra}, tmp_path / f"{name}.pt")
    return [str(tmp_path / name) for name in ("a.pt", "b.pt")]


def weight(path: Path) -> list[float]:
    return read_checkpoint(path)["model"]["w"].tolist()


def test_the_default_is_the_mean(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["merge", *files, "--output", str(tmp_path / "out.pt")]) == 0
    assert weight(tmp_path / "out.pt") == [2.0, 2.0]
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.splitlines() == [
        f"{tmp_path / 'out.pt'}: 1 tensors merged, 1 that are no real numbers copied; averages of weights: merged"
    ]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--coefficients", "0.75,0.25"], 1.5),
        (["--coefficients=-1,2"], 5.0),
        (["--ema"], 20.0),
        (["--method", "task_arithmetic", "--base", "base.pt", "--coefficients", "1,1"], 4.0),
        (["--method", "ties", "--base", "base.pt", "--density", "1"], 2.0),
        (["--method", "dare", "--base", "base.pt", "--density", "1", "--seed", "4"], 2.0),
        (["--method", "slerp", "--coefficients", "0,1"], 3.0),
        (["--skip", "w"], 1.0),
        (["--missing", "renormalise"], 2.0),
        (["--missing", "running", "--coefficients", "1,1"], 4.0),
    ],
)
def test_flags_reach_the_merging(
    files: list[str], tmp_path: Path, flags: list[str], expected: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["merge", *files, "--output", "out.pt", *flags]) == 0
    assert weight(tmp_path / "out.pt") == [expected, expected]


def test_notes_are_printed(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["merge", *files, "--output", str(tmp_path / "out.pt"), "--coefficients", "1,1"]) == 0
    assert "the coefficients sum up to 2" in capsys.readouterr().err


def test_mistakes_are_one_line(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = ["--output", str(tmp_path / "out.pt")]
    torch.save({"model": {"w": torch.ones(3), "n": torch.tensor(1)}}, tmp_path / "other.pt")
    (tmp_path / "there.pt").touch()
    for arguments in (
        [*files, *output, "--coefficients", "1"],
        [*files, *output, "--coefficients", "nan,1"],
        [*files, *output, "--method", "ties"],
        [files[0], str(tmp_path / "gone.pt"), *output],
        [files[0], str(tmp_path / "other.pt"), *output],
        [*files, "--output", files[1]],
        [*files, "--output", str(tmp_path / "there.pt")],
        [*files, *output, "--evaluate", "a=true"],
    ):
        assert main(["merge", *arguments]) == 2, arguments
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("unival: error: ")
    assert not (tmp_path / "out.pt").exists() and (tmp_path / "there.pt").read_bytes() == b""
    assert main(["merge", *files, "--output", str(tmp_path / "there.pt"), "--overwrite"]) == 0


def test_sweeps_get_the_plan(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given: list[Any] = []
    monkeypatch.setattr(merge_sweep, "run", lambda args, plan: given.append(plan) or 0)
    assert main(["merge", *files, "--output", str(tmp_path / "sweep"), "--sweep", "0,1", "--ema"]) == 0
    assert given == [MergePlan(tuple(map(Path, files)), source="ema")]


def test_the_command_knows_all_methods_and_rules():
    assert set(command.METHODS) == set(METHODS) and command.MISSING == MISSING and "ema" in SOURCES
    assert all(f"\n  {name} " in command.EPILOG for name in METHODS)
    assert all(method.paper.split(", ")[-1].split()[-1] in command.EPILOG for method in METHODS.values())


def test_help_imports_nothing_heavy():
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from unival_cli.main import main
try:
    main(["merge", "--help"])
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {{"torch", "fairseq", "numpy", "PIL", "unival_plugin", "tqdm", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Ilharco" in done.stdout
