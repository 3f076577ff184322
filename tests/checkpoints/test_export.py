"""Conversion: bit for bit there and back, nothing half written, and what may be changed on the way."""

from __future__ import annotations

import argparse
import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from unival_plugin.checkpoints.export import Export, convert
from unival_plugin.checkpoints.reading import read_checkpoint
from unival_plugin.checkpoints.safetensors_file import read_safetensors, write_safetensors
from unival_plugin.errors import CheckpointError, ConfigError


def same(first: Any, second: Any) -> bool:
    """Equal in type and value, tensors bit for bit (NaN included)."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        bits = (
            value.contiguous().reshape(-1).view(torch.uint8) if value.numel() else value for value in (first, second)
        )
        return first.dtype == second.dtype and first.shape == second.shape and torch.equal(*bits)
    if isinstance(first, dict):
        keys = list(first) == list(second)
        return keys and all(same(first[key], second[key]) for key in first) and same(_more(first), _more(second))
    if isinstance(first, argparse.Namespace):
        return same(vars(first), vars(second))
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second or (isinstance(first, float) and math.isnan(first) and math.isnan(second))


def _more(mapping: dict[Any, Any]) -> Any:
    return dict(vars(mapping)) if isinstance(mapping, OrderedDict) else None


def whole_state() -> dict[str, Any]:
    """Everything that fairseq puts into a checkpoint, and numbers of every type."""
    words = torch.randn(5, 3)
    model: OrderedDict[str, Tensor] = OrderedDict(
        [
            ("encoder.embed_tokens.weight", words),
            ("decoder.embed_tokens.weight", words),
            ("encoder.half", torch.tensor([1.5, float("nan"), -0.0]).half()),
            ("encoder.brain", torch.randn(2, 2).bfloat16()),
            ("encoder.count", torch.tensor(7)),
            ("encoder.mask", torch.tensor([True, False])),
            ("encoder.none", torch.zeros(0, 4)),
            ("encoder.turned", torch.arange(6.0).reshape(2, 3).t()),
            ("encoder.part", torch.arange(10)[2:5]),
        ]
    )
    model._metadata = OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    return {
        "args": None,
        "cfg": {"model": argparse.Namespace(_name="unival_base", lr=[0.1]), "task": {"$odd": (1, 2), "x": math.inf}},
        "model": model,
        "optimizer_history": [{"num_updates": 3, "lr_scheduler_state": {"best": None}}],
        "extra_state": {
            "train_iterator": {"version": 2, "epoch": 4, "iterations_in_epoch": 0},
            "metrics": [(0, "loss", "AverageMeter", OrderedDict(val=1.0, sum=torch.tensor(2.0)))],
            "ema": {"encoder.embed_tokens.weight": words * 2},
            "ema_fp32_params": {"encoder.embed_tokens.weight": words * 2},
        },
        "last_optimizer_state": {
            "state": {0: {"step": 3, "exp_avg": torch.randn(5, 3)}},
            "groups": [{"betas": (0.9, 1)}],
        },
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file with such a state."""
    torch.save(whole_state(), tmp_path / "x.pt")
    return tmp_path / "x.pt"


def test_there_and_back_nothing_changes(saved: Path):
    portable, back = saved.with_name("y.safetensors"), saved.with_name("z.pt")
    convert(saved, portable, Export(optimizer=True))
    convert(portable, back, Export(optimizer=True))
    before = read_checkpoint(saved)
    assert same(before, read_checkpoint(portable))
    assert same(before, read_checkpoint(back))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=st.dictionaries(st.text(), plain))
def test_all_plain_data_comes_through(tmp_path: Path, options: dict[str, Any]):
    state = {"cfg": options, "args": argparse.Namespace(a=options), "model": {"w": torch.ones(1)}}
    write_safetensors(state, tmp_path / "x.safetensors")
    assert same(read_safetensors(tmp_path / "x.safetensors"), state)


def test_tied_tensors_are_stored_once_and_stay_tied(saved: Path):
    first, second = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
    convert(saved, saved.with_name("y.safetensors"), Export())
    with safe_open(saved.with_name("y.safetensors"), framework="pt") as file:
        assert json.loads(file.metadata()["tied"]) == {second: first}
        assert first in file.keys() and second not in file.keys()  # noqa: SIM118
    model = read_checkpoint(saved.with_name("y.safetensors"))["model"]
    assert model[first].data_ptr() == model[second].data_ptr()
    saved.with_name("y.json").unlink()
    assert same(read_checkpoint(saved.with_name("y.safetensors"))[second], read_checkpoint(saved)["model"][second])


