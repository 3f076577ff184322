"""Task unify_task: flags, what is read together, what is drawn, steps of one and two batches, mistakes."""

from __future__ import annotations

import base64
import io
import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fairseq import options, tasks
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from made_pretraining import CAPTIONS, make_folder, picture, row, write
from omegaconf import OmegaConf
from PIL import Image
from small_size import tiny

from unival_plugin import compat
from unival_plugin.data.samples import collate
from unival_plugin.errors import ConfigError, DataError
from unival_plugin.unival.tasks.unify import SOURCES, UnifyTask
from unival_plugin.unival.tasks.unify_config import UnifyConfig

REFERENCE = {
    "max_image_size": 512, "neg_sample_dir": None, "neg_captions_video": None, "neg_captions_audio": None,
    "pretrain_seed": 7, "mask_ratio": 0.3, "random_ratio": 0.0, "keep_ratio": 0.0, "mask_length": "span-poisson",
    "poisson_lambda": 3.0, "replace_length": 1, "other_data_cnt": 8, "init_image_text_data": None,
    "init_dataset_epoch": 3, "init_text_data": None, "only_video_data": None, "only_audio_data": None,
    "audio_with_video": False, "no_image_transform": False, "video_selected_cols": None, "audio_selected_cols": None,
    **{f"{source}_data": None for source in SOURCES}, **{f"{source}_cnt": 2 for source in SOURCES},
}  # fmt: skip
"""The original's own flags of this task and their defaults."""
UNDEFINED = ("text_selected_cols", "image_selected_cols", "detection_selected_cols")
"""What the original's scripts pass and no code of it defines."""
COLUMNS = "0,1,2,3,4,5,6,7"
WRONG = [f"{caption} too" for caption in CAPTIONS]
SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    return make_folder(tmp_path_factory.mktemp("unify"), digits / "digits.model")


