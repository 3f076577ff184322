"""Files of every released configuration, full size and with made weights, through every program that uses them.

They have the keys, number format and options of the released files. Only the dictionary is shorter: that of the digits
with the released numbers of image codes and bins, because GPT-2's pieces are a download.
"""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import OPTIMISATION, PLUGIN, copy_with, program, together

from unival_plugin.data.text import build_text_encoder
from unival_plugin.unival.model.config import SCRIPT_FLAGS, from_preset
from unival_plugin.unival.model.network import UnIVALNetwork

FILM = {"video_encoder_name": "all_resnext101"}
SOUND = {"audio_encoder_name": "pann_cnn14", "mel_bins": 64, "hop_size": 200}


@dataclass(frozen=True)
class Configuration:
    """``task`` that the file was trained for, model ``flags`` beside those of every script, number of ``keys``."""

    task: str
    flags: dict[str, Any]
    keys: int


CONFIGURATIONS = {
    "image_caption": Configuration("caption", FILM, 1656),
    "video_caption": Configuration("video_caption", FILM, 1656),
    "audio_caption": Configuration("audio_caption", {**FILM, **SOUND}, 1739),
    "pretrain_s1": Configuration("unify_task", {}, 1029),
    "pretrain_s2": Configuration("unify_task", FILM, 1656),
}


class Released:
    """A released-style file and the command lines that use it."""

    def __init__(self, configuration: Configuration, digits: Path, folder: Path) -> None:
        self.configuration, self.folder = configuration, folder
        self.path = folder / "released.pt"
        self.rows = copy_with(digits / "val.tsv", folder / "rows.tsv", lambda _, cells: cells, rows=2)
        self.text = ["--bpe", "sentencepiece", "--sentencepiece-model", str(digits / "digits.model")]
        self._write(digits / "digits.model")

    def _write(self, sentencepiece: Path) -> None:
        dictionary = build_text_encoder("sentencepiece", None, sentencepiece).dictionary
        config = from_preset("unival_base", {**SCRIPT_FLAGS, **self.configuration.flags})
        torch.manual_seed(7)
        state = UnIVALNetwork(config, len(dictionary), dictionary.pad()).state_dict()
        assert len(state) == self.configuration.keys
        task = {
            "_name": self.configuration.task, "data": "/home/authors/train.tsv,/home/authors/val.tsv",
            "selected_cols": "0,4,2", "bpe": "sentencepiece", "bpe_dir": "../../utils/BPE",
            "sentencepiece_model": str(sentencepiece), "patch_image_size": 64, "num_bins": 1000, "neg_sample_dir": "x",
            "eval_args": '{"beam": 2, "max_len_b": 4}', "imagenet_default_mean_and_std": False,
        }  # fmt: skip
        merged = {
            **SCRIPT_FLAGS, **self.configuration.flags, **task, "_name": "unival_base", "arch": "unival_base",
            "resnet_type": "resnet101", "sample_patch_num": 784, "encoder_drop_path_rate": 0.1, "dropout": 0.1,
            "resnet_model_path": "/home/authors/resnet101.pth", "video_model_path": "/home/authors/resnext.pth",
        }  # fmt: skip
        cfg = {
            "model": argparse.Namespace(**merged),
            "task": task,
            "criterion": {"_name": "adjust_label_smoothed_cross_entropy", "label_smoothing": 0.1},
            "lr_scheduler": {"_name": "polynomial_decay", "warmup_ratio": 0.01},
            "checkpoint": {"save_on_cuda": True},
        }
        halved = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        torch.save({"args": None, "cfg": cfg, "model": halved, "extra_state": {"epoch": 3}}, self.path)

    def flags(self) -> list[str]:
        """Of the caption task on the rows."""
        words = f"{self.rows} --user-dir {PLUGIN} --task caption --selected-cols 0,4,2 --patch-image-size 64"
        return [*shlex.split(words), *self.text]

    def train(self) -> list[str]:
        """One update from the file; nothing is written."""
        model = shlex.split("--arch unival_base --scale-attn --scale-fc --scale-heads --disable-entangle")
        model += ["--image-encoder-name", "timm_resnet"]
        for name, value in self.configuration.flags.items():
            model += [f"--{name.replace('_', '-')}", str(value)]
        fresh = shlex.split("--reset-optimizer --reset-dataloader --reset-meters --max-update 1 --no-save")
        data = [f"{self.rows},{self.rows}", *self.flags()[1:]]
        more = [
            "--restore-file",
            str(self.path),
            "--save-dir",
            str(self.folder),
            "--disable-validation",
            "--batch-size",
            "1",
        ]
        return [program("fairseq-train"), *data, *model, *OPTIMISATION, *fresh, *more, "--optimizer", "sgd"]

    def evaluate(self, name: str, *more: str) -> list[str]:
        """fairseq-validate or fairseq-generate."""
        plain = shlex.split("--batch-size 2 --num-workers 0 --log-format json")
        return [program(name), *self.flags(), "--path", str(self.path), *plain, *more]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_released_style_file_goes_through_every_program(name: str, digits: Path, tmp_path: Path) -> None:
    released = Released(CONFIGURATIONS[name], digits, tmp_path)
    try:
        search = shlex.split("--gen-subset valid --beam 2 --max-len-a 0 --max-len-b 4 --scoring caption")
        picture = next(iter(sorted((digits / "pictures").glob("*.png"))))
        trained, validated, _, predicted = together(
            released.train(),
            released.evaluate("fairseq-validate", "--valid-subset", "valid"),
            released.evaluate("fairseq-generate", *search, "--results-path", str(tmp_path / "results")),
            [program("unival"), "predict", "--task", "caption", "--path", str(released.path), str(picture)],
        )
        assert "0 kept as initialised; 0 resized; 0 left out" in trained.stdout
        assert float(trained.last("train", "train_loss")) > 0
        assert float(validated.last("valid", "valid_loss")) > 0
        assert len(json.loads((tmp_path / "results" / "valid_predict.json").read_text())) == 2
        assert set(json.loads(predicted.stdout)) == {"image", "caption", "score"}
    finally:
        released.path.unlink()