def test_the_optimizer_is_left_out_unless_it_is_wanted(saved: Path):
    said: list[str] = []
    convert(saved, saved.with_name("y.pt"), Export(), say=said.append)
    assert "last_optimizer_state" not in read_checkpoint(saved.with_name("y.pt"))
    assert any("left out: the optimizer's state" in line for line in said)
    convert(saved, saved.with_name("z.pt"), Export(optimizer=True))
    kept, wanted = (read_checkpoint(path)["last_optimizer_state"] for path in (saved.with_name("z.pt"), saved))
    assert same(kept, wanted)


def test_the_average_becomes_the_model(saved: Path):
    convert(saved, saved.with_name("y.pt"), Export(average=True, optimizer=True))
    state = read_checkpoint(saved.with_name("y.pt"))
    average = read_checkpoint(saved)["extra_state"]["ema_fp32_params"]["encoder.embed_tokens.weight"]
    assert torch.equal(state["model"]["encoder.embed_tokens.weight"], average)
    assert state["model"]["encoder.count"] == 7
    assert state["extra_state"].keys() == {"train_iterator", "metrics"}
    assert "last_optimizer_state" not in state


def test_a_file_without_average_has_none_to_write(tmp_path: Path):
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: holds no average of weights"):
        convert(tmp_path / "x.pt", tmp_path / "y.pt", Export(average=True))
    assert not (tmp_path / "y.pt").exists()


def test_fewer_bits_keep_ties_integers_and_the_sound_front_end(tmp_path: Path):
    words = torch.tensor([1.0, 1 / 3])
    melody = "encoder.embed_audios.logmel_extractor.melW"
    model = {"a": words, "b": words, melody: words.clone(), "n": torch.tensor([1]), "e": torch.zeros(0)}
    torch.save(
        {"model": model, "extra_state": {"ema": {"a": words}, "ema_fp32_params": {"a": words}}}, tmp_path / "x.pt"
    )
    convert(tmp_path / "x.pt", tmp_path / "y.pt", Export(dtype="fp16"))
    state = read_checkpoint(tmp_path / "y.pt")
    dtypes = {key: value.dtype for key, value in state["model"].items()}
    half = torch.float16
    assert dtypes == {"a": half, "b": half, melody: torch.float32, "n": torch.int64, "e": half}
    assert state["model"]["a"].data_ptr() == state["model"]["b"].data_ptr()
    assert state["extra_state"]["ema"]["a"].dtype == half
    assert state["extra_state"]["ema_fp32_params"]["a"].dtype == torch.float32


def test_numbers_that_do_not_fit_into_fewer_bits_are_refused(tmp_path: Path):
    torch.save({"model": {"w": torch.tensor([1.0, -1e5])}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: w holds 1e\+05, which torch.float16 cannot"):
        convert(tmp_path / "x.pt", tmp_path / "y.pt", Export(dtype="fp16"))


def test_a_written_file_has_what_stock_fairseq_insists_on(tmp_path: Path):
    torch.save({"w": torch.ones(1)}, tmp_path / "x.pt")
    convert(tmp_path / "x.pt", tmp_path / "y.pt", Export())
    state = torch.load(tmp_path / "y.pt", weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 0
    assert state["extra_state"]["train_iterator"]["epoch"] == 1
    assert state["model"].keys() == {"w"}


@pytest.mark.parametrize("name", ["y.pt", "y.safetensors"])
def test_nothing_is_replaced_without_being_asked(saved: Path, name: str):
    target = saved.with_name(name)
    target.write_text("mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        convert(saved, target, Export())
    assert target.read_text() == "mine"
    convert(saved, target, Export(), overwrite=True)
    assert read_checkpoint(target)["model"]


def test_the_checkpoint_itself_is_never_replaced(saved: Path):
    with pytest.raises(ConfigError, match="choose another name"):
        convert(saved, saved, Export(), overwrite=True)
    with pytest.raises(ConfigError, match="folder does not exist"):
        convert(saved, saved.parent / "gone" / "y.pt", Export())


@pytest.mark.parametrize("name", ["y.pt", "y.safetensors"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(saved: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    target = saved.with_name(name)
    target.write_text("old")

    def full(content: Any, path: Path, *_: Any) -> None:
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        convert(saved, target, Export(), overwrite=True)
    assert target.read_text() == "old"
    assert not list(saved.parent.glob(".*"))


def test_what_is_no_plain_data_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="cfg/a/1: a PosixPath cannot be written"):
        write_safetensors({"cfg": {"a": [1, Path("/x")]}}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="a torch.sparse_coo tensor cannot be written"):
        write_safetensors({"model": {"w": torch.eye(2).to_sparse()}}, tmp_path / "x.safetensors")
