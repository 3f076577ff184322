"""The original script's parameters give the original's numbers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unival_plugin.checkpoints.reading import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "preprocess" / "average_save_models.py"
GOLDEN = json.loads((ROOT / "tests" / "golden" / "unival_tasks" / "weight_average.json").read_text())
THIRDS = [1 / 3, 1 / 3, 1 / 3]


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("average_save_models", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


def tensors(weights: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {key: torch.tensor(value) for key, value in weights.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The original's inputs."""
    for name in ("A", "A2", "B", "B2", "C"):
        golden = GOLDEN[f"{name}.pt"]
        extra = {"ema": tensors(golden["extra_state"]["ema"]), "epoch": golden["extra_state"]["epoch"]}
        content = {"model": tensors(golden["model"]), "extra": golden["extra"], "extra_state": extra}
        torch.save(content, tmp_path / f"{name}.pt")
    return tmp_path


def check(folder: Path, name: str) -> None:
    """All that the original wrote into a file, besides what it wrote of its own accident."""
    golden, ours = GOLDEN[name], read_checkpoint(folder / name)
    assert ours["extra"] == golden["extra"] and ours["extra_state"]["epoch"] == golden["extra_state"]["epoch"]
    for part, expected in (
        (ours["model"], golden["model"]),
        (ours["extra_state"]["ema"], golden["extra_state"]["ema"]),
    ):
        assert list(part) == list(expected)
        for key, values in expected.items():
            torch.testing.assert_close(part[key], torch.tensor(values), rtol=1e-6, atol=1e-6)


def paths(folder: Path, *names: str) -> list[Path]:
    return [folder / f"{name}.pt" for name in names]


def test_a_sum_of_many(folder: Path):
    script.average(paths(folder, "A", "B", "C"), THIRDS, 1, folder, "uni")
    check(folder, "uni.pt")


def test_skipped_names(folder: Path):
    script.average(paths(folder, "A", "B", "C"), [0.5, 0.3, 0.2], 1, folder, "skip", skip_keys=[r"a\."])
    check(folder, "skip.pt")


def test_interpolation(folder: Path):
    script.average(paths(folder, "A2", "B2"), [0.0, 0.25, 1.0], 2, folder, "ab")
    for weight in ("0.00", "0.25", "1.00"):
        check(folder, f"ab_l{weight}.pt")


def test_interpolation_of_averages(folder: Path):
    script.average(paths(folder, "A2", "B2"), [0.5], 2, folder, "emai", ema=True)
    check(folder, "emai_l0.50.pt")


def test_a_sum_of_averages_is_not_lost_as_in_the_original(folder: Path):
    assert not isinstance(GOLDEN["emau.pt"]["extra_state"], dict)
    script.average(paths(folder, "A2", "B2"), [0.5, 0.5], 1, folder, "emau", ema=True)
    state = read_checkpoint(folder / "emau.pt")
    assert state["extra_state"]["ema"]["a.weight"].tolist() == [[10.0, 11.0, 12.0], [13.0, 14.0, 15.0]]
    assert state["extra_state"]["epoch"] == 3


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_says_what_it_wrote_and_what_is_odd(folder: Path):
    lambdas = ["--lambdas", *map(str, THIRDS)]
    files = ["--checkpoints", *paths(folder, "A", "B", "C")]
    done = run(*files, *lambdas, "--num-models", "1", "--output-dir", folder / "new", "--filename", "uni")
    assert done.returncode == 0 and done.stdout.split() == [str(folder / "new" / "uni.pt")]
    assert "warning: not in all files: only_a, c" in done.stderr and "only_b" in done.stderr
    (folder / "new" / "uni.pt").rename(folder / "uni.pt")
    check(folder, "uni.pt")


def test_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]):
    output = ["--output-dir", str(folder / "new")]
    for names, more in (
        (("A", "B"), []),  # another shape, which the original's interpolation fails on, too
        (("A", "B", "C"), []),
        (("A", "gone"), []),
        (("A", "B", "C"), ["--num-models", "1"]),
        (("A2", "B2"), ["--missing", "error"]),
    ):
        assert script.main(["--checkpoints", *map(str, paths(folder, *names)), *output, *more]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list((folder / "new").iterdir())