@pytest.fixture(autouse=True)
def no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is used as a library, whatever ran before."""
    monkeypatch.setattr(compat, "command_line", compat.command_line.copy())
    for name in ("path", "update_freq", "ddp_backend"):
        compat.command_line.pop(name, None)


def settings(folder: Path, data: str = "main.tsv", **more: Any) -> dict[str, Any]:
    return {
        "data": ",".join(f"{folder}/{name}" for name in data.split(",")), "selected_cols": COLUMNS,
        "neg_sample_dir": f"{folder}/wrong", "image_dir": str(folder), "bpe": "sentencepiece",
        "sentencepiece_model": f"{folder}/digits.model", "code_dict_size": 8, "num_bins": 8, "patch_image_size": SIZE,
        "max_image_size": 64, "patch_frame_size": SIZE, "num_frames": 2, "max_audio_len": 9600, **more,
    }  # fmt: skip


def make(folder: Path, data: str = "main.tsv", split: str = "train", epoch: int = 1, **more: Any) -> UnifyTask:
    task = UnifyTask.setup_task(OmegaConf.structured(UnifyConfig(**settings(folder, data, **more))))
    task.load_dataset(split, epoch=epoch)
    return task


def mixed(folder: Path, **more: Any) -> UnifyTask:
    """Everything together."""
    names = {"image_text_vqa": "qa", "image_text_ground": "ground", "image_text": "web", "video": "video"}
    sources: dict[str, Any] = {f"{source}_data": f"{folder}/{name}.tsv" for source, name in names.items()}
    return make(folder, **sources, audio_data=f"{folder}/audio.tsv", **more)


def steps(task: UnifyTask, size: int = 7, split: str = "train", epoch: int = 1, shards: int = 1) -> list[Any]:
    iterator = task.get_batch_iterator(task.dataset(split), size, seed=5, num_shards=shards, epoch=epoch)
    return list(iterator.next_epoch_itr(shuffle=False))


# ---- flags


def test_defaults_are_the_originals() -> None:
    config = UnifyConfig()
    assert {name: getattr(config, name) for name in REFERENCE} == REFERENCE
    assert all(getattr(config, name) is None for name in UNDEFINED)


def test_a_command_may_have_all_flags_of_the_original(folder: Path) -> None:
    given = {**settings(folder), **{name: value for name, value in REFERENCE.items() if value is not None}}
    given |= {f"{source}_data": f"{folder}/video.tsv" for source in SOURCES} | dict.fromkeys(UNDEFINED, "0,1")
    given |= {f"neg_captions_{medium}": f"{folder}/wrong/all_captions.txt" for medium in ("video", "audio")}
    given |= {"video_selected_cols": COLUMNS, "audio_selected_cols": COLUMNS, "init_text_data": "gone.tsv"}
    given |= {"init_image_text_data": "gone.tsv", "only_video_data": "1", "only_audio_data": "1"}
    given |= {"audio_with_video": True, "no_image_transform": True}
    assert given.keys() >= REFERENCE.keys()
    switches = {"audio_with_video", "no_image_transform"}
    words = [part for name in given.keys() - switches - {"data"} for part in (_flag(name), str(given[name]))]
    words += [*map(_flag, switches), "--code-image-size", "128"]
    parser = options.get_training_parser()
    command = [given["data"], "--task", "unify_task", "--arch", "unival_tiny", *words]
    config = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, input_args=command)).task
    task = tasks.setup_task(config)
    assert isinstance(task, UnifyTask)
    assert {name: config[name] for name in given} == given
    task.load_dataset("train")
    assert [source.name for source in task.mixture.sources] == list(SOURCES)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


# ---- what is read together


def test_all_sources_come_in_the_originals_order_and_batches(folder: Path) -> None:
    task = mixed(folder, image_text_cnt=3, video_cnt=1)
    found = [(source.name, source.rows, source.every, source.batch) for source in task.mixture.sources]
    assert found == [
        ("image_text_vqa", 3, 2, 1), ("image_text_ground", 3, 2, 1), ("image_text", 4, 3, 1), ("audio", 2, 2, 1),
        ("video", 3, 1, 2),
    ]  # fmt: skip
    ((first, second),) = steps(task)
    assert Counter(first["net_input"]["patch_types"].tolist()) == {0: 2 * (7 + 3 + 3 + 2), 2: 2 * 3}
    assert second["net_input"]["patch_types"].tolist() == [1] * 14


def test_sounds_may_come_with_films(folder: Path) -> None:
    task = mixed(folder, audio_with_video=True, audio_text_data=f"{folder}/audio.tsv")
    assert {source.name for source in task.mixture.sources if source.batch == 2} == {"audio", "audio_text", "video"}
    ((first, second),) = steps(task)
    assert set(first["net_input"]["patch_types"].tolist()) == {0}
    assert Counter(second["net_input"]["patch_types"].tolist()) == {1: 6, 2: 12}


def test_a_source_may_have_columns_of_its_own(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "v.tsv", [["more", *row("video_caption", "v0", k)] for k in range(2)])
    task = make(folder, video_data=str(tmp_path / "v.tsv"), video_selected_cols="1,2,3,4,5,6,7,8", video_cnt=1)
    assert set(steps(task)[0][1]["id"].tolist()) == {"v0"}


def test_what_is_mixed_is_told_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = mixed(folder, video_text_data=f"{folder}/empty.tsv", audio_cnt=9)
    compat.command_line["update_freq"] = [3]
    with caplog.at_level(logging.INFO):
        for epoch in (1, 2):
            task.load_dataset("train", epoch=epoch)
            task.get_batch_iterator(task.dataset("train"), 4, num_shards=2, epoch=epoch)
    told = [record.getMessage() for record in caplog.records]
    assert told.count("rows mixed: 4 of main a batch, 2 processes, 3 batches an update") == 1
    table = [line.split()[1] for line in told if line.startswith("| ")]
    assert table == ["source", "main", *(source for source in SOURCES if source != "audio_text"), "all"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ["video_text has no rows" in line for line in warnings].count(True) == 1
    assert ["audio is never read" in line for line in warnings].count(True) == 1


def test_films_and_sounds_may_have_wrong_captions_of_their_own(folder: Path, tmp_path: Path) -> None:
    for medium in ("video", "audio"):
        (tmp_path / medium).write_text(f"wrong for {medium}\n")
    own: dict[str, Any] = {f"neg_captions_{medium}": str(tmp_path / medium) for medium in ("video", "audio")}
    for more, film, sound in [({}, WRONG, WRONG), (own, ["wrong for video"], ["wrong for audio"])]:
        found = make(folder, **more).negatives.captions
        assert {medium: list(texts) for medium, texts in found.items()} == {
            "picture": WRONG, "film": film, "sound": sound,
        }  # fmt: skip


# ---- evaluation


def test_evaluation_has_one_sample_a_row_and_needs_no_negatives(folder: Path) -> None:
    task = make(folder, "main.tsv,kinds.tsv", "valid", neg_sample_dir=None, video_data=f"{folder}/video.tsv")
    (batch,) = steps(task, split="valid")
    assert batch["id"].tolist() == ["kinds0", "kinds1", "kinds2", "kinds3", "kinds4", "kinds5", "kinds5"]
    prompts = [task.text.decode(tokens).strip() for tokens in batch["net_input"]["src_tokens"]]
    asked = ["what does the image describe?", "what does the video describe?", "what does the audio describe?"]
    assert prompts[:5] == [*asked, "how many are there?", "how many are there?"]


def test_the_file_to_validate_on(folder: Path) -> None:
    def names(**more: Any) -> set[str]:
        task = make(folder, "main.tsv,qa.tsv", "valid", **more)
        return {name for batch in steps(task, split="valid") for name in batch["id"].tolist()}

    last = {"qa0", "qa1", "qa2"}
    assert names() == last
    assert names(valid_data=f"{folder}/single.tsv") == {"single0"}
    compat.command_line["path"] = "checkpoint.pt"  # fairseq-validate: the file of its own command line
    assert names(valid_data=f"{folder}/single.tsv") == last


# ---- pictures


@pytest.fixture(scope="module")
def alike(folder: Path) -> Path:
    """Rows that all have the same picture."""
    return write(folder / "alike.tsv", [row("caption", f"a{k}", k, medium=picture(0)) for k in range(6)])


def pictures(task: UnifyTask, epoch: int = 1) -> torch.Tensor:
    """The pictures of all rows, one of the two samples each."""
    task.load_dataset("train", epoch=epoch)
    (batch,) = steps(task, epoch=epoch)
    return batch["net_input"]["patch_images"][::2]


def distinct(images: torch.Tensor) -> int:
    return len(images.flatten(1).unique(dim=0))


def test_operations_may_be_the_same_for_all_pictures_of_an_epoch(folder: Path, alike: Path) -> None:
    """At 480 pixels there is no size to choose, so that pictures differ by their operations only."""
    usual = make(folder, "alike.tsv", patch_image_size=480, max_image_size=512)
    assert distinct(pictures(usual)) > 2
    repeating, other = (
        make(folder, "alike.tsv", patch_image_size=480, max_image_size=512, repeat_operations=True, pretrain_seed=seed)
        for seed in (7, 8)
    )
    epochs = [pictures(repeating, epoch) for epoch in (1, 2, 3, 1)]
    assert all(distinct(images) == 1 for images in epochs) and torch.equal(epochs[0], epochs[3])
    assert distinct(torch.stack([images[0] for images in epochs])) > 1
    assert distinct(torch.cat([pictures(other, epoch)[:1] for epoch in (1, 2, 3)] + [e[:1] for e in epochs])) > 3


def test_without_augmentation_media_are_as_in_evaluation(folder: Path) -> None:
    def media(split: str, augmentation: str) -> dict[str, torch.Tensor]:
        task = make(folder, "kinds.tsv", split, augmentation=augmentation, sample_type="middle", row_order="file")
        ((batch),) = steps(task, split=split)
        first = [batch["id"].tolist().index(f"kinds{k}") for k in range(6)]
        kinds = batch["net_input"]["patch_types"]
        films = [int((kinds[:k] == 1).sum()) for k in first if kinds[k] == 1]
        return {
            "pictures": batch["net_input"]["patch_images"][first],
            "films": batch["net_input"]["patch_videos"][films],
        }

    evaluated, plain, augmented = media("valid", "all"), media("train", "none"), media("train", "all")
    assert all(torch.equal(evaluated[name], plain[name]) for name in evaluated)
    assert not any(torch.equal(evaluated[name], augmented[name]) for name in evaluated)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_pictures_may_be_cropped_only(folder: Path, split: str) -> None:
    task = make(folder, "main.tsv", split, no_image_transform=True, row_order="file")
    (batch,) = steps(task, split=split)
    with Image.open(io.BytesIO(base64.b64decode(picture(0)))) as image:
        pixels = np.asarray(image)[4:36, 8:40]  # the middle of 48 x 40 pixels
    expected = torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255 * 2 - 1
    assert torch.allclose(batch["net_input"]["patch_images"][0], expected, atol=1e-6)


# ---- network and criterion


@pytest.fixture(scope="module")
def net(folder: Path) -> Any:
    symbols = len(make(folder).target_dictionary)
    return tiny(symbols, video_encoder_name="timm_tiny", audio_encoder_name="pann_tiny").eval()


def criterion(task: UnifyTask, **flags: Any) -> Any:
    name = "adjust_label_smoothed_cross_entropy"
    config = CRITERION_DATACLASS_REGISTRY[name](sentence_avg=False, sample_patch_num=0, **flags)
    return CRITERION_REGISTRY[name].build_criterion(config, task)


def test_rows_of_a_mixed_batch_do_not_see_each_other(folder: Path, net: Any) -> None:
    task = make(folder, "kinds.tsv")
    task.dataset("train").batches(1, 0, 6, seed=5, epoch=1, shuffle=True)
    samples = [made for k in range(6) for _, read in task.dataset("train")[k].read for made in read]
    batch = collate(samples, task.target_dictionary.pad())
    assert batch["net_input"]["patch_types"].unique().tolist() == [0, 1, 2] and len(samples) == 12
    with torch.no_grad():
        together = net(**batch["net_input"])[0]
        for k, sample in enumerate(samples):
            alone = net(**collate([sample], task.target_dictionary.pad())["net_input"])[0][0]
            assert torch.allclose(together[k, : len(alone)], alone, atol=2e-4), sample["id"]


@pytest.fixture(scope="module")
def step(folder: Path) -> list[Any]:
    """A step of two batches."""
    return steps(mixed(folder), 3)[0]


def dummy_of(folder: Path) -> Any:
    task = mixed(folder)
    task.dataset("train").batches(8, 7, 1, seed=5, epoch=1, shuffle=True)  # the last of 8 processes, 7 rows
    return task.dataset("train").collater([task.dataset("train")[0]])[0]


def learned(net: Any, task: UnifyTask, sample: Any) -> tuple[float, Any, dict[str, torch.Tensor]]:
    """Loss, sample size and gradients; parameters that are not used have zeros."""
    net.zero_grad()
    loss, size, _ = criterion(task)(net, sample)
    loss.backward()
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in net.named_parameters()}
    return loss.item(), size, gradients


def test_batches_of_a_step_weigh_the_same(folder: Path, net: Any, step: list[Any]) -> None:
    task = make(folder)
    means = []
    for batch in step:
        loss, size, _ = learned(net, task, batch)
        assert size == batch["ntokens"] > 0
        means.append(loss / size)
        assert learned(net, task, [batch])[:2] == (pytest.approx(means[-1], rel=1e-5), 1)
    assert learned(net, task, step)[:2] == (pytest.approx(sum(means), rel=1e-5), 1)


def test_a_batch_that_stands_for_none_teaches_nothing(folder: Path, net: Any, step: list[Any]) -> None:
    task, dummy = make(folder), dummy_of(folder)
    assert dummy["is_dummy"] and learned(net, task, dummy)[:2] == (0, 0)
    for batch, pair in [(step[0], [step[0], dummy]), (step[1], [dummy, step[1]])]:
        (alone, _, expected), (loss, size, found) = learned(net, task, [batch]), learned(net, task, pair)
        assert (loss, size) == (pytest.approx(alone, rel=1e-6), 1)
        assert any(gradient.any() for gradient in expected.values())
        assert all(torch.allclose(found[name], expected[name], atol=1e-7) for name in expected)


def test_a_training_step_counts_rows_and_samples_of_sources(folder: Path, net: Any, step: list[Any]) -> None:
    task, dummy = mixed(folder), dummy_of(folder)
    optimiser = SimpleNamespace(backward=lambda loss: loss.backward())
    net.set_num_updates = lambda number: None
    loss, size, log = task.train_step(step, net, criterion(task), optimiser, 0)
    assert size == 1 and loss.isfinite() and log["bad_rows"] == 0
    assert log["nsentences"] == sum(log[f"samples_{name}"] for name in task.dataset("train").sources)
    assert {name: log[f"rows_{name}"] for name in ("main", "image_text_vqa", "audio")} == {
        "main": 3, "image_text_vqa": 1, "audio": 1,
    }  # fmt: skip
    nothing = task.train_step([dummy, dummy], net, criterion(task), optimiser, 0)
    assert nothing[:2] == (0, 0) and not any(nothing[2].values()) and nothing[2].keys() == log.keys()
    net.eval()


# ---- mistakes


@pytest.mark.parametrize(
    "options_, error, words",
    [
        ({"neg_sample_dir": None}, ConfigError, r"--neg-sample-dir \(dataset_tools/negative_samples.py makes it"),
        ({"neg_sample_dir": "gone"}, ConfigError, "gone/all_captions.txt does not exist.*negative_samples.py"),
        ({"neg_captions_audio": "x.txt"}, ConfigError, "x.txt does not exist.*--neg-captions-audio"),
        ({"data": None}, ConfigError, "no data: name the files"),
        ({"data": "a.tsv,,b.tsv"}, ConfigError, "empty file name in 'a.tsv,,b.tsv': separate the files"),
        ({"data": "gone.tsv"}, DataError, "^data: gone.tsv does not exist: check the path"),
        ({"selected_cols": "0,4,2"}, ConfigError, "^data: .*main.tsv: 3 columns selected.*set --selected-cols"),
        ({"selected_cols": "0,1,2,3,4,5,6,8"}, DataError, "main.tsv:row 1 has 8 columns.*correct the selected"),
        ({"image_text_vqa_data": "gone.tsv"}, DataError, "^--image-text-vqa-data: gone.tsv does not exist"),
        ({"video_data": "main.tsv", "video_selected_cols": "0,1"}, ConfigError, "^--video-data: .* 2 columns selected"),
        ({"video_data": "main.tsv", "video_cnt": 0}, ConfigError, "source video: .* set its count to at least 1"),
        ({"data": "empty.tsv"}, DataError, "empty.tsv: the file is empty"),
    ],
)
def test_mistakes_are_told_with_a_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options_: dict[str, Any], error: type[Exception], words: str
) -> None:
    monkeypatch.chdir(folder)
    task = UnifyTask.setup_task(OmegaConf.structured(UnifyConfig(**{**settings(folder), **options_})))
    with pytest.raises(error, match=words) as caught:
        task.load_dataset("train")
    assert "\n" not in str(caught.value)


def test_an_empty_file_to_validate_on_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="^--valid-data: .*empty.tsv: the file is empty"):
        make(folder, split="valid", valid_data=f"{folder}/empty.tsv")


def test_an_unknown_type_is_named(folder: Path) -> None:
    write(folder / "unknown.tsv", [row("detection", "x", caption="a")])
    with pytest.raises(DataError, match="unknown.tsv:row 1, column 7: the type 'detection' is not known; needs one of"):
        steps(make(folder, "unknown.tsv"))


def test_films_beside_pictures_need_a_backend_for_two_batches(folder: Path) -> None:
    compat.command_line["ddp_backend"] = "pytorch_ddp"
    with pytest.raises(ConfigError, match="--ddp-backend pytorch_ddp takes one batch a step.*choose no_c10d"):
        steps(mixed(folder), shards=2)
    assert steps(mixed(folder)) and steps(make(folder), shards=2)
    compat.command_line["ddp_backend"] = "legacy_ddp"
    assert steps(mixed(folder), shards=2)


def test_the_task_is_for_training_and_validation_only(folder: Path) -> None:
    with pytest.raises(ConfigError, match="choose the task that the rows are for"):
        make(folder).row_reader("test")
