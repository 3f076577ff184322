"""The scripts for pictures from text: published settings, the way from stage 1 to the scores, and other settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import ROOT
from published import overrides_of, some
from test_answer_scripts import bash, dry, value

PUBLISHED = some(r"image_gen/.*")
FIRST, SECOND = STAGES = [f"image_gen/unival_image_gen_stage_{number}.sh" for number in (1, 2)]
EVALUATION = "image_gen/eval/eval_image_gen.sh"
TINY = [
    *["ARCH=unival_tiny", "NETWORK=--entangle-position-embedding", "TEXT=--bpe sentencepiece --num-bins 64"],
    *["CODE_IMAGE_SIZE=64", "VQGAN=t/last.ckpt", "VQGAN_CONFIG=t/model.yaml", "CLIP=c/clip.pt", "WORKERS=0"],
]


def dry_one(script: str, *settings: str, **environment: str) -> list[str]:
    (command,) = dry(script, *settings, **environment)
    return command


@pytest.mark.parametrize("script", STAGES)
def test_a_training_ends_by_updates(script: str) -> None:
    command = dry_one(script, "MAX_UPDATE=600", "WARMUP_UPDATES=30")
    assert value(command, "--max-update") == value(command, "--total-num-update") == "600"
    assert value(command, "--warmup-updates") == "30"
    assert not {"--max-epoch", "--warmup-ratio"} & set(command)


def test_every_stage_starts_from_the_one_before() -> None:
    first, second = dry_one(FIRST), dry_one(SECOND)
    assert value(first, "--finetune-from-model") == PUBLISHED[FIRST]["init_checkpoint"]
    assert value(second, "--finetune-from-model") == PUBLISHED[SECOND]["init_checkpoint"]
    assert value(second, "--finetune-from-model") == value(first, "--save-dir") + "/checkpoint_best.pt"
    assert value(dry_one(EVALUATION), "--path") == value(second, "--save-dir") + "/checkpoint_best.pt"
    assert "--finetune-from-model" not in dry_one(SECOND, "INIT_FROM=")


def test_the_evaluation_names_what_the_original_puts_into_its_overrides() -> None:
    row, command = PUBLISHED[EVALUATION], dry_one(EVALUATION)
    results = overrides_of(row)["--gen-images-path"]
    assert str(Path(value(command, "--gen-images-path")).parent) == str(Path(results).parent)
    assert value(command, "--gen-subset") == "test"
    assert value(command, "--max-src-length") == value(dry_one(FIRST), "--max-src-length")
    other = re.search(r"seed=(\d+)", row["other_flags"])
    assert other and value(command, "--seed") == other[1]


def test_scores_of_the_best_pictures_are_computed_if_their_network_is_given() -> None:
    settings = ["INCEPTION=inception.pth", "GT_STAT=real.npz", "GEN_IMAGES=drawn"]
    drawn, *scores = dry(EVALUATION, *settings)
    assert value(drawn, "--gen-images-path") == "drawn"
    for command, name in zip(scores, ("inception_score.py", "fid_score.py"), strict=True):
        assert command[:2] == ["python", str(ROOT / "run_scripts/image_gen" / name)]
        assert f"{name} --gpu" in PUBLISHED[EVALUATION]["other_flags"]
        assert (value(command, "--path1"), value(command, "--batch-size")) == ("drawn/top1", "128")
        assert value(command, "--weights") == "inception.pth"
    assert value(scores[1], "--path2") == "real.npz" and "--path2" not in scores[0]
    assert len(dry(EVALUATION)) == 1


# ---- other settings


@pytest.mark.parametrize("script", STAGES)
def test_settings_of_a_small_network_reach_both_stages(script: str) -> None:
    numbers = ["LR=3e-3", "BATCH_SIZE=32", "UPDATE_FREQ=3", "BATCH_SIZE_VALID=16", "MAX_UPDATE=9", "WARMUP_UPDATES=2"]
    more = ["SAVE_INTERVAL=5", "VALIDATE_INTERVAL=4", "SAVE_INTERVAL_UPDATES=7", "VALIDATE_INTERVAL_UPDATES=8"]
    ways = ["INIT_FROM=m.pt", "DATA=a.tsv,b.tsv", "SAVE_DIR=run", "GEN_IMAGES=", "SELECTED_COLS=0,1,2", "FREEZE="]
    searches = ['EVAL_ARGS={"beam": 2}', 'SCST_ARGS={"beam": 3}', "EXTRA=--dropout 0 --cpu"]
    command = dry_one(script, *TINY, *numbers, *more, *ways, *searches)
    expected = {
        **{"--arch": "unival_tiny", "--bpe": "sentencepiece", "--code-image-size": "64", "--num-workers": "0"},
        **{
            "--vqgan-model-path": "t/last.ckpt",
            "--vqgan-config-path": "t/model.yaml",
            "--clip-model-path": "c/clip.pt",
        },
        **{"--lr": "3e-3", "--batch-size": "32", "--update-freq": "3", "--batch-size-valid": "16"},
        **{"--max-update": "9", "--warmup-updates": "2", "--save-interval": "5", "--validate-interval": "4"},
        **{"--save-interval-updates": "7", "--validate-interval-updates": "8", "--finetune-from-model": "m.pt"},
        **{"--save-dir": "run", "--selected-cols": "0,1,2", "--eval-args": '{"beam": 2}'},
        **({"--scst-args": '{"beam": 3}'} if script == SECOND else {}),
    }
    assert {flag: value(command, flag) for flag in expected} == expected
    assert command[1] == "a.tsv,b.tsv" and command[-3:] == ["--dropout", "0", "--cpu"]
    assert not {"--gen-images-path", "--scale-attn", "--bpe-dir", "--fp16", "--freeze-resnet"} & set(command)


def test_settings_of_a_small_network_reach_the_evaluation() -> None:
    numbers = ["BEAM=4", "SAMPLING_TOPK=8", "TEMPERATURE=0.7", "BATCH_SIZE=50", "SEED=3"]
    ways = ["CHECKPOINT=m.pt", "DATA=t.tsv", "RESULTS=r", "SPLIT=digits", "SELECTED_COLS=0,1", "CLIP=", "EXTRA=--cpu"]
    command = dry_one(EVALUATION, *TINY, *numbers, *ways)
    expected = {
        **{"--beam": "4", "--sampling-topk": "8", "--temperature": "0.7", "--batch-size": "50", "--seed": "3"},
        **{"--path": "m.pt", "--results-path": "r", "--gen-subset": "digits", "--selected-cols": "0,1"},
        **{"--gen-images-path": "r", "--code-image-size": "64", "--vqgan-model-path": "t/last.ckpt"},
    }
    assert {flag: value(command, flag) for flag in expected} == expected
    assert command[1] == "t.tsv" and command[-1] == "--cpu" and "--clip-model-path" not in command


@pytest.mark.parametrize("setting", ["DATA=a.tsv,b.tsv", "CHECKPOINT=a.pt,b.pt"])
def test_pictures_of_several_evaluations_are_not_mixed(setting: str) -> None:
    done = bash(EVALUATION, "DRY_RUN=1", setting, "GEN_IMAGES=drawn")
    assert done.returncode == 2 and "would mix their pictures in drawn" in done.stderr


@pytest.mark.parametrize("script", PUBLISHED)
def test_help_tells_all_settings(script: str) -> None:
    done = bash(script, "--help")
    assert done.returncode == 0 and f"usage: bash run_scripts/{script}" in done.stdout
    source = "".join((ROOT / "run_scripts" / name).read_text() for name in (script, "image_gen/common.sh"))
    of_others = {"BATCH_SIZE_VALID"} if script == EVALUATION else {"INCEPTION", "SCORE_BATCH_SIZE"}
    for name in set(re.findall(r"\$\{([A-Z][A-Z_]+):?-", source)) - of_others:
        assert name in done.stdout, name


@pytest.mark.parametrize("name", ["DATA", "CHECKPOINT", "VQGAN", "VQGAN_CONFIG", "CLIP", "INCEPTION", "GT_STAT"])
def test_a_missing_input_is_named(name: str, tmp_path: Path) -> None:
    inputs = ["DATA", "CHECKPOINT", "VQGAN", "VQGAN_CONFIG", "CLIP", "INCEPTION", "GT_STAT"]
    for other in inputs:
        (tmp_path / other).touch()
    (tmp_path / name).unlink()
    done = bash(EVALUATION, "TEXT=--bpe x", *(f"{other}={tmp_path / other}" for other in inputs))
    assert done.returncode == 2 and f"{tmp_path / name}: no such file or folder ({name}" in done.stderr
