"""Killed trainings, started again with the same command, end as if nothing had happened."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import (
    Data,
    Outcome,
    being_written,
    checkpoint,
    differing,
    kill_when,
    run,
    succeed,
    train,
    update_logged,
)

from unival_plugin.checkpoints.reading import is_intact

LAST = "checkpoint_last.pt"
EPOCHS, UPDATES_PER_EPOCH = 4, 6  # 45 rows in batches of 4, two batches per update
EMA = ["--store-ema", "--ema-fp32", "--ema-decay", "0.9"]

Command = Callable[[int, Path], list[str]]


@pytest.fixture(scope="module")
def command(data: Data) -> Command:
    """The command of all runs: everything random switched on, a save after every second update.

    With two workers it also keeps an average of the weights, which must not change the weights.
    """
    random = ["--use-dataaug", "--dropout", "0.1", "--encoder-drop-path-rate", "0.1"]
    saves = ["--update-freq", "2", "--save-interval-updates", "2", "--keep-interval-updates", "1"]
    length = ["--max-epoch", str(EPOCHS)]
    return lambda workers, save_dir: train(
        data, save_dir, *random, *saves, *length, "--num-workers", str(workers), *(EMA if workers else [])
    )


@pytest.fixture(scope="module")
def uninterrupted(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, Any]]:
    """Last checkpoint of an uninterrupted run with so many workers."""

    @functools.cache
    def state(workers: int) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("uninterrupted")
        succeed(command(workers, folder))
        found = checkpoint(folder / LAST)
        shutil.rmtree(folder)
        return found

    return state


def _cut(path: Path) -> None:
    """Leaves the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _epochs(outcome: Outcome) -> list[int]:
    return [record["epoch"] for record in outcome.logged("train")]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_kills_do_not_change_the_weights(command: Command, uninterrupted: Any, tmp_path: Path, workers: int):
    folder = tmp_path / "run"
    once = command(workers, folder)
    kill_when(once, update_logged(3))
    assert is_intact(folder / LAST)

    between_epochs, within_epoch = (lambda text: "end of epoch 1 (" in text), update_logged(UPDATES_PER_EPOCH + 3)
    second = kill_when(once, between_epochs if workers else within_epoch)
    assert "Loaded checkpoint" in second.stdout
    _cut(folder / LAST)  # as stock fairseq leaves it when it is killed while it copies

    written = "checkpoint_3_*.pt" if workers else LAST
    third = kill_when(once, being_written(folder, written, update_logged(2 * UPDATES_PER_EPOCH + 1)))
    assert f"{folder / LAST} is damaged" in third.stdout
    assert f"resuming from {folder}/checkpoint" in third.stdout
    assert is_intact(folder / LAST)

    fourth = succeed(once)
    assert _epochs(fourth) == [3, 4]
    final, expected = checkpoint(folder / LAST), uninterrupted(workers)
    history = final["optimizer_history"][-1]
    assert history["num_updates"] == EPOCHS * UPDATES_PER_EPOCH
    assert differing(history, expected["optimizer_history"][-1]) == []
    for part in ("model", "last_optimizer_state"):
        assert differing(final[part], expected[part]) == []
    assert final["extra_state"]["train_iterator"] == expected["extra_state"]["train_iterator"]
    assert ("ema" in final["extra_state"]) == bool(workers)
    for part in ("ema", "ema_fp32_params") if workers else ():
        assert differing(final["extra_state"][part], expected["extra_state"][part]) == []
    shutil.rmtree(folder)


@pytest.mark.slow
def test_the_number_of_workers_and_an_average_do_not_change_the_weights(uninterrupted: Any):
    assert differing(uninterrupted(0)["model"], uninterrupted(2)["model"]) == []


def test_only_damaged_checkpoints_are_reported_in_one_line(command: Command, tmp_path: Path):
    for name in (LAST, "checkpoint_best.pt", "checkpoint_1_2.pt"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 and no more")
    line = run(command(0, tmp_path)).complaint()
    assert str(tmp_path / LAST) in line
    assert "no intact checkpoint beside it; delete it to start anew" in line


def test_a_missing_restore_file_is_reported_in_one_line(command: Command, tmp_path: Path):
    missing = tmp_path / "missing.pt"
    line = run([*command(0, tmp_path / "run"), "--restore-file", str(missing)]).complaint()
    assert f"--restore-file {missing}: no such file" in line


def test_an_unknown_metric_is_reported_before_the_first_update(command: Command, tmp_path: Path):
    outcome = run([*command(0, tmp_path / "run"), "--best-checkpoint-metric", "meteor"])
    assert "--best-checkpoint-metric meteor: this run computes only loss, nll_loss, ppl" in outcome.complaint()
    assert outcome.logged("train_inner") == []


def _largest_change(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """Largest difference of trained weights (the statistics of batch norm move with every batch)."""
    trained = [key for key in before if before[key].is_floating_point() and "running" not in key]
    return max(float((before[key] - after[key]).abs().max()) for key in trained)


def test_restore_file_with_resets_starts_from_the_weights_every_time(data: Data, pretrained: Any, tmp_path: Path):
    """``--restore-file X --reset-optimizer --reset-dataloader --reset-meters`` begins epoch 1 with the weights of X.

    This holds every time: the same command started again, after a kill for instance, begins anew from X and not from
    its own last checkpoint. ``--finetune-from-model X``, below, continues instead. X holds weights only, no average of
    weights and no options.
    """
    weights = tmp_path / "weights.pt"
    torch.save({"model": pretrained["model"]}, weights)
    resets = ["--reset-optimizer", "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler"]
    still = ["--lr", "1e-9", "--max-update", "1", "--disable-validation", *EMA]
    command = train(data, tmp_path / "run", "--restore-file", str(weights), *resets, *still)
    for _ in range(2):
        outcome = succeed(command)
        assert f"Loaded checkpoint {weights} (epoch 1 @ 0 updates)" in outcome.stdout
        assert [record["num_updates"] for record in outcome.logged("train_inner")] == ["1"]
    state = checkpoint(tmp_path / "run" / LAST)
    assert _largest_change(pretrained["model"], state["model"]) < 1e-6
    assert _largest_change(pretrained["model"], state["extra_state"]["ema"]) < 1e-6


def test_finetune_from_model_continues_when_started_again(data: Data, pretrained: Any, tmp_path: Path):
    weights = tmp_path / "weights.pt"
    torch.save(pretrained, weights)
    command = train(
        data, tmp_path / "run", "--finetune-from-model", str(weights), "--disable-validation", "--max-epoch"
    )
    first = succeed([*command, "1"])
    assert f"Loaded checkpoint {weights}" in first.stdout
    assert _epochs(first) == [1]
    assert _epochs(succeed([*command, "2"])) == [2]
