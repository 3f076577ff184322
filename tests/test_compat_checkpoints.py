"""Workarounds for checkpoints: what stock fairseq does without them (through ``__wrapped__``), and with them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from omegaconf import OmegaConf

from unival_plugin import compat
from unival_plugin.errors import CheckpointError, ConfigError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small checkpoint file."""
    torch.save({"model": {"w": torch.arange(1000.0)}}, tmp_path / "checkpoint_last.pt")
    return tmp_path / "checkpoint_last.pt"


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-200])
    return path


# ---- resuming


def _trainer(**dataset: Any) -> Any:
    cfg = {"task": {"_name": "caption"}, "dataset": {"disable_validation": False, **dataset}}
    return SimpleNamespace(cfg=OmegaConf.create(cfg), task=SimpleNamespace(validation_metrics=lambda: {"cider"}))


def _resume(folder: Path, trainer: Any = None, **flags: Any) -> str:
    """The file that fairseq is asked to restore."""
    defaults = {
        "save_dir": str(folder),
        "restore_file": "checkpoint_last.pt",
        "finetune_from_model": None,
        "best_checkpoint_metric": "loss",
    }
    cfg = OmegaConf.create({**defaults, **flags})
    return compat.files.check_and_resume(lambda cfg, _: cfg.restore_file, cfg, trainer or _trainer())


def test_known_metrics_pass_and_unknown_ones_are_refused(tmp_path: Path):
    for metric in ("loss", "ppl", "cider"):
        _resume(tmp_path, best_checkpoint_metric=metric)
    with pytest.raises(ConfigError, match="computes only cider, loss, nll_loss, ppl"):
        _resume(tmp_path, best_checkpoint_metric="meteor")
    _resume(tmp_path, _trainer(disable_validation=True), best_checkpoint_metric="meteor")


def test_a_missing_restore_file_is_an_error(tmp_path: Path):
    """Stock fairseq starts from random weights."""
    with pytest.raises(CheckpointError, match="no such file"):
        _resume(tmp_path, restore_file=str(tmp_path / "gone.pt"))


def test_a_missing_file_to_continue_from_is_an_error_unless_the_run_has_its_own(saved: Path, tmp_path: Path):
    """Stock fairseq starts from random weights."""
    gone = str(tmp_path / "gone.pt")
    with pytest.raises(CheckpointError, match=f"--continue-once {gone}: no such file"):
        _resume(tmp_path / "new", continue_once=gone)
    assert _resume(saved.parent, continue_once=gone) == "checkpoint_last.pt"


def test_an_intact_last_checkpoint_is_resumed(saved: Path):
    assert _resume(saved.parent) == "checkpoint_last.pt"


def test_a_damaged_last_checkpoint_gives_way_to_its_newest_intact_sibling(
    saved: Path, caplog: pytest.LogCaptureFixture
):
    sibling = saved.with_name("checkpoint_1_20.pt")
    sibling.write_bytes(saved.read_bytes())
    _cut(saved)
    assert _resume(saved.parent, finetune_from_model="pretrained.pt") == str(sibling)
    assert f"resuming from {sibling}" in caplog.text


def test_only_damaged_checkpoints_are_an_error(saved: Path):
    _cut(saved)
    with pytest.raises(CheckpointError, match="no intact checkpoint beside it"):
        _resume(saved.parent)


# ---- reading


def _read(path: Path) -> dict[str, Any]:
    return checkpoint_utils.load_checkpoint_to_cpu(str(path))


def test_namespaces_of_old_checkpoints_are_read_safely(tmp_path: Path):
    torch.save({"cfg": {"model": argparse.Namespace(arch="x")}, "model": {"w": torch.ones(1)}}, tmp_path / "old.pt")
    assert _read(tmp_path / "old.pt")["cfg"].model.arch == "x"


def test_weights_without_history_are_read(saved: Path):
    with pytest.raises(KeyError):
        checkpoint_utils._upgrade_state_dict.__wrapped__({"model": {}})
    state = _read(saved)
    assert state["optimizer_history"][-1]["num_updates"] == 0
    assert state["extra_state"]["train_iterator"]["epoch"] == 1


