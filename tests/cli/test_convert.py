"""``unival convert``: the command around the conversion (see tests/checkpoints/test_export.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unival_cli.main import main
from unival_plugin.checkpoints.reading import read_checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file with an average and an optimizer."""
    one, two = {"w": torch.ones(2)}, {"w": torch.full((2,), 2.0)}
    state = {"model": one, "extra_state": {"ema": two}, "last_optimizer_state": {"state": {}}}
    torch.save(state, tmp_path / "x.pt")
    return tmp_path / "x.pt"


def convert(source: Path, target: Path, *flags: str) -> int:
    """The command's exit status."""
    return main(["convert", str(source), str(target), *flags])


def test_what_is_done_and_dropped_is_said(saved: Path, capsys: pytest.CaptureFixture[str]):
    target = saved.with_name("y.safetensors")
    assert convert(saved, target) == 0
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.splitlines() == [
        f"reading {saved}",
        "left out: the optimizer's state; the file cannot continue a training exactly",
        f"writing {target}, {target.with_suffix('.json')}",
    ]


def test_flags_reach_the_conversion(saved: Path):
    assert convert(saved, saved.with_name("y.pt"), "--ema", "--dtype", "bf16") == 0
    weight = read_checkpoint(saved.with_name("y.pt"))["model"]["w"]
    assert weight.dtype == torch.bfloat16 and weight.tolist() == [2, 2]
    assert convert(saved, saved.with_name("y.pt"), "--overwrite", "--keep-optimizer") == 0
    assert "last_optimizer_state" in read_checkpoint(saved.with_name("y.pt"))


def test_mistakes_are_one_line(saved: Path, capsys: pytest.CaptureFixture[str]):
    saved.with_name("y.pt").touch()
    assert convert(saved, saved.with_name("y.pt")) == 2
    assert convert(saved.with_name("gone.pt"), saved.with_name("z.pt")) == 2
    assert convert(saved, saved.with_name("gone") / "z.pt") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("unival: error: ")]
    assert len(lines) == 3


def test_the_weights_can_be_read_by_others(saved: Path):
    from safetensors.torch import load_file

    assert convert(saved, saved.with_name("y.safetensors")) == 0
    assert load_file(saved.with_name("y.safetensors"))["w"].tolist() == [1, 1]
