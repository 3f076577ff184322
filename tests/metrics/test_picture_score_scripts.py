"""The commands fid_score.py and inception_score.py, with made features instead of the Inception network's."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unival_plugin.metrics import pictures
from unival_plugin.metrics.pictures import fid, inception_score

FOLDER = Path(__file__).parents[2] / "run_scripts" / "image_gen"
NAMES = ["fid_score", "inception_score"]
INCEPTION = pictures.inception


class Colours(nn.Module):
    """Mean and spread of the colours of pictures."""

    num_features = 6

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        planes = batch.float().flatten(2) / 64
        return torch.cat([planes.mean(dim=2), planes.std(dim=2)], dim=1)


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(pictures, "inception", lambda weights, layer: Colours())


def script(name: str) -> ModuleType:
    pytest.importorskip("torchmetrics")
    return importlib.import_module(name)


def saved(folder: Path, seed: int, count: int = 6) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 256, (12, 10, 3)) * rng.random((1, 1, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return saved(tmp_path / "made", seed=0)


def run(name: str, *flags: Any) -> int:
    status: int = script(name).main([*map(str, flags)])
    return status


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_fid_is_printed_and_written(made: Path, tmp_path: Path, capsys: Any) -> None:
    real = saved(tmp_path / "real", seed=1)
    flags = ("--path1", made, "--path2", real, "--weights", "w.pth", "--batch-size", 2)
    assert run("fid_score", *flags, "--output", tmp_path / "fid.json") == 0
    wanted = fid(real, made, "w.pth")
    assert capsys.readouterr().out == f"FID: {wanted:.4f}\n"
    assert json.loads((tmp_path / "fid.json").read_text()) == {"FID": pytest.approx(wanted)}


def test_real_pictures_may_be_statistics(made: Path, tmp_path: Path, capsys: Any) -> None:
    np.savez(tmp_path / "gt_stat.npz", mu=np.zeros(6), sigma=np.eye(6))
    assert run("fid_score", "--path1", made, "--path2", tmp_path / "gt_stat.npz", "--weights", "w.pth") == 0
    assert capsys.readouterr().out == f"FID: {fid(tmp_path / 'gt_stat.npz', made, 'w.pth'):.4f}\n"


def test_inception_score_is_printed_with_its_deviation_over_parts(made: Path, tmp_path: Path, capsys: Any) -> None:
    flags = ("--path1", made, "--weights", "w.pth")
    assert run("inception_score", *flags) == 0
    mean, _ = inception_score(made, "w.pth")
    assert capsys.readouterr().out == f"IS: {mean:.4f}\n"
    assert run("inception_score", *flags, "--splits", 2, "--output", tmp_path / "is.json") == 0
    assert ", deviation: " in capsys.readouterr().out
    assert json.loads((tmp_path / "is.json").read_text()).keys() == {"IS", "deviation"}


def flags_of(name: str, made: Path, weights: str = "w.pth") -> list[str]:
    real = ["--path2", str(made)] if name == "fid_score" else []
    return ["--path1", str(made), "--weights", weights, *real]


@pytest.mark.parametrize("name", NAMES)
def test_missing_weights_say_which_and_where(name: str, made: Path, monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(pictures, "inception", INCEPTION)
    assert run(name, *flags_of(name, made, "none.pth")) == 2
    assert f"{name}.py: error: none.pth: no such file; give pt_inception-2015-12-05-6726825d.pth" in error_of(capsys)


@pytest.mark.parametrize("name", NAMES)
def test_missing_pictures_are_named(name: str, tmp_path: Path, capsys: Any) -> None:
    assert run(name, *flags_of(name, tmp_path / "none")) == 2
    assert "none: cannot be listed" in error_of(capsys)


@pytest.mark.parametrize("where", [["--gpu", "99"], ["--device", "cuda:99"], ["--device", "abacus"]])
def test_missing_devices_are_named(where: list[str], made: Path, capsys: Any) -> None:
    assert run("inception_score", *flags_of("inception_score", made), *where) == 2
    assert "no such device here; use --device cpu" in error_of(capsys)


@pytest.mark.parametrize(
    "flags", [["--gpu", "0", "--device", "cpu"], ["--batch-size", "0"], ["--splits", "0"], ["--path", "x"]]
)
def test_flags_that_make_no_sense_are_refused(flags: list[str], made: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("inception_score", *flags_of("inception_score", made), *flags)
    assert stopped.value.code == 2


@pytest.mark.parametrize("name", NAMES)
def test_they_run_as_programs_from_anywhere(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--path1", "made"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "required: --weights" in done.stderr
