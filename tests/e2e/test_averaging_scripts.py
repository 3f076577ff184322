"""The scripts of ratatouille, fusing, interpolation and rewarded soups: published settings, and the procedures."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from published import some
from test_answer_scripts import bash, dry, value

SCRIPTS = ROOT / "run_scripts"
PUBLISHED = some(r"averaging/.*|caption/(eval/eval_caption(_avg)?|unival_caption_stage_1)\.sh")


def test_there_is_no_other_script_for_a_step() -> None:
    found = {str(path.relative_to(SCRIPTS)) for path in SCRIPTS.glob("averaging/*/scaling_best/**/*.sh")}
    assert found == {script for script in PUBLISHED if "scaling_best" in script}


def test_a_step_takes_the_settings_of_the_task() -> None:
    settings = ["LR=1e-3", "INIT_FROM=m.pt", "SAVE_DIR=run", "FREEZE="]
    (command,) = dry("averaging/fusing/scaling_best/unival_vqa_initavg_caprefsnlivqa.sh", *settings)
    assert (value(command, "--lr"), value(command, "--save-dir")) == ("1e-3", "run")
    assert value(command, "--finetune-from-model") == "m.pt" and "--freeze-encoder-embedding" not in command


# ---- whole procedures

TINY = [
    *["ARCH=unival_tiny", "NETWORK=--entangle-position-embedding", "TEXT=--bpe sentencepiece --num-bins 64"],
    *["PATCH_IMAGE_SIZE=64", "EXTRA=--dropout 0", "DATA=t.tsv,v.tsv", "TEST_DATA=x.tsv", "TEST_EXTRA=--cpu"],
]


def programs(commands: list[list[str]]) -> list[str]:
    return [Path(command[0]).name for command in commands]


def test_averages_are_named_as_fusing_expects_them() -> None:
    (command,) = dry("averaging/average.sh")
    assert command[:2] == ["unival", "merge"] and "--coefficients" not in command
    start = PUBLISHED["averaging/fusing/scaling_best/unival_vqa_initavg_caprefsnlivqa.sh"]["init_checkpoint"]
    assert value(command, "--output") == start
    settings = ["CHECKPOINTS=a.pt,b.pt", "COEFFICIENTS=0.3,0.7", "OUTPUT=c.pt", "MERGE=--ema"]
    (command,) = dry("averaging/average.sh", *settings)
    assert shlex.join(command) == "unival merge a.pt b.pt --output c.pt --coefficients=0.3,0.7 --ema"


def test_ratatouille_finetunes_averages_and_evaluates() -> None:
    *trainings, merge, test = dry(
        "averaging/ratatouille/ratatouille.sh", "TARGET=snli_ve", "FOLDER=r", "VQA_MODEL=q.pt", *TINY
    )
    starts = {value(c, "--save-dir"): value(c, "--finetune-from-model") for c in trainings}
    assert list(starts) == ["r/from_caption", "r/from_refcocoplus", "r/from_vqa"] and starts["r/from_vqa"] == "q.pt"
    assert all(value(c, "--task") == "snli_ve" and c[1] == "t.tsv,v.tsv" for c in trainings)
    own = "logs/ofa/checkpoints/snli_ve/unival_snli_ve/checkpoint_best.pt"
    assert merge[2:6] == [own, *(f"{folder}/checkpoint_best.pt" for folder in starts)]
    assert value(merge, "--output") == value(test, "--path") == "r/average.pt"
    assert (test[1], value(test, "--results-path")) == ("x.tsv", "r/results")


def test_settings_of_a_small_network_reach_training_and_evaluation() -> None:
    first, *_, test = dry("averaging/ratatouille/ratatouille.sh", "TARGET=refcocoplus", "FOLDER=r", *TINY)
    assert value(first, "--arch") == "unival_tiny" and "--entangle-position-embedding" in first
    assert not {"--scale-attn", "--image-encoder-name"} & set(first)
    assert first[-2:] == ["--dropout", "0"] and first[len(first) - first[::-1].index("--num-bins")] == "64"
    assert test[-1] == "--cpu" and "--dropout" not in test
    for command in (first, test):
        assert value(command, "--bpe") == "sentencepiece" and value(command, "--patch-image-size") == "64"


def test_auxiliaries_and_the_own_model_are_chosen() -> None:
    commands = dry("averaging/ratatouille/ratatouille.sh", "TARGET=vqa", "FOLDER=r", "AUXILIARIES=caption", "OWN=")
    assert programs(commands) == ["fairseq-train", "unival", "fairseq-generate"]
    assert commands[1][2:4] == ["r/from_caption/checkpoint_best.pt", "--output"]


@pytest.mark.parametrize("target", ["video_caption", "video_vqa"])
def test_films_have_their_own_auxiliary(target: str) -> None:
    training, merge, test = dry("averaging/ratatouille/ratatouille.sh", f"TARGET={target}", "FOLDER=r")
    assert value(training, "--task").startswith(target) and value(test, "--task").startswith(target)
    assert len([word for word in merge if word.endswith("checkpoint_best.pt")]) == 2


def test_unknown_targets_and_auxiliaries_are_refused() -> None:
    done = bash("averaging/ratatouille/ratatouille.sh", "TARGET=ocr", "DRY_RUN=1")
    assert done.returncode == 2 and "unknown task ocr; known are caption," in done.stderr
    done = bash("averaging/ratatouille/ratatouille.sh", "TARGET=vqa", "AUXILIARIES=vqa", "DRY_RUN=1")
    assert done.returncode == 2 and "no script from vqa to vqa; known are caption refcocoplus snli_ve" in done.stderr


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    done = bash("averaging/ratatouille/ratatouille.sh", f"FOLDER={tmp_path}", f"VQA_MODEL={tmp_path}/none.pt")
    assert done.returncode == 2 and "none.pt: no such file" in done.stderr and "VQA_MODEL" in done.stderr


@pytest.mark.parametrize("target", ["caption", "refcocoplus", "snli_ve", "vqa", "video_caption", "video_vqa"])
def test_fusing_averages_finetunes_and_evaluates(target: str) -> None:
    merge, training, test, *_ = dry("averaging/fusing/fusing.sh", f"TARGET={target}", "FOLDER=f")
    assert len([w for w in merge if w.endswith("checkpoint_best.pt")]) == (2 if target.startswith("video") else 4)
    assert value(merge, "--output") == value(training, "--finetune-from-model") == "f/average.pt"
    assert f"{value(training, '--save-dir')}/checkpoint_best.pt" == value(test, "--path")


def test_finished_steps_are_not_done_again(tmp_path: Path) -> None:
    start = tmp_path / "caption.pt"
    folder = tmp_path / "r" / "from_caption"
    folder.mkdir(parents=True)
    (folder / "finished").write_text(f"{start}\n")
    settings = [f"FOLDER={tmp_path}/r", "AUXILIARIES=caption", "OWN="]
    commands = dry("averaging/ratatouille/ratatouille.sh", *settings, f"CAPTION_MODEL={start}")
    assert programs(commands) == ["unival", "fairseq-generate"]
    (tmp_path / "r" / "average.pt").touch()
    commands = dry("averaging/ratatouille/ratatouille.sh", *settings, f"CAPTION_MODEL={start}")
    assert programs(commands) == ["fairseq-generate"]
    done = bash("averaging/ratatouille/ratatouille.sh", "DRY_RUN=1", *settings, "CAPTION_MODEL=other.pt")
    assert done.returncode == 2 and "was trained from" in done.stderr and "choose another FOLDER" in done.stderr


def test_an_interpolation_evaluates_tasks_with_their_own_settings() -> None:
    settings = ["FIRST=a.pt", "SECOND=b.pt", "FOLDER=i", "VQA_ANSWERS=my answers.json", "VQA_METRIC=vqa_score,loss"]
    (command,) = dry("averaging/interpolate.sh", *settings, "CAPTION_EXTRA=--prefix it's", "MERGE=--keep-checkpoints")
    assert command[:4] == ["unival", "merge", "a.pt", "b.pt"] and value(command, "--output") == "i"
    assert (value(command, "--sweep"), command[-1]) == ("0:1:0.2", "--keep-checkpoints")
    evaluations = [command[i + 1] for i, word in enumerate(command) if word == "--evaluate"]
    assert [text.partition("=")[0] for text in evaluations] == ["caption", "vqa"]
    caption, vqa = (shlex.split(text.partition("=")[2]) for text in evaluations)
    assert "EXTRA=--prefix it's" in caption and "ANSWERS=my answers.json" in vqa
    assert all(words[-2:] == ["CHECKPOINT={checkpoint}", "RESULTS={output}"] for words in (caption, vqa))
    metrics = [command[i + 1] for i, word in enumerate(command) if word == "--metric"]
    assert metrics == ["caption=cider", "vqa=vqa_score", "vqa=loss"]


@pytest.mark.parametrize("task", ["caption", "refcocoplus", "snli_ve", "vqa", "video_caption", "video_vqa"])
def test_an_interpolation_evaluates_one_file_per_step(task: str) -> None:
    (command,) = dry("averaging/interpolate.sh", "FIRST=a.pt", "SECOND=b.pt", f"TASKS={task}")
    words = shlex.split(value(command, "--evaluate").partition("=")[2].replace("{checkpoint}", "m.pt"))
    script = Path(words[1]).relative_to(SCRIPTS)
    (evaluation,) = dry(str(script), *words[2:])
    assert value(evaluation, "--path") == "m.pt"


def test_rewarded_soups_tell_small_and_large_boxes() -> None:
    (command,) = dry("averaging/rewarded_soups.sh", "REFCOCOPLUS_DATA=x.tsv")
    assert "small" in command[2] and "large" in command[3] and value(command, "--sweep") == "0:1:0.1"
    words = shlex.split(value(command, "--evaluate").partition("=")[2])
    assert {"ACC_THRESH=0.5", "AREAS=--min-area-size 100000 --max-area-size 30000", "DATA=x.tsv"} <= set(words)
    metrics = [command[i + 1] for i, word in enumerate(command) if word == "--metric"]
    assert metrics == ["refcocoplus=score_small", "refcocoplus=score_large"]


@pytest.mark.slow
def test_ratatouille_on_digits(tmp_path: Path) -> None:
    """Models for boxes and for statements, the former finetuned for statements, the average of both evaluated."""
    rows = tmp_path / "rows"
    make = ["--train-rows", "8", "--val-rows", "4", "--test-rows", "4", "--tasks", "refcoco,snli_ve"]
    digits = [sys.executable, str(ROOT / "dataset_tools" / "digits.py"), "--output", str(rows), *make]
    subprocess.run(digits, check=True, capture_output=True)
    settings = [
        f"TEXT=--bpe sentencepiece --sentencepiece-model {rows}/digits.model --code-dict-size 8 --num-bins 32",
        *["ARCH=unival_tiny", "NETWORK=--entangle-position-embedding", "PATCH_IMAGE_SIZE=32", "MAX_IMAGE_SIZE=32"],
        *["WORKERS=0", "BATCH_SIZE=4", "UPDATE_FREQ=1", "MAX_EPOCH=1", "EXTRA=--cpu"],
    ]
    for name, script in {"refcoco": "refcoco/unival_refcocoplus.sh", "snli": "snli_ve/unival_snli_ve.sh"}.items():
        data = f"DATA={rows}/{name}_train_1.tsv,{rows}/{name}_val.tsv"
        done = bash(script, *settings, data, "INIT_FROM=", f"SAVE_DIR={tmp_path}/{name}")
        assert done.returncode == 0, done.stdout + done.stderr
    procedure = [
        *["averaging/ratatouille/ratatouille.sh", "TARGET=snli_ve", "AUXILIARIES=refcocoplus", *settings],
        *[f"SNLI_VE_MODEL={tmp_path}/snli/checkpoint_best.pt", f"FOLDER={tmp_path}/r", "TEST_EXTRA=--cpu"],
        *[f"REFCOCOPLUS_MODEL={tmp_path}/refcoco/checkpoint_best.pt", f"TEST_DATA={rows}/snli_test.tsv"],
        f"DATA={rows}/snli_train_1.tsv,{rows}/snli_val.tsv",
    ]
    done = bash(*procedure)
    assert done.returncode == 0, done.stdout + done.stderr
    meta = json.loads((tmp_path / "r" / "results" / "snli_test_predict.meta.json").read_text())
    assert meta["rows"] == 4 and "snli_score" in meta["scores"]
    again = bash(*procedure)
    assert (again.returncode, again.stdout) == (0, "")
    shutil.rmtree(tmp_path / "r" / "results")
    assert programs(dry(*procedure)) == ["fairseq-generate"]
