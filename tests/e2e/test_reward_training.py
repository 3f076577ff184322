"""Reward training: the published settings of its scripts, and fairseq-train with cross entropy, then with rewards."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from commands import (
    NETWORK,
    OPTIMISATION,
    Data,
    Outcome,
    checkpoint,
    copy_with,
    differing,
    program,
    succeed,
    train,
)
from published import flags_of, some
from test_answer_programs import flags, rows  # noqa: F401  (a fixture)
from test_answer_scripts import dry, value
from test_distributed import torchrun

PUBLISHED = some(r"refcoco/scst/.*")


@pytest.mark.parametrize("script", PUBLISHED)
def test_only_the_published_sizes_are_rewarded(script: str) -> None:
    (command,) = dry(script)
    sizes = {"--max-area-size", "--min-area-size", "--medium-area"}
    assert sizes & set(command) == sizes & set(flags_of(PUBLISHED[script]))
    assert Path(value(command, "--save-dir")).name == Path(script).stem


def test_sizes_are_a_setting() -> None:
    (command,) = dry("refcoco/scst/unival_refcocoplus_acc0_5medium_lreinf5.sh", "MIN_AREA=", "MEDIUM=", "MAX_AREA=9")
    assert value(command, "--max-area-size") == "9"
    assert not {"--min-area-size", "--medium-area"} & set(command)


def test_captions_have_the_settings_of_the_original() -> None:
    (command,) = dry("caption/scst/unival_caption_stage_2.sh", "SCST_DF=train.json", "CIDER_DF=valid.json")
    search = '{"beam":5,"max_len_b":16,"no_repeat_ngram_size":3}'
    settings = {
        "--criterion": "scst_reward_criterion", "--lr": "1e-5", "--max-epoch": "3", "--batch-size": "2",
        "--update-freq": "4", "--warmup-ratio": "0.06", "--dropout": "0.0", "--encoder-drop-path-rate": "0.0",
        "--decoder-drop-path-rate": "0.0", "--patch-image-size": "480", "--end-learning-rate": "2e-7",
        "--scst-args": search, "--eval-args": search, "--selected-cols": "1,4,2", "--best-checkpoint-metric": "cider",
        "--scst-cider-cached-tokens": "train.json", "--eval-cider-cached-tokens": "valid.json",
    }  # fmt: skip
    assert {flag: value(command, flag) for flag in settings} == settings
    assert {"--scst", "--freeze-encoder-embedding", "--freeze-decoder-embedding"} <= set(command)


def rewarded(command: list[str], criterion: str) -> list[str]:
    """A command with another criterion, which knows no label smoothing."""
    place = command.index("--label-smoothing")
    return [*command[:place], *command[place + 2 :], "--criterion", criterion]


def check_rewarded(first: Path, second: Path, outcome: Outcome, metric: str) -> None:
    """The second training has gone on from the first, has learned, and has told finite rewards."""
    weights = [checkpoint(folder / "checkpoint_last.pt")["model"] for folder in (first, second)]
    assert differing(*weights)
    for record in outcome.logged("train_inner"):
        assert math.isfinite(float(record["loss"])) and float(record["score"]) >= 0
    assert math.isfinite(float(outcome.last("valid", f"valid_{metric}")))
    assert "has not been loaded" not in outcome.text


@pytest.mark.slow
def test_boxes_learn_from_cross_entropy_and_then_from_rewards(rows: Path, tmp_path: Path) -> None:  # noqa: F811
    common = [*flags("refcoco", rows, "train_1", "val"), *NETWORK, *OPTIMISATION, "--max-epoch", "1"]
    first, second = tmp_path / "first", tmp_path / "second"
    succeed([program("fairseq-train"), *common, "--save-dir", str(first)])
    rewards = "--scst --lambda-reinforce 5.0 --metric acc --min-area-size 300 --max-area-size 100 --medium-area"
    more = [*rewards.split(), "--scst-args", '{"beam":2,"min_len":4,"max_len_a":0,"max_len_b":4}']
    start = ["--finetune-from-model", str(first / "checkpoint_last.pt")]
    command = rewarded([program("fairseq-train"), *common, "--save-dir", str(second)], "refcoco_scst_reward_criterion")
    done = succeed([*command, *more, *start])
    check_rewarded(first, second, done, "score")
    state = checkpoint(second / "checkpoint_last.pt")["cfg"]
    assert state["criterion"]["acc_thresh"] == state["task"]["acc_thresh"] == "0.3,0.5"
    assert state["criterion"]["min_area_size"] == state["task"]["min_area_size"] == 300.0


@pytest.mark.slow
def test_captions_learn_from_cross_entropy_and_then_from_rewards(data: Data, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    succeed(train(data, first, "--max-epoch", "1"))
    more = ["--scst", "--scst-args", '{"beam":3,"max_len_b":6}', "--eval-cider", "--eval-args", '{"max_len_b":6}']
    start = ["--finetune-from-model", str(first / "checkpoint_last.pt"), "--max-update", "6"]
    done = succeed([*rewarded(train(data, second), "scst_reward_criterion"), *more, *start])
    check_rewarded(first, second, done, "cider")


@pytest.mark.slow
def test_a_process_without_rows_keeps_in_step(data: Data, tmp_path: Path) -> None:
    """In the second epoch and in validation one process has a row to search, the other none."""
    few = Data(tmp_path)
    for name, number in (("train_1.tsv", 5), ("train_2.tsv", 1), ("val.tsv", 1)):
        copy_with(data.file(name), few.file(name), lambda _, cells: cells, number)
    few.file("digits.model").write_bytes(data.file("digits.model").read_bytes())
    more = ["--scst", "--scst-args", '{"beam":2,"max_len_b":6}', "--max-epoch", "2"]
    outcome = succeed(torchrun("--no-python", *rewarded(train(few, tmp_path / "run"), "scst_reward_criterion"), *more))
    assert [record["train_num_updates"] for record in outcome.logged("train")] == ["1", "2"]
    assert float(outcome.last("valid", "valid_nsentences")) == 2  # hypotheses of one row
