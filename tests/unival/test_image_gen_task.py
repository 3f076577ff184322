"""Task ``image_gen``: rows to batches as the reference does, drawing, ranking, rewards, result files."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from golden_rows import compare
from omegaconf import OmegaConf
from PIL import Image
from small_size import tiny

from unival_plugin import compat
from unival_plugin.checkpoints.image_tokenizer import write_image_tokenizer
from unival_plugin.errors import ConfigError, DataError
from unival_plugin.generation.generator import SequenceGenerator
from unival_plugin.modules.vqgan import VQGAN, VQGANConfig
from unival_plugin.unival.tasks.drawing import Drawer, Drawing, PictureFiles, file_name, ranked
from unival_plugin.unival.tasks.image_gen import ImageGenConfig, ImageGenTask

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "unival_tasks" / "image_gen_rows.json").read_text())
CODES, SIZE = 8, 16
"""Codes of the made tokenizer, and side of its pictures: 2 x 2 codes."""
VQGAN_CONFIG = VQGANConfig(
    embed_dim=8, n_embed=CODES, z_channels=8, resolution=SIZE, ch=8, ch_mult=(1, 1, 1, 1), num_res_blocks=1,
    attn_resolutions=(), num_groups=4,
)  # fmt: skip


class Brightness:
    """Stands for CLIP: bright pictures suit bright captions, dark ones all others; features for pictures, too."""

    def similarity(self, pictures: list[Image.Image], texts: list[str]) -> torch.Tensor:
        signs = torch.tensor([1.0 if "bright" in text else -1.0 for text in texts])
        return signs * self.light(pictures)

    def images(self, pictures: list[Image.Image]) -> torch.Tensor:
        light = self.light(pictures)
        return torch.nn.functional.normalize(torch.stack([light, 1 - light], dim=1), dim=1)

    def light(self, pictures: list[Image.Image]) -> torch.Tensor:
        return torch.tensor([float(np.asarray(picture).mean()) / 255 for picture in pictures])


def make_task(**options: Any) -> ImageGenTask:
    return ImageGenTask.setup_task(OmegaConf.structured(ImageGenConfig(**options)))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Flags with the files of a made tokenizer."""
    folder = tmp_path_factory.mktemp("vqgan")
    torch.manual_seed(5)
    network = VQGAN(VQGAN_CONFIG)
    torch.nn.init.normal_(network.quantize.embed.weight, std=4)
    write_image_tokenizer(network, folder / "last.ckpt", folder / "model.yaml")
    return {"vqgan_model_path": str(folder / "last.ckpt"), "vqgan_config_path": str(folder / "model.yaml")}


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.tsv"
    path.write_text("7\tbright four\t0 1 2 3\n../up\ta dark three / above\t7 6 5 4\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def options(digits: Path, tokenizer: dict[str, str], rows: str) -> dict[str, Any]:
    return {
        "data": f"{rows},{rows}", "selected_cols": "0,1,2", "bpe": "sentencepiece",
        "sentencepiece_model": f"{digits}/digits.model", "code_dict_size": CODES, "num_bins": 4,
        "code_image_size": SIZE, "eval_args": '{"beam": 3, "sampling_topk": 5}', **tokenizer,
    }  # fmt: skip


@pytest.fixture
def task(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> ImageGenTask:
    """With CLIP, which is a made one."""
    monkeypatch.setattr(Drawer, "clip", Brightness())
    return make_task(**options, clip_model_path="clip.pt", scst_args='{"beam": 2}')


def batch_of(task: ImageGenTask, split: str = "valid") -> Any:
    task.load_dataset(split)
    dataset = task.dataset(split)
    return dataset.collater([dataset[i] for i in range(len(dataset))])


def model_of(task: ImageGenTask) -> Any:
    return tiny(len(task.target_dictionary), code_image_size=SIZE).eval()


def codes_of(text: str) -> torch.Tensor:
    return torch.tensor([int(word) for word in text.split()]).view(2, 2)


# ---- rows


def test_rows_become_the_references_samples_and_batch(tmp_path: Path, gpt2_bpe_dir: Path) -> None:
    samples, batch = [], None
    for number, row in enumerate(GOLDEN["rows"]):
        path = tmp_path / f"{number}.tsv"
        path.write_text("\t".join(row) + "\n", encoding="utf-8")
        columns = ",".join(map(str, range(len(row))))
        task = make_task(data=f"{path},{path}", selected_cols=columns, bpe_dir=str(gpt2_bpe_dir), **GOLDEN["options"])
        task.load_dataset("valid")
        samples.append(task.dataset("valid")[0])
        batch = batch or task.dataset("valid").collater([samples[0]] * 2)
    for name, sample in zip(("item", "item_text_only"), samples, strict=True):
        wanted = GOLDEN["case"][name]
        assert wanted.pop("code_image") and not sample["code_image"]
        compare(sample, wanted)
    assert batch is not None
    described = GOLDEN["case"]["batch"].pop("code_images")  # the beginnings of the values
    assert str(batch["code_images"].dtype) == described["np_dtype"]
    assert [str(value)[:24] for value in batch["code_images"]] == described["value"]
    compare(batch, GOLDEN["case"]["batch"])
    assert not {key for key in batch["net_input"] if key.startswith("patch")}


def test_rows_of_four_columns_have_a_picture_of_their_own(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "four.tsv"
    path.write_text("1\tQUJD\ta four\t1 2 3 4\n", encoding="utf-8")
    batch = batch_of(make_task(**{**options, "data": f"{path},{path}", "selected_cols": "0,1,2,3"}))
    assert (batch["code_images"].tolist(), batch["has_code_images"].tolist()) == ([b"QUJD"], [True])
    assert batch["captions"].tolist() == ["a four"]
    first = make_task(**options).first_code
    assert batch["target"].tolist() == [[first + 1, first + 2, first + 3, first + 4, 2]]


@pytest.mark.parametrize(
    ("cell", "message"),
    [("1 2 x 4", "codes are numbers"), ("1 2 8 4", "codes from 0 to 7"), ("1 -2 3 4", "codes from 0 to 7"),
     ("", "codes from 0 to 7")],
)  # fmt: skip
def test_wrong_codes_are_named_with_their_place(
    options: dict[str, Any], tmp_path: Path, cell: str, message: str
) -> None:
    path = tmp_path / "bad.tsv"
    path.write_text(f"1\ta four\t{cell}\n", encoding="utf-8")
    task = make_task(**{**options, "data": f"{path},{path}"})
    task.load_dataset("valid")
    with pytest.raises(DataError, match=f"{re.escape(str(path))}.*{message}"):
        task.dataset("valid")[0]


def test_an_empty_caption_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bad.tsv"
    path.write_text("1\t  \t1 2 3 4\n", encoding="utf-8")
    task = make_task(**{**options, "data": f"{path},{path}"})
    task.load_dataset("valid")
    with pytest.raises(DataError, match="caption is empty"):
        task.dataset("valid")[0]


@pytest.mark.parametrize("split", ["train", "valid"])
def test_codes_of_another_size_are_noticed_before_the_first_batch(options: dict[str, Any], split: str) -> None:
    task = make_task(**{**options, "code_image_size": 24})
    task.load_dataset(split)
    with pytest.raises(DataError, match="4 codes, a picture of --code-image-size 24 has 9"):
        task.get_batch_iterator(task.dataset(split), max_sentences=2)


def test_a_bad_first_row_can_be_left_out(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bad.tsv"
    path.write_text("1\ta four\t1 2 x 4\n2\ta six\t1 2 3 4\n", encoding="utf-8")
    task = make_task(**{**options, "data": f"{path},{path}"}, on_bad_row="skip")
    task.load_dataset("train")
    (batch,) = task.get_batch_iterator(task.dataset("train"), max_sentences=2).next_epoch_itr(shuffle=False)
    assert (batch["id"].tolist(), batch["bad_rows"]) == (["2"], 1)


def test_the_network_must_have_positions_for_the_same_size(task: ImageGenTask) -> None:
    with pytest.raises(ConfigError, match="made for 32"):
        task.build_model(SimpleNamespace(code_image_size=32))


# ---- drawing


def test_pictures_are_drawn_ranked_and_scored(task: ImageGenTask) -> None:
    batch, model = batch_of(task), model_of(task)
    generator = SequenceGenerator([], task.target_dictionary, task.answer_options({}))
    found = task.inference_step(generator, [model], batch)
    assert [len(row) for row in found] == [3, 3] and all(len(each["tokens"]) == 5 for row in found for each in row)
    drawings = task.draw(found, batch)
    assert [drawing.caption for drawing in drawings] == ["bright four", "a dark three / above"]
    for drawing, row in zip(drawings, found, strict=True):
        assert drawing.scores == sorted(drawing.scores, reverse=True)
        assert task.drawer.clip.similarity(drawing.pictures, [drawing.caption] * 3).tolist() == drawing.scores
        symbols = sorted((each["tokens"][:-1] - task.first_code).tolist() for each in row)
        assert sorted(codes.flatten().tolist() for codes in drawing.codes) == symbols
        assert all(picture.size == (SIZE, SIZE) and picture.mode == "RGB" for picture in drawing.pictures)


def test_decoding_is_that_of_the_tokenizer(task: ImageGenTask) -> None:
    codes = codes_of("0 1 2 3")
    pixels = (task.drawer.tokenizer.decode(codes[None])[0].permute(1, 2, 0) + 1) / 2 * 255
    np.testing.assert_array_equal(np.asarray(task.drawer.decode([codes])[0]), pixels.numpy().astype(np.uint8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(np.asarray(task.drawer.decode([codes])[0]), pixels.numpy().astype(np.uint8))
    assert task.drawer.decode([]) == []


def test_times_multiply_the_pictures(options: dict[str, Any]) -> None:
    task = make_task(**options, sampling_times=2)
    generator = SequenceGenerator([], task.target_dictionary, task.answer_options({}))
    found = task.inference_step(generator, [model_of(task)], batch_of(task))
    assert [len(row) for row in found] == [6, 6]


def test_without_clip_likelier_pictures_come_first(options: dict[str, Any]) -> None:
    task = make_task(**options)
    assert not task.validates() and task.validation_metrics() == set()
    generator = SequenceGenerator([], task.target_dictionary, task.answer_options({}))
    batch = batch_of(task)
    found = task.inference_step(generator, [model_of(task)], batch)
    scores = [drawing.scores for drawing in task.draw(found, batch)]
    assert scores == [[pytest.approx(float(each["score"])) for each in row] for row in found]


def test_pictures_may_be_compared_with_the_rows_own(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drawer, "clip", Brightness())
    task = make_task(**options, clip_model_path="clip.pt", eval_clip_method="ii_sim")
    batch = batch_of(task)
    tokens = torch.cat([torch.tensor([0, 1, 2, 3]) + task.first_code, torch.tensor([2])])
    other = torch.cat([torch.tensor([7, 7, 7, 7]) + task.first_code, torch.tensor([2])])
    hypotheses = [[{"tokens": other, "score": 0.0}, {"tokens": tokens, "score": -1.0}], []]
    drawing = task.draw(hypotheses, batch)[0]
    assert drawing.scores[0] == pytest.approx(1.0) and drawing.codes[0].flatten().tolist() == [0, 1, 2, 3]
    buffer = io.BytesIO()
    task.drawer.decode([codes_of("7 7 7 7")])[0].save(buffer, "PNG")
    batch["code_images"] = np.array([base64.b64encode(buffer.getvalue())] * 2)
    batch["has_code_images"] = np.array([True, True])
    assert task.draw(hypotheses, batch)[0].codes[0].flatten().tolist() == [7, 7, 7, 7]
    batch["has_code_images"], batch["target"] = np.array([False, False]), torch.full((2, 5), task.first_code)
    with pytest.raises(DataError, match="row 7 has neither picture nor codes"):
        task.draw(hypotheses, batch)


def test_validation_and_best_checkpoint_know_the_score(task: ImageGenTask) -> None:
    log = task.evaluate(batch_of(task), model_of(task))
    assert set(log) == {"_score_sum", "_score_cnt"} and float(log["_score_cnt"]) == 2
    assert task.validation_metrics() == {"score"}


def test_what_is_no_picture_is_told(task: ImageGenTask) -> None:
    with pytest.raises(DataError, match="no picture of 2 x 2 codes"):
        task.draw([[{"tokens": torch.tensor([5, 2]), "score": 0.0}]], batch_of(task))


# ---- rewards


def test_rewards_are_two_and_a_half_times_the_similarity(task: ImageGenTask) -> None:
    batch = batch_of(task)
    pictures = [[codes_of("0 1 2 3"), codes_of("4 4 4 4")], [codes_of("1 1 1 1")]]
    symbols = [[codes.flatten() + task.first_code for codes in row] for row in pictures]
    rewards = task.picture_rewards(symbols, batch)
    drawn = task.drawer.decode([codes for row in pictures for codes in row])
    captions = ["bright four", "bright four", "a dark three / above"]
    assert torch.equal(rewards, 2.5 * task.drawer.clip.similarity(drawn, captions))


def test_the_search_for_rewards_needs_two_pictures_and_something_to_score_them(
    task: ImageGenTask, options: dict[str, Any]
) -> None:
    assert task.scst_generator.options.beam_size == 2
    with pytest.raises(ConfigError, match="compared with each other"):
        make_task(**options, clip_model_path="clip.pt", scst_args='{"beam": 1}').scst_generator  # noqa: B018
    with pytest.raises(ConfigError, match="--clip-model-path"):
        make_task(**options, scst_args='{"beam": 2}').scst_generator  # noqa: B018


# ---- tokenizers that do not fit


def test_a_tokenizer_that_does_not_fit_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="multiple of 8"):
        make_task(**{**options, "code_image_size": 20})
    with pytest.raises(ConfigError, match="8 codes of 8 x 8 pixels"):
        _ = make_task(**{**options, "code_dict_size": 4}).drawer.tokenizer
    with pytest.raises(ConfigError, match="--vqgan-config-path"):
        _ = make_task(**{**options, "vqgan_config_path": None}).drawer.tokenizer


# ---- files


def picture(shade: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (shade, shade, shade))


def test_files_are_named_by_id_and_number_and_never_by_a_caption(tmp_path: Path) -> None:
    files = PictureFiles(tmp_path / "made")
    drawings = [Drawing("../../etc\n", [], [0.9, 0.1], [picture(9), picture(1)]) for _ in range(3)]
    for row_id, drawing in zip(("7", "../up", "7"), drawings, strict=True):
        files.write(row_id, drawing)
    names = [name for drawing in drawings for name in drawing.files]
    assert len(set(names)) == 6 and all(re.fullmatch(r"(7_)?[0-9a-f]{8}(-2)?_[01]\.png", name) for name in names)
    assert sorted(path.name for path in (tmp_path / "made" / "all_results").iterdir()) == sorted(names)
    best = sorted(drawing.files[0] for drawing in drawings)
    assert sorted(path.name for path in (tmp_path / "made" / "top1").iterdir()) == best
    assert Image.open(tmp_path / "made" / "top1" / best[0]).getpixel((0, 0)) == (9, 9, 9)
    assert drawings[0].pictures == [] and [path.name for path in tmp_path.iterdir()] == ["made"]


def test_names_tell_captions_apart() -> None:
    assert file_name("1", "a") != file_name("1", "b") and file_name("x" * 65, "a") == file_name("x" * 65, "a")


def test_ranking_keeps_what_belongs_together() -> None:
    drawing = ranked(Drawing("a", [torch.tensor([[number]]) for number in range(3)], [0.1, 0.9, 0.1]))
    assert [int(codes) for codes in drawing.codes] == [1, 0, 2] and drawing.scores == [0.9, 0.1, 0.1]
    assert drawing.best_codes == "1"


def test_the_result_file_names_the_best_picture(
    task: ImageGenTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task.cfg.gen_images_path = str(tmp_path / "drawn")
    task.load_dataset("test")
    flags = {"results_path": str(tmp_path / "results"), "gen_subset": "test", "task": "image_gen"}
    compat.command_line.update(flags)
    try:
        batches = task.get_batch_iterator(task.dataset("test"), max_sentences=1).next_epoch_itr(shuffle=False)
        generator = SequenceGenerator([], task.target_dictionary, task.answer_options({}))
        for batch in batches:
            task.inference_step(generator, [model_of(task)], batch)
    finally:
        for flag in flags:
            compat.command_line.pop(flag)
    lines = json.loads((tmp_path / "results" / "test_predict.json").read_text())
    assert [line["id"] for line in lines] == ["7", "../up"]
    for line in lines:
        assert line["score"] == max(line["scores"]) and len(line["scores"]) == 3
        drawn = Image.open(tmp_path / "drawn" / "top1" / line["picture"])
        expected = task.drawer.decode([codes_of(line["codes"])])[0]
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))
    meta = json.loads((tmp_path / "results" / "test_predict.meta.json").read_text())
    assert meta["scores"]["score"] == pytest.approx(np.mean([line["score"] for line in lines]), abs=1e-3)
    assert len(list((tmp_path / "drawn" / "all_results").iterdir())) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn", "results", "rows.tsv", "rows.tsv.idx"]
