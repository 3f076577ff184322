"""``unival inspect``: the facts of every kind of file, quickly and without fairseq."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unival_cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def _weights() -> dict[str, torch.Tensor]:
    words = torch.zeros(10, 4).half()
    filters = torch.zeros(513, 64).half()
    filters[2:299] = 0.1
    return {
        "encoder.version": torch.zeros(1),
        "encoder.embed_tokens.weight": words,
        "encoder.layers.0.fc1.weight": torch.zeros(4, 4).half(),
        "encoder.layers.1.fc1.weight": torch.zeros(4, 4).half(),
        "encoder.embed_audios.logmel_extractor.melW": filters,
        "encoder.embed_images.bn1.running_mean": torch.zeros(3).half(),
        "encoder.embed_images.bn1.num_batches_tracked": torch.tensor(1),
        "decoder.layers.0.fc1.weight": torch.zeros(4, 4).half(),
        "decoder.output_projection.weight": words,
        "classification_heads.x.weight": torch.zeros(2, 4).half(),
    }


def _state() -> dict[str, Any]:
    weights = _weights()
    return {
        "cfg": {"model": argparse.Namespace(_name="unival_base", hop_size=200), "task": {"_name": "audio_caption"}},
        "model": weights,
        "optimizer_history": [{"num_updates": 1234}],
        "extra_state": {"train_iterator": {"epoch": 7}, "ema": weights, "ema_fp32_params": {"w": torch.zeros(1)}},
        "last_optimizer_state": {"state": {0: 1}},
    }


def _facts(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["inspect", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_released_file_tells_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save(_state(), tmp_path / "x.pt")
    facts = _facts(tmp_path / "x.pt", capsys)
    assert facts["layout"].startswith("released") and facts["format"] == "torch" and facts["refused"] == []
    assert (facts["architecture"], facts["task"], facts["epoch"], facts["updates"]) == (
        "unival_base", "audio_caption", 7, 1234,
    )  # fmt: skip
    parameters = 40 + 3 * 16 + 513 * 64 + 8
    assert facts["model"] == {
        "encoder_layers": 2, "decoder_layers": 1, "width": 4, "vocabulary": 10,
        "parameters": parameters, "elements": parameters + 40 + 1 + 3 + 1,
    }  # fmt: skip
    assert facts["numbers"] == {"float32": 1, "float16": 8, "int64": 1}
    assert facts["average"] == {"ema": "float16", "ema_fp32_params": "float32"} and facts["optimizer"] is True
    assert facts["tied"] == {"encoder.embed_tokens.weight": ["decoder.output_projection.weight"]}
    assert facts["mel_filters"]["bands"] == 64 and facts["mel_filters"]["hop"] == 200
    assert facts["mel_filters"]["sampling_rate"] == pytest.approx(48000, rel=0.01)
    assert facts["modules"]["encoder.layers"] == {"tensors": 2, "elements": 32, "bytes": 64}
    assert facts["modules"]["decoder.output_projection"]["bytes"] == 0
    assert facts["modules"]["classification_heads"]["tensors"] == 1


@pytest.mark.parametrize(
    ("state", "layout"),
    [
        (lambda w: {"cfg": {"model": {"_name": "unival_tiny"}}, "model": w}, "fairseq-train"),
        (lambda w: {"args": argparse.Namespace(arch="bart_base", task="denoising"), "model": w}, "fairseq before 2021"),
        (lambda w: {"state_dict": w}, "weights without options"),
        (lambda w: w, "plain state dict"),
    ],
)
def test_layouts_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str], state: Any, layout: str):
    torch.save(state(_weights()), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    facts = _facts(tmp_path / "x.pt", capsys)
    assert facts["layout"].startswith(layout) and facts["format"] == "torch, before 2020"
    assert facts["model"]["vocabulary"] == 10


def test_a_converted_file_has_the_same_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save(_state(), tmp_path / "x.pt")
    assert main(["convert", str(tmp_path / "x.pt"), str(tmp_path / "x.safetensors"), "--keep-optimizer"]) == 0
    capsys.readouterr()
    before, after = _facts(tmp_path / "x.pt", capsys), _facts(tmp_path / "x.safetensors", capsys)
    assert after.pop("format") == "safetensors with JSON"
    differing = {key for key in after if after[key] != before[key]}
    assert differing == {"path", "bytes"}


def test_the_table_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save(_state(), tmp_path / "x.pt")
    assert main(["inspect", str(tmp_path / "x.pt")]) == 0
    out = capsys.readouterr().out
    for words in ("architecture  unival_base", "updates       1234", "width 4, 2 encoder layers", "64 bands"):
        assert words in out
    assert "tied          encoder.embed_tokens.weight = decoder.output_projection.weight" in out
    assert any(line.split() == ["encoder.layers", "2", "32", "0.0"] for line in out.splitlines())


def test_what_is_not_stored_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"w": torch.zeros(0)}, tmp_path / "x.pt")
    assert main(["inspect", str(tmp_path / "x.pt")]) == 0
    assert "task          not stored" in capsys.readouterr().out


def test_every_refused_object_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"model": _weights(), "a": Path("x"), "b": print}, tmp_path / "x.pt")
    assert main(["inspect", str(tmp_path / "x.pt")]) == 1
    listed = [line.strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert listed == ["builtins.print", "pathlib.PosixPath"]
    assert main(["inspect", str(tmp_path / "x.pt"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["refused"] == listed


def test_fairseq_is_not_loaded(tmp_path: Path):
    torch.save(_state(), tmp_path / "x.pt")
    code = (
        f"import sys; from unival_cli.main import main; main(['inspect', {str(tmp_path / 'x.pt')!r}]); "
        f"main(['convert', {str(tmp_path / 'x.pt')!r}, {str(tmp_path / 'y.safetensors')!r}]); "
        "assert 'torch' in sys.modules and not {'fairseq', 'unival_plugin'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "y.safetensors").exists()
