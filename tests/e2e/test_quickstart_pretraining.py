"""What the quickstart of pretraining runs: three stages, each from the one before, then captions from the third."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from commands import ROOT
from test_answer_scripts import bash, value
from test_answer_scripts import dry as dry_lines
from test_pretraining_scripts import mixed_in

SCRIPT = "quickstart_pretraining.sh"
STAGES = ["s1", "s2", "s2_hs"]
STEPS = [*STAGES, "caption"]
FOLDER = "runs/pretrained"
PICTURES = {"--image-text-data", "--image-text-vqa-data", "--image-text-ground-data"}
MEDIA = {"--video-data", "--video-text-data", "--audio-data", "--audio-text-data"}
TRUNKS = {"--video-encoder-name", "--audio-encoder-name"}


def dry(*settings: str, **environment: str) -> list[list[str]]:
    """The commands, without the lines that tell what is being done."""
    environment = {"CUDA_VISIBLE_DEVICES": "", **environment}
    lines = dry_lines(SCRIPT, f"FOLDER={FOLDER}", *settings, **environment)
    return [command for command in lines if command[0] != "=="]


def trainings(*settings: str, **environment: str) -> dict[str, list[str]]:
    """Commands of the trainings by the name of their folder, in order."""
    found = [command for command in dry(*settings, **environment) if "--save-dir" in command]
    return {value(command, "--save-dir").removeprefix(f"{FOLDER}/"): command for command in found}


def files(command: list[str]) -> list[str]:
    """The main files of a training."""
    program = next(k for k, word in enumerate(command) if word.endswith("fairseq-train"))
    return command[program + 1].split(",")


@pytest.fixture(scope="module")
def commands() -> dict[str, list[str]]:
    return trainings()


def test_the_stages_follow_each_other_and_then_captions(commands: dict[str, list[str]]) -> None:
    assert list(commands) == STEPS
    tasks = {name: value(command, "--task") for name, command in commands.items()}
    assert tasks == {**dict.fromkeys(STAGES, "unify_task"), "caption": "caption"}


def test_each_starts_from_the_one_before(commands: dict[str, list[str]]) -> None:
    assert not {"--finetune-from-model", "--init-from", "--resnet-model-path"} & set(commands["s1"])
    for before, name in zip(STEPS, STEPS[1:], strict=False):
        assert value(commands[name], "--finetune-from-model") == f"{FOLDER}/{before}/checkpoint_last.pt"


def test_the_stages_go_through_the_scripts_of_pretraining(commands: dict[str, list[str]]) -> None:
    """What the quickstart does not set is as in the script of the stage."""
    for stage in STAGES:
        (plain,) = dry_lines(f"pretraining/unival_{stage}.sh", CUDA_VISIBLE_DEVICES="0")
        same = ["--selected-cols", "--max-src-length", "--max-tgt-length", "--criterion", "--ddp-backend"]
        same += ["--lr-scheduler", "--fixed-validation-seed"]
        assert {flag: value(commands[stage], flag) for flag in same} == {flag: value(plain, flag) for flag in same}
        assert "--disable-validation" in commands[stage]


def test_films_and_sounds_come_with_the_second_stage(commands: dict[str, list[str]]) -> None:
    for stage in STAGES:
        command = commands[stage]
        sources = {flag for flag in mixed_in(command) if flag.endswith("-data")}
        assert sources == (PICTURES if stage == "s1" else PICTURES | MEDIA)
        assert TRUNKS & set(command) == (set() if stage == "s1" else TRUNKS)
        assert ("--num-frames" in command) == (stage != "s1")
    starts = {stage: "--video-model-path" in commands[stage] for stage in STAGES}
    assert starts == {"s1": False, "s2": True, "s2_hs": False}
    assert value(commands["s2"], "--video-model-path") == f"{FOLDER}/s1/checkpoint_last.pt"


def test_the_third_stage_has_larger_pictures_and_more_frames(commands: dict[str, list[str]]) -> None:
    sides = [int(value(commands[stage], "--patch-image-size")) for stage in STAGES]
    assert sides[0] <= sides[1] < sides[2]
    assert all(int(value(commands[stage], "--max-image-size")) >= sides[2] for stage in STAGES)
    assert int(value(commands["s2"], "--num-frames")) < int(value(commands["s2_hs"], "--num-frames"))
    assert float(value(commands["s2_hs"], "--lr")) <= float(value(commands["s2"], "--lr"))
    assert len({value(commands[stage], "--max-image-size") for stage in STAGES}) == 1  # bins span the same pixels


def test_every_file_is_made_and_read(commands: dict[str, list[str]]) -> None:
    build, negatives = dry()[:2]
    assert build[1] == str(ROOT / "dataset_tools/digits.py") and value(build, "--output") == f"{FOLDER}/data"
    tasks, epochs = value(build, "--tasks").split(","), int(value(build, "--epoch-files"))
    made = {f"{FOLDER}/data/{task}_train_{k}.tsv" for task in tasks for k in range(1, epochs + 1)}
    for stage in STAGES:
        command = commands[stage]
        read = files(command) + [name for flag, name in mixed_in(command).items() if flag.endswith("-data")]
        assert set(read) <= made and int(value(command, "--max-epoch")) >= len(files(command))
        assert value(command, "--image-dir") == value(build, "--output")
        assert value(command, "--neg-sample-dir") == value(negatives, "--output")
        assert value(command, "--sentencepiece-model") == f"{FOLDER}/data/digits.model"
    rows = negatives[negatives.index("unify_task") + 1 :]
    assert set(rows) <= made
    for kind in ("caption", "qa", "video", "audio"):
        assert any(f"/pretrain_{kind}_" in name for name in rows)


def test_sources_are_read_for_what_they_hold(commands: dict[str, list[str]]) -> None:
    kinds = {
        **{"--image-text-data": "image_text", "--image-text-vqa-data": "qa", "--image-text-ground-data": "ground"},
        **{"--video-data": "video", "--video-text-data": "video"},
        **{"--audio-data": "audio", "--audio-text-data": "audio"},
    }
    for stage in STAGES:
        for flag, name in mixed_in(commands[stage]).items():
            if flag.endswith("-data"):
                assert Path(name).name.startswith(f"pretrain_{kinds[flag]}_train_")
            else:
                assert int(name) >= 1


def test_the_network_is_the_same_all_the_way(commands: dict[str, list[str]]) -> None:
    for flag in ("--arch", "--code-dict-size"):
        assert len({value(command, flag) for command in commands.values()}) == 1
    bins = {command[len(command) - command[::-1].index("--num-bins")] for command in commands.values()}
    assert len(bins) == 1 and all("--entangle-position-embedding" in command for command in commands.values())


def test_the_captioner_is_evaluated() -> None:
    last = dry()[-1]
    assert value(last, "--path") == f"{FOLDER}/caption/checkpoint_best.pt"
    assert (last[1], value(last, "--results-path")) == (f"{FOLDER}/data/test.tsv", f"{FOLDER}/results")


# ---- settings


@pytest.mark.parametrize("chosen", [["s2"], ["s1", "s2"], ["caption"], ["s2_hs", "caption"]], ids=" ".join)
def test_stages_can_be_chosen(chosen: list[str]) -> None:
    assert list(trainings(f"STAGES={' '.join(chosen)}")) == chosen
    evaluated = [command for command in dry(f"STAGES={' '.join(chosen)}") if "--results-path" in command]
    assert len(evaluated) == ("caption" in chosen)


def test_an_unknown_stage_is_named() -> None:
    done = bash(SCRIPT, "DRY_RUN=1", f"FOLDER={FOLDER}", "STAGES=s3")
    assert done.returncode == 2 and "unknown stage s3; known are s1, s2, s2_hs, caption" in done.stderr


@pytest.mark.parametrize("processes", ["1", "2", "4"])
def test_processes_share_the_rows_of_a_step(commands: dict[str, list[str]], processes: str) -> None:
    alone = trainings("PROCESSES=1")
    for name, command in trainings(f"PROCESSES={processes}").items():
        together = 1 if name == "caption" else int(processes)
        assert (command[0] == "torchrun") == (together > 1)
        rows = int(value(alone[name], "--batch-size"))
        assert int(value(command, "--batch-size")) == math.ceil(rows / together)
        assert together == 1 or value(command, "--nproc-per-node") == processes


def test_workers_and_further_flags_reach_every_stage() -> None:
    for stage, command in trainings("WORKERS=0", "EXTRA=--cpu", "SEED=3", f"STAGES={' '.join(STAGES)}").items():
        assert (value(command, "--num-workers"), value(command, "--seed")) == ("0", "3"), stage
        assert command[-1] == "--cpu"


def test_help_tells_the_settings() -> None:
    done = bash(SCRIPT, "--help")
    assert done.returncode == 0 and f"usage: bash run_scripts/{SCRIPT}" in done.stdout
    assert all(name in done.stdout for name in ["FOLDER", "STAGES", "PROCESSES", *STEPS])
