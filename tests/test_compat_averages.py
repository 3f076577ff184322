"""Averages of weights (EMA): where they start, and that they are evaluated when asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import EMAConfig
from fairseq.models.ema.ema import EMA
from omegaconf import OmegaConf
from torch import nn

from unival_plugin import compat
from unival_plugin.errors import CheckpointError

ONE, TWO, THREE = ({"w": torch.tensor([value])} for value in (1.0, 2.0, 3.0))


def _saved(folder: Path, **extra: Any) -> Path:
    torch.save({"model": ONE, "extra_state": extra}, folder / "x.pt")
    return folder / "x.pt"


def _start(path: Path, save_dir: str = "elsewhere", store: bool = False, **flags: bool) -> dict[str, Any]:
    cfg = OmegaConf.create({"ema": {"store_ema": store}, "checkpoint": {"save_dir": save_dir}, "task": flags})
    return compat.averages.starting_weights(cfg, checkpoint_utils.load_checkpoint_to_cpu, str(path))


def _values(state: dict[str, Any]) -> tuple[float | None, ...]:
    """The weight in the model, in the average and in the precise average."""
    parts = [state["model"], *(state["extra_state"].get(kind) for kind in ("ema", "ema_fp32_params"))]
    return tuple(part["w"].item() if part else None for part in parts)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, (1, 2, 3)),
        ({"store": True}, (1, 2, 3)),
        ({"use_ema_weights_to_init_param": True}, (3, 2, 3)),
        ({"store": True, "use_ema_weights_to_init_param": True}, (3, 2, 3)),
        ({"store": True, "use_latest_weights_to_init_ema": True}, (1, 1, None)),
        ({"use_latest_weights_to_init_ema": True}, (1, 2, 3)),
        (
            {"store": True, "use_ema_weights_to_init_param": True, "use_latest_weights_to_init_ema": True},
            (3, 1, None),
        ),
    ],
)
def test_flags_say_where_model_and_average_start(tmp_path: Path, flags: dict[str, bool], expected: tuple[float, ...]):
    assert _values(_start(_saved(tmp_path, ema=TWO, ema_fp32_params=THREE), **flags)) == expected


def test_an_average_without_precise_copy_is_used(tmp_path: Path):
    assert _values(_start(_saved(tmp_path, ema=TWO), use_ema_weights_to_init_param=True)) == (2, 2, None)


def test_a_run_that_continues_its_own_file_is_not_changed(tmp_path: Path):
    path = _saved(tmp_path, ema=TWO, ema_fp32_params=THREE)
    flags = {"use_ema_weights_to_init_param": True, "use_latest_weights_to_init_ema": True}
    assert _values(_start(path, save_dir=str(tmp_path), store=True, **flags)) == (1, 2, 3)


def test_a_file_without_average_lends_its_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """With --store-ema stock fairseq raises KeyError because it has deleted the weights by then."""
    assert _values(_start(_saved(tmp_path), store=True)) == (1, 1, None)
    assert _values(_start(_saved(tmp_path))) == (1, None, None)
    assert _values(_start(_saved(tmp_path), use_ema_weights_to_init_param=True)) == (1, None, None)
    assert "holds no average of weights (--use-ema-weights-to-init-param)" in caplog.text


def test_the_average_is_evaluated_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def evaluate(filenames: list[str]) -> Any:
        return _values(checkpoint_utils.load_checkpoint_to_cpu(filenames[0]))

    path = str(_saved(tmp_path, ema=TWO, ema_fp32_params=THREE))
    assert compat.files.evaluate_files(evaluate, [path]) == (1, 2, 3)
    monkeypatch.setitem(compat.command_line, "ema_eval", True)
    assert compat.files.evaluate_files(evaluate, [path]) == (3, 2, 3)
    with pytest.raises(CheckpointError, match=f"{path}: holds no average of weights"):
        compat.files.evaluate_files(evaluate, [str(_saved(tmp_path))])


def test_the_seed_of_an_average_is_read_safely(tmp_path: Path):
    assert checkpoint_utils.load_ema_from_checkpoint(str(_saved(tmp_path, ema=TWO)))["model"]["w"].item() == 2
    with pytest.raises(CheckpointError, match="holds no average"):
        checkpoint_utils.load_ema_from_checkpoint(str(_saved(tmp_path)))


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


def test_a_precise_average_is_fitted_to_the_model_as_its_weights_are():
    class Model(nn.Linear):
        def upgrade_state_dict(self, state: dict[str, Any]) -> None:
            state["weight"] = torch.cat([state["weight"], torch.zeros(1, 1)])

    average = EMA(Model(1, 3), EMAConfig(store_ema=True, ema_fp32=True))
    shorter = {"weight": torch.ones(2, 1), "bias": torch.ones(3)}
    with pytest.raises(RuntimeError):
        average.build_fp32_params(shorter)
    Model.__module__ = "unival_plugin.unival.model"
    average.build_fp32_params(shorter)
    assert average.fp32_params["weight"].flatten().tolist() == [1, 1, 0]
    assert shorter["weight"].shape == (2, 1)
