"""Workarounds for checkpoints: what stock fairseq does without them (through ``__wrapped__``), and with them."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import EMAConfig
from fairseq.file_io import PathManager
from fairseq.models.ema.ema import EMA
from omegaconf import OmegaConf
from torch import nn

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
    return compat.check_and_resume(lambda cfg, _: cfg.restore_file, cfg, trainer or _trainer())


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


def test_intact_means_complete_and_unchanged(saved: Path):
    assert compat.is_intact(saved)
    with zipfile.ZipFile(saved) as archive:
        place = max(archive.infolist(), key=lambda entry: entry.file_size).header_offset + 1000
    content = bytearray(saved.read_bytes())
    content[place] ^= 1
    saved.write_bytes(content)
    assert not compat.is_intact(saved)


@pytest.mark.parametrize("left", [0, 1, 100, -200, -1])
def test_cut_files_are_not_intact(saved: Path, left: int):
    saved.write_bytes(saved.read_bytes()[:left])
    assert not compat.is_intact(saved)
    assert not compat.is_intact(saved.with_name("missing.pt"))


def test_the_newest_intact_checkpoint_is_the_one_written_last(saved: Path):
    names = ["checkpoint_best.pt", "checkpoint3.pt", "checkpoint_4_7.pt", "pretrained.pt", "crash.pt"]
    for age, name in enumerate(names):
        saved.with_name(name).write_bytes(saved.read_bytes())
        os.utime(saved.with_name(name), (age, age))
    _cut(saved.with_name("checkpoint_4_7.pt"))
    os.utime(saved.with_name("checkpoint_4_7.pt"), (9, 9))
    saved.unlink()
    assert compat.newest_intact(saved.parent) == saved.with_name("checkpoint3.pt")
    assert compat.newest_intact(saved.parent / "nowhere") is None


# ---- reading


def _read(path: Path) -> dict[str, Any]:
    return checkpoint_utils.load_checkpoint_to_cpu(str(path))


def test_namespaces_of_old_checkpoints_are_read_safely(tmp_path: Path):
    torch.save({"cfg": {"model": argparse.Namespace(arch="x")}, "model": {}}, tmp_path / "old.pt")
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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, "not a readable checkpoint \\(damaged or cut short\\)"),
        (lambda path: path.write_bytes(b""), "not a readable checkpoint|not a torch checkpoint"),
        (lambda path: path.write_bytes(b"<html>"), "not a torch checkpoint"),
        (lambda path: path.write_bytes(pickle.dumps(_Gadget())), "not a torch checkpoint"),
        (lambda path: torch.save([1, 2], path), "not a readable checkpoint"),
        (lambda path: torch.save({"model": _Gadget()}, path), "asks for posix.system"),
    ],
    ids=["cut", "empty", "text", "pickle", "list", "gadget"],
)
def test_unreadable_files_are_explained_in_one_line(saved: Path, spoil: Callable[[Path], Any], message: str):
    spoil(saved)
    with pytest.raises(CheckpointError, match=message) as caught:
        _read(saved)
    assert str(caught.value).startswith(f"{saved}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_errors_about_the_contents_name_the_file(tmp_path: Path):
    def mismatch(*_: Any) -> None:
        raise Exception("architectures do not match") from CheckpointError("of another size")

    trainer = SimpleNamespace(cfg=OmegaConf.create({"ema": {"store_ema": False}}))
    with pytest.raises(CheckpointError, match="^x.pt: of another size$"):
        compat.name_checkpoint(mismatch, trainer, "x.pt")
    with pytest.raises(CheckpointError, match="^x.pt, y.pt: of another size$"):
        compat.name_checkpoints(mismatch, ["x.pt", "y.pt"])
    with pytest.raises(CheckpointError, match="missing.pt; correct --path"):
        checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "missing.pt")])


def test_weights_without_options_cannot_be_evaluated(saved: Path):
    with pytest.raises(CheckpointError, match=f"{saved}: holds weights without their options"):
        checkpoint_utils.load_model_ensemble_and_task([str(saved)])


def test_an_average_starts_from_the_weights_where_there_is_none(saved: Path):
    """Stock fairseq raises KeyError because it has deleted the weights by then (see also tests/e2e/test_resume.py)."""

    def restore(trainer: Any, path: str) -> dict[str, Any]:
        return checkpoint_utils.load_checkpoint_to_cpu(path)

    reader = checkpoint_utils.load_checkpoint_to_cpu
    for wanted in (True, False):
        trainer = SimpleNamespace(cfg=OmegaConf.create({"ema": {"store_ema": wanted}}))
        state = compat.name_checkpoint(restore, trainer, str(saved))
        assert ("ema" in state["extra_state"]) == wanted
    assert checkpoint_utils.load_checkpoint_to_cpu is reader


def test_the_name_of_our_tokenizer_survives_flags_of_fairseq_validate():
    def loaded() -> Any:
        return OmegaConf.create({"task": {"_name": "caption", "bpe": "gpt2"}, "bpe": None})

    overwrite = checkpoint_utils.overwrite_args_by_name
    stock, ours = loaded(), loaded()
    overwrite.__wrapped__(stock, {"bpe": "sentencepiece"})
    assert OmegaConf.is_dict(stock.task.bpe)
    overwrite(ours, {"bpe": "sentencepiece"})
    assert ours.task.bpe == "sentencepiece"


# ---- saving


def test_integer_buffers_do_not_stop_the_average_of_weights():
    model = nn.BatchNorm1d(2)
    config = EMAConfig(store_ema=True, ema_decay=0.5, ema_fp32=True)
    stock = EMA.__new__(EMA)
    EMA.__init__.__wrapped__(stock, model, config)
    with pytest.raises(RuntimeError):
        stock.step(model)
    average = EMA(model, config)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.num_batches_tracked.fill_(7)
    average.step(model)
    assert average.get_model().weight.tolist() == [2.0, 2.0]
    assert average.get_model().num_batches_tracked.item() == 7


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
