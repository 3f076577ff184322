"""The whole way from pictures to pictures with the real programs: encode, train, train with rewards, draw, score."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from commands import (
    NETWORK,
    OPTIMISATION,
    PLUGIN,
    ROOT,
    Data,
    checkpoint,
    differing,
    program,
    run,
    succeed,
)
from PIL import Image
from test_reward_training import rewarded

from unival_plugin.checkpoints.image_tokenizer import write_image_tokenizer
from unival_plugin.modules.vqgan import VQGAN, VQGANConfig

SIDE = 32
CODES = 8
CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": SIDE, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def files(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a made tokenizer and a made CLIP, and the digits' pictures as codes."""
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("drawing")
    torch.manual_seed(3)
    sizes = {"resolution": SIDE, "ch": 8, "ch_mult": (1, 1, 1, 1), "num_res_blocks": 1, "attn_resolutions": ()}
    network = VQGAN(VQGANConfig(embed_dim=8, n_embed=CODES, z_channels=8, num_groups=4, **sizes))
    write_image_tokenizer(network, folder / "last.ckpt", folder / "model.yaml")
    torch.save(open_clip.CLIP(**CLIP).state_dict(), folder / "clip.pt")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": {}}))
    tool = [sys.executable, str(ROOT / "dataset_tools" / "encode_pictures.py"), *tokenizer(folder)]
    for name in ("train_1", "val"):
        table = ["--tsv", str(data.file(f"{name}.tsv")), "--selected-cols", "0,4,2"]
        succeed([*tool, *table, "--code-image-size", str(SIDE), "--output", str(folder / f"{name}.tsv")])
    return folder


def tokenizer(folder: Path) -> list[str]:
    return ["--vqgan-model-path", str(folder / "last.ckpt"), "--vqgan-config-path", str(folder / "model.yaml")]


def flags(data: Data, folder: Path, *names: str) -> list[str]:
    return [
        ",".join(str(folder / f"{name}.tsv") for name in names),
        *f"--user-dir {PLUGIN} --task image_gen --selected-cols 0,2,1 --code-image-size {SIDE}".split(),
        *f"--bpe sentencepiece --sentencepiece-model {data.file('digits.model')}".split(),
        *f"--code-dict-size {CODES} --num-bins 8 --max-source-positions 64 --max-target-positions 64".split(),
        *tokenizer(folder), "--clip-model-path", str(folder / "clip.pt"),
    ]  # fmt: skip


@pytest.mark.slow
def test_pictures_are_learned_from_codes_then_from_rewards_and_drawn(data: Data, files: Path, tmp_path: Path) -> None:
    first, second, results = tmp_path / "first", tmp_path / "second", tmp_path / "results"
    common = [*flags(data, files, "train_1", "val"), *NETWORK, *OPTIMISATION, "--eval-args", '{"beam":2}']
    common += ["--best-checkpoint-metric", "score", "--maximize-best-checkpoint-metric"]
    (tmp_path / "empty").mkdir()
    drawn = ["--gen-images-path", str(tmp_path / "valid")]
    outcome = succeed(
        [program("fairseq-train"), *common, *drawn, "--max-epoch", "1", "--save-dir", str(first)],
        cwd=tmp_path / "empty",
    )
    assert -1 <= float(outcome.last("valid", "valid_score")) <= 1
    assert len(list((tmp_path / "valid" / "top1").iterdir())) == 13
    assert checkpoint(first / "checkpoint_best.pt")["cfg"]["model"]["code_image_size"] == SIDE

    command = rewarded([program("fairseq-train"), *common, "--save-dir", str(second)], "clip_scst_reward_criterion")
    start = ["--finetune-from-model", str(first / "checkpoint_last.pt"), "--max-update", "4", "--lr", "1e-3"]
    rewards = succeed([*command, *start, "--scst", "--scst-args", '{"beam":3}'])
    assert differing(*(checkpoint(each / "checkpoint_last.pt")["model"] for each in (first, second)))
    for record in rewards.logged("train_inner"):
        assert math.isfinite(float(record["loss"])) and abs(float(record["score"])) <= 2.5
    # one metric of this name: the task's cosine, not the criterion's reward
    assert -1 <= float(rewards.last("valid", "valid_score")) <= 1

    draw = [program("fairseq-generate"), *flags(data, files, "val"), "--path", str(second / "checkpoint_last.pt")]
    draw += ["--results-path", str(results), "--gen-images-path", str(results), "--gen-subset", "test", "--quiet"]
    search = "--beam 3 --sampling-topk 4 --temperature 0.9 --batch-size 5 --num-workers 0 --seed 2"
    succeed([*draw, *search.split()], cwd=tmp_path / "empty")
    lines = json.loads((results / "test_predict.json").read_text())
    assert len(lines) == 13 and all(len(line["scores"]) == 3 for line in lines)
    assert all(len(line["codes"].split()) == (SIDE // 8) ** 2 for line in lines)
    for line in lines:
        with Image.open(results / "top1" / line["picture"]) as picture:
            assert picture.size == (SIDE, SIDE)
    assert len(list((results / "all_results").iterdir())) == 39
    assert not list((tmp_path / "empty").iterdir())


def test_missing_parts_are_told_in_one_line(data: Data, files: Path, tmp_path: Path) -> None:
    command = [program("fairseq-train"), *flags(data, files, "train_1", "val"), *NETWORK, *OPTIMISATION]
    command = rewarded([*command, "--save-dir", str(tmp_path)], "clip_scst_reward_criterion")
    assert "at least" in run([*command, "--scst-args", '{"beam":1}']).complaint()
