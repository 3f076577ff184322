"""The scripts of pretraining: published settings, and the way from one stage to the next."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from commands import ROOT
from published import flags_of, some
from test_answer_scripts import bash, dry, value

PUBLISHED = some(r"pretraining/.*")
STAGES = ["pretraining/unival_s1.sh", "pretraining/unival_s2.sh", "pretraining/unival_s2_hs.sh"]
FIRST, SECOND, THIRD = STAGES
UNDEFINED = {"text-selected-cols", "image-selected-cols", "detection-selected-cols"}
"""What the original's scripts pass and no code of it defines."""
SOURCES = ["IMAGE_TEXT", "IMAGE_TEXT_VQA", "IMAGE_TEXT_GROUND", "VIDEO", "VIDEO_TEXT", "AUDIO", "AUDIO_TEXT"]
TINY = [
    *["ARCH=unival_tiny", "NETWORK=--entangle-position-embedding", "TEXT=--bpe sentencepiece --num-bins 64"],
    *["PATCH_IMAGE_SIZE=64", "MAX_IMAGE_SIZE=64", "RESNET=", "RESNEXT=", "MEDIA_FLAGS=", "EXTRA=--dropout 0"],
]


def dry_one(script: str, *settings: str, **environment: str) -> list[str]:
    (command,) = dry(script, *settings, **environment)
    return command


def mixed_in(command: list[str]) -> dict[str, str]:
    """Files and counts of the sources beside the main one, by flag."""
    return {flag: value(command, flag) for flag in command if re.fullmatch(r"--[a-z-]+-(data|cnt)", flag)}


def test_every_stage_of_the_original_is_here() -> None:
    found = {str(path.relative_to(ROOT / "run_scripts")) for path in (ROOT / "run_scripts/pretraining").glob("*.sh")}
    assert found - {"pretraining/common.sh"} == set(PUBLISHED) == set(STAGES)


@pytest.mark.parametrize("script", STAGES)
def test_the_published_sources_are_mixed_in_and_no_other(script: str) -> None:
    published = {flag: value for flag, value in flags_of(PUBLISHED[script]).items() if re.search("-(data|cnt)$", flag)}
    assert published and mixed_in(dry_one(script)) == published


@pytest.mark.parametrize("script", STAGES)
def test_flags_that_nothing_defines_are_left_out(script: str) -> None:
    assert not {f"--{name}" for name in UNDEFINED} & set(dry_one(script))


def test_every_stage_starts_from_the_published_checkpoint_of_the_one_before() -> None:
    starts = {script: PUBLISHED[script]["init_checkpoint"] for script in STAGES}
    commands = {script: dry_one(script) for script in STAGES}
    assert value(commands[FIRST], "--init-from") == starts[FIRST] and starts[FIRST].endswith("bart.base/model.pt")
    for before, script in [(FIRST, SECOND), (SECOND, THIRD)]:
        assert value(commands[script], "--finetune-from-model") == starts[script]
        assert str(Path(starts[script]).parent) == value(commands[before], "--save-dir")
        assert "--init-from" not in commands[script]


def test_the_way_weights_are_taken_is_a_setting() -> None:
    command = dry_one(FIRST, "INIT_FROM=m.pt", "INIT_FLAG=--finetune-from-model")
    assert value(command, "--finetune-from-model") == "m.pt" and "--init-from" not in command
    assert not {"--finetune-from-model", "--init-from"} & set(dry_one(SECOND, "INIT_FROM="))


def test_trunks_start_from_their_own_files_in_the_stage_that_brings_them() -> None:
    flags = {"--resnet-model-path": FIRST, "--video-model-path": SECOND}
    for flag, stage in flags.items():
        for script in STAGES:
            command = dry_one(script)
            assert (flag in command) == (script == stage)
        published = re.search(rf"{flag[2:]}=(\S+)", PUBLISHED[stage]["other_flags"])
        assert published and value(dry_one(stage), flag) == published[1]
    assert value(dry_one(THIRD, "RESNEXT=films.pth"), "--video-model-path") == "films.pth"


def test_epochs_are_kept_and_nothing_is_validated() -> None:
    for script in STAGES:
        command = dry_one(script, "KEEP_LAST_EPOCHS=3")
        assert value(command, "--keep-last-epochs") == "3" and "--disable-validation" in command
        assert not {"--no-epoch-checkpoints", "--best-checkpoint-metric", "--keep-best-checkpoints"} & set(command)


# ---- other settings


@pytest.mark.parametrize("script", STAGES)
def test_any_source_can_be_mixed_in_or_left_out(script: str) -> None:
    nothing = [f"{name}_DATA=" for name in SOURCES]
    assert not mixed_in(dry_one(script, *nothing))
    everything = [f"{name}_DATA={name}.tsv" for name in SOURCES]
    found = mixed_in(dry_one(script, *everything, *(f"{name}_CNT={i}" for i, name in enumerate(SOURCES, 3))))
    names = {name: "--" + name.lower().replace("_", "-") for name in SOURCES}
    assert {flag: found[flag] for flag in found if flag.endswith("-data")} == {
        f"{flag}-data": f"{name}.tsv" for name, flag in names.items()
    }
    assert [found[f"{flag}-cnt"] for flag in names.values()] == [str(i) for i in range(3, 3 + len(SOURCES))]


