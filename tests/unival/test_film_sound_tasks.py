"""Tasks video_caption, video_vqa_gen and audio_caption: rows to batches, what is drawn when, bad files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from made_films import numbers, write_film
from omegaconf import OmegaConf
from small_size import tiny

from unival_plugin.data.audio import SoundOptions, read_clip
from unival_plugin.errors import ConfigError, DataError
from unival_plugin.generation.generator import SequenceGenerator
from unival_plugin.unival.tasks.caption import CaptionConfig
from unival_plugin.unival.tasks.films_sounds import AudioCaptionTask, VideoCaptionTask, VideoVqaGenTask
from unival_plugin.unival.tasks.vqa_gen import VqaGenConfig

FILMS, SOUNDS = 3, 3
TINY = {"video_encoder_name": "timm_tiny", "audio_encoder_name": "pann_tiny"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for k in range(FILMS):
        write_film(folder / f"{k}.mp4", frames=20 + k)
    for k in range(SOUNDS):
        soundfile.write(folder / f"{k}.wav", rng.uniform(-0.5, 0.5, 3000 + 2000 * k), 48_000)
    captions = ["a film", "another&&one more", "the third"]
    write(folder / "films.tsv", [[str(k), f"f{k}", captions[k], "", f"{k}.mp4"] for k in range(FILMS)])
    write(folder / "sounds.tsv", [[str(k), f"s{k}", captions[k], "", f"{k}.wav"] for k in range(SOUNDS)])
    answers = ["1.0|!+yes", "0.6|!+yes&&1.0|!+no", "1.0|!+no"]
    write(folder / "questions.tsv", [[str(k), f"f{k}", "is it?", answers[k], "", f"{k}.mp4"] for k in range(FILMS)])
    (folder / "digits.model").write_bytes((digits / "digits.model").read_bytes())
    return folder


def write(path: Path, rows: list[list[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def make(kind: Any, config: Any, folder: Path, file: str, columns: str = "0,4,2", **options: Any) -> Any:
    settings = {
        "data": f"{folder / file},{folder / file}", "selected_cols": columns, "image_dir": str(folder),
        "bpe": "sentencepiece", "sentencepiece_model": str(folder / "digits.model"), "code_dict_size": 8,
        "num_bins": 8, "patch_image_size": 32, "patch_frame_size": 64, "max_audio_len": 6000, **options,
    }  # fmt: skip
    task = kind.setup_task(OmegaConf.structured(config(**settings)))
    for split in ("train", "valid"):
        task.load_dataset(split)
    return task


def films(folder: Path, **options: Any) -> VideoCaptionTask:
    return make(VideoCaptionTask, CaptionConfig, folder, "films.tsv", **options)


def questions(folder: Path, **options: Any) -> VideoVqaGenTask:
    return make(
        VideoVqaGenTask, VqaGenConfig, folder, "questions.tsv", "0,5,2,3,4",
        **{"prompt_type": "prev_output", **options},
    )  # fmt: skip


def sounds(folder: Path, **options: Any) -> AudioCaptionTask:
    return make(AudioCaptionTask, CaptionConfig, folder, "sounds.tsv", **options)


def batch_of(task: Any, split: str = "valid") -> dict[str, Any]:
    dataset = task.dataset(split)
    return dataset.collater([dataset[i] for i in range(len(dataset))])


def source_of(task: Any, batch: dict[str, Any]) -> str:
    return task.text.decode(batch["net_input"]["src_tokens"][0])


def test_films_become_batches_with_the_references_keys(folder: Path) -> None:
    task = films(folder, num_frames=5)
    batch = batch_of(task)
    net_input = batch["net_input"]
    assert net_input["patch_videos"].shape == (3, 3, 5, 64, 64) and net_input["patch_videos"].dtype == torch.float32
    assert net_input["patch_types"].tolist() == [1, 1, 1] and net_input["patch_masks"].all()
    assert net_input["patch_images"].shape == (3, 3, 32, 32) and not net_input["patch_images"].any()
    assert source_of(task, batch).strip() == "what does the video describe?"
    assert batch["id"].tolist() == ["0", "1", "2"]


def test_sounds_become_batches_with_the_references_keys(folder: Path) -> None:
    task = sounds(folder)
    batch = batch_of(task)
    net_input = batch["net_input"]
    assert net_input["patch_audios"].shape == (3, 6000) and net_input["patch_audios"].dtype == torch.float32
    assert net_input["patch_types"].tolist() == [2, 2, 2]
    assert "patch_videos" not in net_input and not net_input["patch_images"].any()
    assert source_of(task, batch).strip() == "what does the video describe?"
    assert torch.equal(net_input["patch_audios"][2], read_clip(folder / "2.wav", "here", SoundOptions(6000)))


def shown(task: VideoCaptionTask, index: int, split: str, epoch: int = 1) -> list[int]:
    """Numbers of the frames that a sample has."""
    dataset = task.dataset(split)
    dataset.batches(1, 0, 4, seed=3, epoch=epoch, shuffle=False)
    frames = (dataset[index]["patch_video"].transpose(0, 1) * 0.5 + 0.5) * 255
    return numbers(frames[:, :, 48:112])  # the films are 160 x 64


def test_evaluation_takes_the_middle_frames_and_training_draws(folder: Path) -> None:
    task = films(folder, num_frames=4, patch_frame_size=160)
    assert shown(task, 0, "valid") == [2, 7, 12, 17]
    drawn = {tuple(shown(task, 0, "train", epoch)) for epoch in range(1, 6)}
    assert len(drawn) > 1 and tuple(shown(task, 0, "train", 2)) in drawn
    assert all(a < b for each in drawn for a, b in zip(each, each[1:], strict=False))
    as_before = films(folder, num_frames=4, patch_frame_size=160, random_eval=True)
    assert len({tuple(shown(as_before, 0, "valid", epoch)) for epoch in range(1, 6)}) > 1


def test_films_of_any_length_have_the_same_number_of_frames(folder: Path, tmp_path: Path) -> None:
    write_film(folder / "short.mp4", frames=2)
    write(folder / "short.tsv", [["0", "x", "a film", "", "short.mp4"], ["1", "y", "a film", "", "0.mp4"]])
    for kind in ("middle", "fps2"):
        task = make(VideoCaptionTask, CaptionConfig, folder, "short.tsv", num_frames=3, sample_type=kind)
        assert batch_of(task)["net_input"]["patch_videos"].shape == (2, 3, 3, 64, 64)


def test_the_part_of_a_long_sound_is_drawn_in_training_only(folder: Path) -> None:
    task = sounds(folder, max_audio_len=2000)
    first, second = (task.dataset("valid")[2]["patch_audio"] for _ in range(2))
    assert torch.equal(first, second)
    parts = []
    for epoch in (1, 2, 1):
        task.dataset("train").batches(1, 0, 4, seed=3, epoch=epoch, shuffle=False)
        parts.append(task.dataset("train")[2]["patch_audio"])
    assert torch.equal(parts[0], parts[2]) and not torch.equal(parts[0], parts[1])


def test_films_are_augmented_if_asked(folder: Path) -> None:
    plain, augmented = (films(folder, use_dataaug=flag, sample_type="middle") for flag in (False, True))
    assert torch.equal(plain.dataset("train")[0]["patch_video"], plain.dataset("valid")[0]["patch_video"])
    one, two = (augmented.dataset("train")[0]["patch_video"] for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(one, plain.dataset("valid")[0]["patch_video"])


@pytest.mark.parametrize("make_task", [films, questions, sounds])
def test_the_network_learns_from_and_answers_batches(folder: Path, make_task: Any) -> None:
    task = make_task(folder, max_audio_len=9600)  # so that the sound trunk has a row of frames left
    net = tiny(len(task.target_dictionary), **TINY).train()
    batch = batch_of(task, "train")
    logits = net(**batch["net_input"])[0]
    logits.float().logsumexp(-1).sum().backward()
    assert torch.isfinite(logits).all()
    net.eval()
    generator = SequenceGenerator([net], task.target_dictionary, task.answer_options({"max_len_b": 5}))
    found = task.inference_step(generator, [net], batch_of(task))
    assert len(task.predictions(found, batch_of(task))) == 3
    if make_task is questions:
        assert set(task.predictions(found, batch_of(task))) <= {"yes", "no"}


def test_answers_of_films_are_scored_and_written_as_of_pictures(folder: Path) -> None:
    task = questions(folder)
    batch = batch_of(task)
    assert task.references(batch)[1] == {"yes": 0.6, "no": 1.0}
    assert task.score(["yes", "yes", "yes"], task.references(batch))["vqa_score"].tolist() == [1.0, 0.6, 0.0]
    assert task.result("7", "yes") == {"question_id": 7, "answer": "yes"}


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("text.mp4", b"not a film at all", "text.mp4"),
        ("nothing.mp4", b"", "nothing.mp4"),
        ("missing.mp4", None, "missing.mp4"),
        ("../out.mp4", None, "leaves the folder"),
    ],
)
def test_a_bad_film_is_one_line_that_names_its_row_or_is_left_out(
    folder: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    write(folder / "bad.tsv", [["0", "x", "a film", "", name], ["1", "y", "a film", "", "0.mp4"]])
    task = make(VideoCaptionTask, CaptionConfig, folder, "bad.tsv")
    with pytest.raises(DataError, match=message) as caught:
        task.dataset("valid")[0]
    assert "bad.tsv:row 1, column 4" in str(caught.value) and "\n" not in str(caught.value)
    batch = batch_of(make(VideoCaptionTask, CaptionConfig, folder, "bad.tsv", on_bad_row="skip"))
    assert batch["bad_rows"] == 1 and batch["id"].tolist() == ["1"]


def test_a_folder_is_needed(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--image-dir"):
        films(folder, image_dir=None).dataset("valid")[0]


def test_old_flags_bring_the_originals_waveform_back(folder: Path) -> None:
    rate = 24_000
    stereo = np.random.default_rng(1).uniform(-0.5, 0.5, (1500, 2))
    soundfile.write(folder / "stereo.wav", stereo, rate)
    write(folder / "stereo.tsv", [["0", "x", "a sound", "", "stereo.wav"]])

    def wave(**options: Any) -> torch.Tensor:
        task = make(AudioCaptionTask, CaptionConfig, folder, "stereo.tsv", max_audio_len=3000, **options)
        return task.dataset("valid")[0]["patch_audio"]

    usual, unconverted, first = wave(), wave(sample_rate=0), wave(audio_sample_rate=True)
    assert torch.equal(unconverted[:1500], unconverted[1500:])  # taken for 48 kHz, so half as long, and repeated
    assert not torch.equal(usual[:1500], usual[1500:]) and (usual - first).abs().max() > 0.01
