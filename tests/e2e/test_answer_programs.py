"""Questions, statements and expressions through fairseq-train, fairseq-validate and fairseq-generate."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import NETWORK, OPTIMISATION, PLUGIN, ROOT, program, succeed, together

ROWS = 14
TASKS = {
    "vqa_gen": ("vqa", "0,5,2,3,4", "--prompt-type prev_output --ans2label-file {answers}", "vqa_score"),
    "snli_ve": ("snli", "0,2,3,4,5", "--prompt-type prev_output --add-caption", "snli_score"),
    "refcoco": ("refcoco", "0,4,2,3", "--max-image-size 32 --acc-thresh 0.3,0.5 --eval-acc", "score"),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows") / "digits"
    sizes = ["--train-rows", "24", "--val-rows", str(ROWS), "--test-rows", "4", "--tasks", "vqa_gen,refcoco,snli_ve"]
    command = [sys.executable, str(ROOT / "dataset_tools" / "digits.py"), "--output", str(folder), *sizes]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def flags(task: str, rows: Path, *files: str) -> list[str]:
    name, columns, more, _ = TASKS[task]
    data = ",".join(str(rows / f"{name}_{file}.tsv") for file in files)
    words = f"--user-dir {PLUGIN} --task {task} --selected-cols {columns} --patch-image-size 32 --bpe sentencepiece"
    sizes = "--code-dict-size 8 --num-bins 32 --max-source-positions 64 --max-target-positions 64"
    search = '{"beam": 3, "max_len_b": 4, "min_len": 4}' if task == "refcoco" else '{"beam": 3, "unnormalized": true}'
    return [
        *[data, *shlex.split(words), "--sentencepiece-model", str(rows / "digits.model"), *shlex.split(sizes)],
        *[*shlex.split(more.format(answers=rows / "answers.json")), "--eval-args", search],
    ]


@pytest.mark.parametrize("task", TASKS)
def test_training_validation_and_generation_give_the_same_score(task: str, rows: Path, tmp_path: Path) -> None:
    metric = TASKS[task][3]
    best = ["--best-checkpoint-metric", metric, "--maximize-best-checkpoint-metric", "--max-epoch", "1"]
    save = ["--save-dir", str(tmp_path / "run"), *NETWORK, *OPTIMISATION, *best]
    trained = succeed([program("fairseq-train"), *flags(task, rows, "train_1", "val"), *save])
    checkpoint = ["--path", str(tmp_path / "run" / "checkpoint_last.pt"), "--batch-size", "5", "--num-workers", "0"]
    valid = ["--valid-subset", "valid", "--log-format", "json"]
    search = "--beam 3 --max-len-b 4 --min-len 4" if task == "refcoco" else "--beam 3 --unnormalized"
    results = ["--results-path", str(tmp_path / "results"), "--gen-subset", "valid", *search.split()]
    validated, _ = together(
        [program("fairseq-validate"), *flags(task, rows, "val"), *checkpoint, *valid],
        [program("fairseq-generate"), *flags(task, rows, "val"), *checkpoint, *results],
    )
    assert validated.last("valid", f"valid_{metric}") == trained.last("valid", f"valid_{metric}")
    answers = json.loads((tmp_path / "results" / "valid_predict.json").read_text())
    meta = json.loads((tmp_path / "results" / "valid_predict.meta.json").read_text())
    assert len(answers) == ROWS and meta["task"] == task
    assert meta["scores"][metric] == pytest.approx(float(validated.last("valid", f"valid_{metric}")), abs=1e-4)