def test_the_epoch_of_very_old_checkpoints_is_kept():
    old = {"optimizer_history": [{"best_loss": 1.0}], "epoch": 5, "batch_offset": 7, "val_loss": 1.0, "model": {}}
    assert checkpoint_utils._upgrade_state_dict(old)["extra_state"]["train_iterator"]["epoch"] == 5


class _Gadget:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 3",)


def test_the_environment_cannot_make_files_execute_anything(saved: Path, monkeypatch: pytest.MonkeyPatch):
    """Stock fairseq then executes what the file asks for."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"model": {"w": torch.ones(1)}, "x": _Gadget(), "optimizer_history": [{}]}, saved)
    executed: list[str] = []
    monkeypatch.setattr(os, "system", executed.append)
    with pytest.raises(CheckpointError, match="asks for posix.system"):
        _read(saved)
    with pytest.raises(CheckpointError, match="asks for posix.system"):
        checkpoint_utils.load_ema_from_checkpoint(str(saved))


@pytest.mark.parametrize("layout", [lambda w: {"state_dict": w}, lambda w: w], ids=["state_dict", "plain"])
def test_weights_of_other_programs_become_the_model(saved: Path, layout: Callable[[Any], Any]):
    torch.save(layout({"w": torch.ones(1)}), saved)
    assert _read(saved)["model"].keys() == {"w"}


def test_a_file_without_weights_is_named(saved: Path):
    torch.save({"model": {}}, saved)
    with pytest.raises(CheckpointError, match=f"{saved}: holds no weights"):
        _read(saved)


def test_errors_about_the_contents_name_the_file(tmp_path: Path):
    def mismatch(*_: Any) -> None:
        raise Exception("architectures do not match") from CheckpointError("of another size")

    trainer = SimpleNamespace(cfg=None)
    with pytest.raises(CheckpointError, match="^x.pt: of another size$"):
        compat.files.restore_file(mismatch, trainer, "x.pt")
    with pytest.raises(CheckpointError, match="^x.pt, y.pt: of another size$"):
        compat.files.evaluate_files(mismatch, ["x.pt", "y.pt"])
    with pytest.raises(CheckpointError, match="missing.pt; correct --path"):
        checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "missing.pt")])


def test_weights_without_options_cannot_be_evaluated(saved: Path):
    with pytest.raises(CheckpointError, match=f"{saved}: holds weights without their options"):
        checkpoint_utils.load_model_ensemble_and_task([str(saved)])


def test_another_optimizer_is_explained(tmp_path: Path):
    def mismatch(*_: Any) -> None:
        raise AssertionError("Optimizer does not match; please reset the optimizer (--reset-optimizer). A vs B")

    with pytest.raises(CheckpointError, match="^x.pt: Optimizer does not match; please reset"):
        compat.files.restore_file(mismatch, SimpleNamespace(cfg=None), "x.pt")


# ---- saving


def test_a_copy_is_never_seen_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, target = tmp_path / "a.pt", tmp_path / "b.pt"
    source.write_bytes(b"new" * 1000)
    target.write_bytes(b"old")
    seen: list[bytes] = []

    def slow(src: str, dst: str) -> None:
        Path(dst).write_bytes(b"new")
        seen.append(target.read_bytes())
        Path(dst).write_bytes(Path(src).read_bytes())

    monkeypatch.setattr("shutil.copyfile", slow)
    stock_copy = PathManager.copy.args[0]
    stock_copy(str(source), str(target))
    assert seen == [b"new"]
    target.write_bytes(b"old")
    assert PathManager.copy(str(source), str(target), overwrite=True) is True
    assert seen == [b"new", b"old"]
    assert target.read_bytes() == source.read_bytes()


def test_a_failed_copy_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "b.pt"
    target.write_bytes(b"old")

    def full(src: str, dst: str) -> None:
        Path(dst).write_bytes(b"ne")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        PathManager.copy(str(tmp_path / "a.pt"), str(target), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["b.pt"]
    assert target.read_bytes() == b"old"
