"""The scripts for questions, boxes and entailment: the published settings, and a training and evaluation of each."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ENVIRONMENT, ROOT


def bash(script: str, *settings: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{ENVIRONMENT['PATH']}"
    return subprocess.run(
        ["bash", str(ROOT / "run_scripts" / script), *settings],
        capture_output=True,
        text=True,
        timeout=300,
        env={**ENVIRONMENT, "VIRTUAL_ENV": sys.prefix, "PATH": path, **environment},
    )


def dry(script: str, *settings: str, **environment: str) -> list[list[str]]:
    """The commands that a script would run."""
    done = bash(script, "DRY_RUN=1", *settings, **environment)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def value(command: list[str], flag: str) -> str:
    assert command.count(flag) == 1, (flag, command)
    return command[command.index(flag) + 1]


def test_every_file_is_answered_with_every_checkpoint() -> None:
    commands = dry("snli_ve/eval/eval_snli_ve.sh", "DATA=a/x.tsv,b/y.tsv", "CHECKPOINT=m.pt,n.pt", "RESULTS=r")
    found = [(c[1], value(c, "--path"), value(c, "--results-path")) for c in commands]
    assert found == [(file, f"{model}.pt", f"r/{model}") for model in "mn" for file in ("a/x.tsv", "b/y.tsv")]


def test_results_of_the_same_name_are_refused() -> None:
    done = bash("refcoco/eval/eval_refcoco.sh", "DRY_RUN=1", "DATA=a/x.tsv,b/x.tsv")
    assert done.returncode == 2
    assert "two results would be named results/refcoco/x" in done.stderr


def test_several_gpus_train_together_in_half_precision_and_evaluate_on_one() -> None:
    (command,) = dry("vqa/unival_vqa.sh", CUDA_VISIBLE_DEVICES="0,1,2")
    assert command[:4] == ["torchrun", "--standalone", "--nproc-per-node", "3"] and "--fp16" in command
    (command,) = dry("vqa/eval/eval_vqa.sh", "EMA_EVAL=1", CUDA_VISIBLE_DEVICES="0,1,2")
    assert value(command, "--distributed-world-size") == "1" and {"--fp16", "--ema-eval"} <= set(command)


def test_the_frozen_parts_are_a_setting() -> None:
    (command,) = dry("caption/onlylinear/unival_caption_stage_s2_onlylinear.sh", "FREEZE=", "LR=1e-3")
    assert not any(word.startswith("--freeze") for word in command) and value(command, "--lr") == "1e-3"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows") / "digits"
    sizes = ["--train-rows", "12", "--val-rows", "6", "--test-rows", "6", "--tasks", "vqa_gen,refcoco,snli_ve"]
    command = [sys.executable, str(ROOT / "dataset_tools" / "digits.py"), "--output", str(folder), *sizes]
    subprocess.run(command, check=True, capture_output=True)
    return folder


RUNS = {
    "vqa": ("vqa/unival_vqa.sh", "vqa/eval/eval_vqa.sh", "vqa_score"),
    "refcoco": ("refcoco/unival_refcoco.sh", "refcoco/eval/eval_refcoco.sh", "acc0.5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_training_from_a_checkpoint_is_evaluated(name: str, rows: Path, tmp_path: Path) -> None:
    training, evaluation, metric = RUNS[name]
    settings = [
        f"TEXT=--bpe sentencepiece --sentencepiece-model {rows}/digits.model --code-dict-size 8 --num-bins 32",
        *[f"ANSWERS={rows}/answers.json", "PATCH_IMAGE_SIZE=32", "MAX_IMAGE_SIZE=32", "WORKERS=0", "BATCH_SIZE=6"],
    ]
    train = [
        *[*settings, f"DATA={rows}/{name}_train_1.tsv,{rows}/{name}_val.tsv", "ARCH=unival_tiny", "MAX_EPOCH=1"],
        *["UPDATE_FREQ=1", "EXTRA=--cpu --image-encoder-name timm_tiny --num-bins 32"],
    ]
    first = bash(training, *train, "INIT_FROM=", "EMA=", f"SAVE_DIR={tmp_path}/first")
    assert first.returncode == 0, first.stdout + first.stderr
    start = tmp_path / "first" / "checkpoint_last.pt"
    second = bash(training, *train, f"INIT_FROM={start}", f"SAVE_DIR={tmp_path}/second")
    assert second.returncode == 0, second.stdout + second.stderr
    average = ["EMA_EVAL=1"] if name == "vqa" else []
    done = bash(
        evaluation,
        *[*settings, *average, f"DATA={rows}/{name}_val.tsv,{rows}/{name}_test.tsv", "EXTRA=--cpu"],
        *[f"CHECKPOINT={tmp_path}/second/checkpoint_last.pt", f"RESULTS={tmp_path}/results"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for file in ("val", "test"):
        assert f"{name}_{file}_predict.meta.json {{" in done.stdout
        meta = json.loads((tmp_path / "results" / f"{name}_{file}_predict.meta.json").read_text())
        assert meta["rows"] == 6 and 0 <= meta["scores"][metric] <= 1


@pytest.mark.slow
def test_the_quickstart_goes_on_to_other_tasks(tmp_path: Path) -> None:
    settings = [f"FOLDER={tmp_path}", "INIT_FROM=", "TRAIN_ROWS=16", "MAX_EPOCH=1", "WORKERS=0", "TASKS=snli_ve"]
    done = bash("quickstart_answers.sh", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "snli_test_predict.meta.json {'snli_score'" in done.stdout
    assert (tmp_path / "snli_ve_sheet.png").is_file() and (tmp_path / "snli_ve" / "digits.model").is_file()


def test_the_quickstart_needs_its_captioner(tmp_path: Path) -> None:
    done = bash("quickstart_answers.sh", f"FOLDER={tmp_path}")
    assert done.returncode == 2 and "bash run_scripts/quickstart.sh makes it" in done.stderr
    done = bash("quickstart_answers.sh", f"FOLDER={tmp_path}", "INIT_FROM=", "TASKS=vqa", "DRY_RUN=1")
    assert done.returncode == 2 and "unknown task vqa; known are" in done.stderr


def test_the_quickstart_keeps_the_pictures_features_where_words_are_matched() -> None:
    commands = dry("quickstart_answers.sh", "INIT_FROM=m.pt")
    trained = {value(c, "--task"): "--freeze-image-encoder" in c for c in commands if "--save-dir" in c}
    assert trained == {"vqa_gen": True, "refcoco": False, "snli_ve": True}