def test_films_and_sounds_may_have_other_columns() -> None:
    settings = ["AUDIO_DATA=a.tsv", "VIDEO_SELECTED_COLS=0,1", "AUDIO_ENCODER=pann_cnn14", "SELECTED_COLS=2,3"]
    command = dry_one(SECOND, *settings)
    assert value(command, "--video-selected-cols") == "0,1" and value(command, "--selected-cols") == "2,3"
    assert value(command, "--audio-selected-cols") == "0,1,2,3,4,5,6,7"
    assert value(command, "--audio-encoder-name") == "pann_cnn14"
    assert not {"--video-selected-cols", "--audio-selected-cols"} & set(dry_one(FIRST))


@pytest.mark.parametrize("script", STAGES)
def test_settings_of_a_small_network_reach_every_stage(script: str) -> None:
    more = ["INIT_FROM=m.pt", "NUM_FRAMES=2", "PATCH_FRAME_SIZE=32", "VIDEO_ENCODER=timm_tiny", "MAX_EPOCH=3"]
    numbers = ["LR=1e-3", "BATCH_SIZE=16", "UPDATE_FREQ=1", "SAVE_INTERVAL_UPDATES=7", "WORKERS=0", "DATA=a.tsv,b.tsv"]
    command = dry_one(script, *TINY, *more, *numbers, "SAVE_DIR=run", "NEG_SAMPLE_DIR=wrong", "IMAGE_DIR=media")
    expected = {
        **{"--arch": "unival_tiny", "--bpe": "sentencepiece", "--patch-image-size": "64", "--max-image-size": "64"},
        **{"--num-frames": "2", "--patch-frame-size": "32", "--video-encoder-name": "timm_tiny", "--max-epoch": "3"},
        **{"--lr": "1e-3", "--batch-size": "16", "--update-freq": "1", "--save-interval-updates": "7"},
        **{"--num-workers": "0", "--save-dir": "run", "--neg-sample-dir": "wrong", "--image-dir": "media"},
    }
    assert {flag: value(command, flag) for flag in expected} == expected
    assert command[1] == "a.tsv,b.tsv" and command[-2:] == ["--dropout", "0"]
    assert command[len(command) - command[::-1].index("--num-bins")] == "64"
    left_out = {"--scale-attn", "--image-encoder-name", "--read-from-img-path", "--bpe-dir", "--fp16"}
    assert not (left_out | {"--resnet-model-path", "--video-model-path"}) & set(command)


def test_environment_variables_are_settings_too() -> None:
    command = dry_one(THIRD, LR="3e-5", IMAGE_TEXT_DATA="x.tsv", PRECISION="--bf16")
    assert value(command, "--lr") == "3e-5" and value(command, "--image-text-data") == "x.tsv" and "--bf16" in command


def test_all_gpus_of_all_nodes_train_together(tmp_path: Path) -> None:
    command = dry_one(SECOND, CUDA_VISIBLE_DEVICES="0,1,2")
    assert command[:4] == ["torchrun", "--standalone", "--nproc-per-node", "3"]
    assert value(command, "--ddp-backend") == "no_c10d" and value(command, "--fp16-scale-window") == "128"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[7-8]" ] && printf "node7\\nnode8\\n"\n')
    scontrol.chmod(0o755)
    slurm = {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "node[7-8]"}
    command = dry_one(SECOND, "PROCESSES=8", **slurm, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    expected = {"--nnodes": "2", "--node-rank": "1", "--master-addr": "node7", "--nproc-per-node": "8"}
    assert command[0] == "torchrun" and {flag: value(command, flag) for flag in expected} == expected


@pytest.mark.parametrize("script", STAGES)
def test_help_tells_the_stage_and_all_settings(script: str) -> None:
    done = bash(script, "--help")
    assert done.returncode == 0 and f"usage: bash run_scripts/{script}" in done.stdout
    assert f"stage {STAGES.index(script) + 1} of 3" in done.stdout
    source = (ROOT / "run_scripts/pretraining/common.sh").read_text() + (ROOT / "run_scripts" / SECOND).read_text()
    for name in set(re.findall(r"\$\{([A-Z][A-Z_]+):?-", source)) - {"VIDEO_DATA", "AUDIO_DATA", "VIDEO_CNT"}:
        assert name in done.stdout or re.fullmatch(r"IMAGE_TEXT_[A-Z_]*DATA", name), name
    assert all(name in done.stdout for name in SOURCES)


@pytest.mark.parametrize("name", ["DATA", "NEG_SAMPLE_DIR", "IMAGE_TEXT_VQA_DATA", "INIT_FROM", "RESNET"])
def test_a_missing_input_is_named(name: str, tmp_path: Path) -> None:
    inputs = ["DATA", "NEG_SAMPLE_DIR", "IMAGE_TEXT_VQA_DATA", "INIT_FROM", "RESNET"]
    for other in inputs:
        (tmp_path / other).touch()
    (tmp_path / name).unlink()
    others = ["IMAGE_TEXT_DATA=", "IMAGE_TEXT_GROUND_DATA=", "TEXT=--bpe x"]
    done = bash(FIRST, *others, *(f"{other}={tmp_path / other}" for other in inputs))
    assert done.returncode == 2 and f"{tmp_path / name}: no such file or folder ({name}" in done.stderr
