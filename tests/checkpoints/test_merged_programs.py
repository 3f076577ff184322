"""Merged files in every program that reads checkpoints, with stock flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Data, Outcome, differing, generate, succeed, train, validate
from made_files import released_state

from unival_cli.main import main
from unival_plugin.checkpoints.averaging import MergePlan, merge
from unival_plugin.checkpoints.reading import read_checkpoint

FRESH = ["--reset-optimizer", "--reset-dataloader", "--reset-meters", "--max-update", "1", "--disable-validation"]


@pytest.fixture(scope="module")
def data(digits: Path) -> Data:
    return Data(digits)


@pytest.fixture(scope="module")
def files(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two released-style files with averages, in fp16; the second is the first with other numbers."""
    folder = tmp_path_factory.mktemp("merged")
    for name, factor in (("a", 1.0), ("b", 0.8)):
        state = released_state(digits)
        for weights in (state["model"], state["extra_state"]["ema"], state["extra_state"]["ema_fp32_params"]):
            for key, value in weights.items():
                if value.is_floating_point() and value.ndim > 1:
                    weights[key] = value * factor
        torch.save(state, folder / f"{name}.pt")
    return folder / "a.pt", folder / "b.pt"


@pytest.fixture(scope="module", params=["model.pt", "ema.pt", "model.safetensors"])
def merged(files: tuple[Path, ...], request: pytest.FixtureRequest) -> Path:
    path = files[0].with_name(request.param)
    merge(MergePlan(files, source=path.stem), path, progress=False)
    return path


def valid_loss(outcome: Outcome) -> float:
    return float(outcome.last("valid", "valid_loss"))


def test_a_merged_file_is_validated_generates_and_predicts(
    data: Data, merged: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert valid_loss(succeed(validate(data, merged))) > 0
    succeed(generate(data, merged, tmp_path))
    assert list(tmp_path.glob("*.txt"))
    assert main(["predict", "--path", str(merged), "--device", "cpu", str(picture)]) == 0
    assert "score" in json.loads(capsys.readouterr().out)
    assert main(["inspect", str(merged)]) == 0


def test_training_starts_from_a_merged_file(data: Data, merged: Path, tmp_path: Path):
    """With learning rate 0 and decay 1 a run stores exactly what it started from."""
    flags = [*FRESH, "--lr", "0", "--store-ema", "--ema-decay", "1"]
    succeed(train(data, tmp_path / "run", "--restore-file", str(merged), *flags))
    before, after = read_checkpoint(merged), read_checkpoint(tmp_path / "run" / "checkpoint_last.pt")
    assert differing(*(learned(state["model"], before["model"]) for state in (before, after))) == []
    average = before["extra_state"]["ema"]
    assert differing(learned(average, average), learned(after["extra_state"]["ema"], average)) == []


def learned(weights: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """What a step with learning rate 0 leaves alone."""
    moving = ("running_mean", "running_var", "version")
    return {k: weights[k].float() for k in names if weights[k].is_floating_point() and not k.endswith(moving)}
