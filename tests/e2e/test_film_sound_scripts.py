"""The scripts for films and sounds have the published settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from published import some
from test_answer_scripts import bash, dry, value

TRAININGS = {script: row for script, row in some(r"(caption|vqa)/.*(audio|video).*").items() if row["arch"]}
FROZEN = "--freeze-encoder"
CAPTION_EVALUATIONS = ["caption/eval/video/eval_video_caption.sh", "caption/eval/audio/eval_audio_caption.sh"]


@pytest.mark.parametrize("script", TRAININGS)
def test_the_trunks_are_those_of_the_task(script: str) -> None:
    (command,) = dry(script)
    assert value(command, "--video-encoder-name") == "all_resnext101"
    assert ("--audio-encoder-name" in command) == ("audio" in script)


@pytest.mark.parametrize("script", TRAININGS)
def test_paths_are_relative_to_the_folder_of_films_or_of_sounds(script: str) -> None:
    (command,) = dry(script, "IMAGE_DIR=pictures", "VIDEO_DIR=films", "AUDIO_DIR=sounds")
    assert value(command, "--image-dir") == ("sounds" if "audio" in script else "films")


@pytest.mark.parametrize("script", CAPTION_EVALUATIONS)
def test_captions_of_films_and_sounds_are_searched_as_in_validation(script: str) -> None:
    (command,) = dry(script, "VIDEO_DIR=films", "AUDIO_DIR=sounds")
    assert {"--unnormalized", "--read-from-img-path"} <= set(command)
    assert (value(command, "--beam"), value(command, "--no-repeat-ngram-size")) == ("5", "0")
    task = value(command, "--task")
    assert value(command, "--image-dir") == {"video_caption": "films", "audio_caption": "sounds"}[task]


def test_frames_and_trunks_are_settings() -> None:
    settings = ["NUM_FRAMES=4", "PATCH_FRAME_SIZE=64", "VIDEO_ENCODER=", "MEDIA_FLAGS=", "RESNEXT=weights.pth"]
    (command,) = dry("caption/video/activitynet/unival_video_caption_activitynet_stage_1.sh", *settings)
    assert (value(command, "--num-frames"), value(command, "--patch-frame-size")) == ("4", "64")
    assert not {"--video-encoder-name", "--use-dataaug"} & set(command)
    assert value(command, "--video-model-path") == "weights.pth"


def test_the_trunk_of_sounds_starts_from_pann() -> None:
    (command,) = dry("caption/audio/clotho/unival_audio_caption_clotho.sh")
    assert value(command, "--audio-model-path").endswith("Cnn14_mAP_0.431.pth")
    (command,) = dry("caption/audio/clotho/unival_audio_caption_clotho.sh", "PANN=", "HOP_SIZE=480")
    assert "--audio-model-path" not in command and value(command, "--hop-size") == "480"


def test_only_linear_scripts_freeze_what_others_train() -> None:
    frozen = {script for script, row in TRAININGS.items() if FROZEN in row["freeze_flags"].split()}
    assert frozen == {script for script in TRAININGS if "onlylinear" in script}


def test_the_quickstart_teaches_films_and_sounds_from_the_captioner() -> None:
    commands = dry("quickstart_media.sh", "INIT_FROM=m.pt")
    trainings = {value(command, "--task"): command for command in commands if "--save-dir" in command}
    assert set(trainings) == {"video_caption", "video_vqa_gen", "audio_caption"}
    for task, command in trainings.items():
        start = "video_caption/checkpoint_best.pt" if task == "video_vqa_gen" else "m.pt"
        assert value(command, "--finetune-from-model").endswith(start)
        assert ("--freeze-video-encoder" in command) == (task == "video_vqa_gen")
        assert ("--video-encoder-name" in command) == ("video" in task) != ("--audio-encoder-name" in command)


@pytest.mark.slow
def test_the_quickstart_goes_on_to_films_and_sounds(tmp_path: Path) -> None:
    settings = [f"FOLDER={tmp_path}", "INIT_FROM=", "MAX_EPOCH=1", "WORKERS=0"]
    sizes = "--films 8 --sounds 8 --val-rows 4 --test-rows 4 --tasks video_caption,video_vqa_gen,audio_caption"
    build = [sys.executable, str(ROOT / "dataset_tools" / "digits.py"), "--output", str(tmp_path / "media_data")]
    subprocess.run([*build, *sizes.split(), "--epoch-files", "8"], check=True, capture_output=True)
    done = bash("quickstart_media.sh", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, task in {"video": "video_caption", "video_vqa": "video_vqa_gen", "audio": "audio_caption"}.items():
        assert f"/{name}_test_predict.meta.json {{'" in done.stdout and (tmp_path / f"{task}_sheet.png").is_file()
