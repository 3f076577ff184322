"""Commands that evaluate a merged file: what is found in their output, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from merge_bench import Bench

from unival_cli.merge_evaluations import evaluations_of, valid_lines
from unival_plugin.errors import ConfigError


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


SIMPLE = "2026-01-01 00:00:00 | INFO | val | valid on 'val' subset | loss 2.1 | cider 0.75"
OF_TRAINING = "2026-01-01 00:00:00 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 2 | cider 0.5 | wps 3"
AS_JSON = '2026-01-01 00:00:00 | INFO | val | {"val_loss": "2.1", "val_cider": "0.75"}'


@pytest.mark.parametrize("line, cider", [(SIMPLE, "0.75"), (OF_TRAINING, "0.5"), (AS_JSON, "0.75")])
def test_the_end_of_a_validation_is_understood(line: str, cider: str) -> None:
    (found,) = valid_lines(f"something\n{line}\nat last")
    assert found["cider"] == cider and set(found) >= {"loss", "cider"}


@pytest.mark.parametrize(
    "line",
    [
        "INFO | valid | valid on 'valid' subset:     3 / 10 loss=2.1, cider=0.4",
        'INFO | fairseq.logging.progress_bar | {"loss": "2.1"}',
        'INFO | train | {"train_loss": "2.1"}',
        "INFO | fairseq_cli.validate | {'_name': None}",
    ],
)
def test_lines_about_batches_training_and_options_are_not_validations(line: str) -> None:
    assert valid_lines(line) == []


def test_the_last_validation_that_has_the_metric_counts(bench: Bench) -> None:
    other = "print(\"valid on 'b' subset | near 2\"); print(\"valid on 'c' subset | loss 3\")"
    command = bench.python(f"print(\"valid on 'a' subset | near 1\"); {other}")
    assert bench.sweep(at="0.5", commands={"one": command}) == 0
    assert [line["value"] for line in bench.lines()] == [2]


def test_a_result_file_in_the_commands_own_folder_counts(bench: Bench) -> None:
    code = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[2]) / "results"
folder.mkdir()
(folder / "test_predict.meta.json").write_text(json.dumps({"scores": {"near": 0.25}}))
"""
    assert bench.sweep(commands={"one": bench.python(code)}) == 0
    assert [line["value"] for line in bench.lines()] == [0.25] * 3


def test_a_pattern_finds_the_last_number(bench: Bench) -> None:
    command = bench.python("print('accuracy: 0.5'); print('accuracy: 0.75')")
    assert bench.sweep("--metric", "one=re:accuracy: ([0-9.]+)", at="0.5", commands={"one": command}) == 0
    assert [line["value"] for line in bench.lines()] == [0.75]


def test_one_run_gives_several_metrics(bench: Bench) -> None:
    assert bench.sweep("--metric", "one=near", "--metric", "one=loss", at="0,1") == 0
    assert [(line["metric"], line["value"]) for line in bench.lines()] == [
        ("near", -2),
        ("loss", 1.5),
        ("near", 0),
        ("loss", 1.5),
    ]
    assert len(bench.evaluated()) == 2


def test_what_is_no_number_is_null(bench: Bench) -> None:
    assert bench.sweep(at="0.5", commands={"one": bench.python("print(\"valid on 'v' subset | near nan\")")}) == 0
    assert [line["value"] for line in bench.lines()] == [None]


@pytest.mark.parametrize(
    "commands, metrics, told",
    [
        (["x=run"], ["x=loss"], "{checkpoint}"),
        (["run {checkpoint}"], ["x=loss"], "needs a name"),
        (["x=run {checkpoint}"], [], "--metric x=loss"),
        (["x=run {checkpoint}"], ["x=loss", "y=loss"], "no --evaluate y"),
        (["x=run {checkpoint}", "x=go {checkpoint}"], ["x=loss"], "twice"),
        (["x=run '{checkpoint}"], ["x=loss"], "quotation"),
        (["x=run {checkpoint}"], ["x=re:loss"], "one group"),
        (["x=run {checkpoint}"], ["x=re:(loss"], "regular expression"),
        (["../x=run {checkpoint}"], ["../x=loss"], "needs a name"),
    ],
)
def test_malformed_evaluations_are_refused(commands: list[str], metrics: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        evaluations_of(commands, metrics)
