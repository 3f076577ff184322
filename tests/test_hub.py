"""Prediction with a trained checkpoint: Python form and ``unival predict``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from unival_cli.main import main
from unival_plugin.errors import CheckpointError, ConfigError, DataError
from unival_plugin.hub import Predictor, from_pretrained
from unival_plugin.unival.model.registration import UnIVALModel, UnIVALModelConfig
from unival_plugin.unival.tasks.caption import CaptionConfig, CaptionTask

SIZES = {
    "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_layers": 1, "decoder_layers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model in a file of fairseq's layout."""
    folder = tmp_path_factory.mktemp("model")
    shutil.copy(digits / "digits.model", folder)
    task_cfg = OmegaConf.structured(
        CaptionConfig(
            data="gone.tsv", bpe="sentencepiece", sentencepiece_model=str(folder / "digits.model"), code_dict_size=4,
            num_bins=4, patch_image_size=32, eval_args='{"beam": 2, "max_len_b": 6}',
        )
    )  # fmt: skip
    OmegaConf.set_struct(task_cfg, False)
    task_cfg._name = "caption"
    model_cfg = OmegaConf.structured(UnIVALModelConfig(_name="unival_tiny", **SIZES))
    torch.manual_seed(0)
    model = UnIVALModel.build_model(model_cfg, CaptionTask.setup_task(task_cfg))
    cfg = {"task": OmegaConf.to_container(task_cfg, enum_to_str=True), "model": OmegaConf.to_container(model_cfg)}
    torch.save({"cfg": cfg, "args": None, "model": model.state_dict()}, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return from_pretrained(checkpoint, "cpu")


@pytest.fixture(scope="module")
def pictures(digits: Path) -> list[Path]:
    return sorted((digits / "pictures").glob("*.png"))


def test_paths_bytes_and_pictures_give_the_same_caption(predictor: Predictor, pictures: list[Path]) -> None:
    forms: list[Any] = [pictures[0], str(pictures[0]), pictures[0].read_bytes(), Image.open(pictures[0])]
    captions = predictor.caption(forms)
    assert len(set(captions)) == 1 and len(captions) == 4


def test_batches_and_workers_change_nothing(predictor: Predictor, pictures: list[Path]) -> None:
    alone = [prediction.text for prediction in predictor.stream(pictures, batch_size=1)]
    assert [prediction.text for prediction in predictor.stream(pictures, batch_size=3, workers=1)] == alone


def test_an_unreadable_picture_keeps_its_place(predictor: Predictor, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    predictions = list(predictor.stream([pictures[0], tmp_path / "broken.png", pictures[1]]))
    assert [bool(prediction.error) for prediction in predictions] == [False, True, False]
    assert "broken.png" in predictions[1].error
    with pytest.raises(DataError, match=r"broken\.png"):
        predictor.caption([tmp_path / "broken.png"])


def test_generation_options_can_be_given(predictor: Predictor, pictures: list[Path]) -> None:
    assert len(predictor.caption(pictures[:1], beam_size=1, max_len_b=2)[0].split()) <= 2
    with pytest.raises(ConfigError, match="at least 1"):
        predictor.caption(pictures[:1], beam_size=0)


def test_a_moved_checkpoint_finds_its_tokenizer(checkpoint: Path, tmp_path: Path, pictures: list[Path]) -> None:
    state = torch.load(checkpoint, weights_only=True)
    state["cfg"]["task"]["sentencepiece_model"] = "somewhere/else/digits.model"
    torch.save(state, tmp_path / "moved.pt")
    with pytest.raises(ConfigError, match="does not exist"):
        from_pretrained(tmp_path / "moved.pt", "cpu")
    shutil.copy(checkpoint.parent / "digits.model", tmp_path)
    assert from_pretrained(tmp_path / "moved.pt", "cpu").caption(pictures[:1])


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        from_pretrained(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.pt"):
        from_pretrained(tmp_path / "text.pt")
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="no configuration"):
        from_pretrained(tmp_path / "weights.pt")


class TestCommand:
    def run(self, checkpoint: Path, *arguments: object) -> int:
        words = ["predict", "--task", "caption", "--path", checkpoint, "--device", "cpu", *arguments]
        return main([str(word) for word in words])

    def test_a_folder_gives_a_line_for_each_picture(
        self, checkpoint: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(checkpoint, pictures[0].parent) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["image"] for line in lines] == [str(path) for path in pictures]
        assert all(set(line) == {"image", "caption", "score"} for line in lines)

    def test_an_interrupted_output_is_continued(self, checkpoint: Path, pictures: list[Path], tmp_path: Path) -> None:
        output = tmp_path / "out.jsonl"
        assert self.run(checkpoint, pictures[0].parent, "--output", output) == 0
        whole = output.read_bytes()
        lines = whole.splitlines(keepends=True)
        output.write_bytes(b"".join(lines[:2]) + lines[2][:10])
        assert self.run(checkpoint, pictures[0].parent, "--output", output) == 0
        assert output.read_bytes() == whole

    def test_other_options_do_not_continue_a_file(
        self, checkpoint: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "out.jsonl"
        assert self.run(checkpoint, pictures[0], "--output", output) == 0
        assert self.run(checkpoint, pictures[0], "--output", output, "--beam", 1) == 2
        assert "other options" in capsys.readouterr().err
        assert self.run(checkpoint, pictures[0], "--output", output, "--beam", 1, "--overwrite") == 0

    def test_unreadable_pictures_are_reported(
        self, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(checkpoint, tmp_path / "missing.png") == 1
        streams = capsys.readouterr()
        assert "missing.png" in json.loads(streams.out)["error"]
        assert "1 of 1 pictures could not be read" in streams.err

    def test_nothing_found(self, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(checkpoint, tmp_path / "*.png") == 2
        assert "no pictures found" in capsys.readouterr().err
