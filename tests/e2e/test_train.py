"""Train, validate and generate with the real programs."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import fairseq
import pytest
from commands import (
    NETWORK,
    PLUGIN,
    SEARCH,
    Data,
    Outcome,
    checkpoint,
    generate,
    program,
    run,
    succeed,
    train,
    validate,
)

TRAIN_ROWS, VAL_ROWS = 45, 13
EPOCHS = 6
NUMBER = r"[0-9.]+"


@dataclass(frozen=True)
class Chain:
    """A training and what was made of its last checkpoint."""

    last: Path
    training: Outcome
    validation: Outcome
    generation: Outcome
    results: Path

    @property
    def meta(self) -> dict:
        return json.loads((self.results / "valid_predict.meta.json").read_text())

    @property
    def lines(self) -> str:
        return (self.results / "generate-valid.txt").read_text()


@pytest.fixture(scope="module")
def chain(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Training, fairseq-validate and fairseq-generate; ``--required-batch-size-multiple`` stays at its default 8."""
    folder = tmp_path_factory.mktemp("chain")
    last, results = folder / "run" / "checkpoint_last.pt", folder / "results"
    scores = ["--eval-cider", "--eval-args", json.dumps(SEARCH), "--best-checkpoint-metric", "cider"]
    training = succeed(
        train(data, last.parent, "--max-epoch", str(EPOCHS), "--maximize-best-checkpoint-metric", *scores), cwd=folder
    )
    validation = succeed(validate(data, last), cwd=folder)
    generation = succeed(generate(data, last, results), cwd=folder)
    return Chain(last, training, validation, generation, results)


def test_validation_and_generation_report_the_same_scores(chain: Chain):
    cider, exact = (float(chain.training.last("valid", f"valid_{name}")) for name in ("cider", "exact_match"))
    assert cider > 0.5  # else agreement would mean nothing
    assert exact > 0.1
    assert float(chain.validation.last("valid", "valid_cider")) == cider
    assert float(chain.validation.last("valid", "valid_exact_match")) == exact
    scorer = re.search(rf"CIDEr-D ({NUMBER}) \| exact match ({NUMBER}) % \| (\d+) captions", chain.lines)
    assert scorer, chain.lines
    assert float(scorer[1]) == cider
    assert float(scorer[2]) == pytest.approx(100 * exact, abs=0.01)
    assert int(scorer[3]) == VAL_ROWS
    assert chain.meta["scores"]["cider"] == pytest.approx(cider, abs=6e-4)
    assert chain.meta["scores"]["exact_match"] == pytest.approx(exact, abs=6e-5)


def test_validation_and_generation_report_the_same_loss(chain: Chain):
    assert float(chain.validation.last("valid", "valid_loss")) == pytest.approx(
        float(chain.training.last("valid", "valid_loss")), abs=2e-3
    )


def test_the_meta_file_tells_how_the_results_were_made(chain: Chain, data: Data):
    meta = chain.meta
    digest = hashlib.sha256(chain.last.read_bytes()).hexdigest()
    assert meta["checkpoint"] == {str(chain.last): {"sha256": digest}}
    assert meta["prompt"] == " what does the image describe?"
    assert meta["generation"]["beam_size"] == SEARCH["beam"]
    assert meta["picture_size"] == 32
    assert meta["data"] == str(data.file("val.tsv"))
    assert meta["rows"] == VAL_ROWS
    assert meta["bad_rows"] == 0


def test_the_result_file_answers_every_row_once(chain: Chain, data: Data):
    answers = json.loads((chain.results / "valid_predict.json").read_text())
    ids = [row.split("\t")[0] for row in data.file("val.tsv").read_text().splitlines()]
    assert [answer["image_id"] for answer in answers] == ids
    assert all(re.fullmatch(r"[a-z ]+", answer["caption"]) for answer in answers)


def test_source_target_and_hypothesis_lines_are_text(chain: Chain):
    for kind, pattern in (("S", r"what does the image describe\?"), ("T", r"a (one|two|three)"), ("D", r"[a-z ]+")):
        lines = re.findall(rf"^{kind}-\S+\t(?:-?{NUMBER}(?:e-\d+)?\t)?(.*)$", chain.lines, re.MULTILINE)
        assert len(lines) == VAL_ROWS
        assert all(re.fullmatch(pattern, line.strip()) for line in lines), lines


def test_no_row_is_dropped_in_training_or_validation(chain: Chain):
    for epoch in chain.training.logged("train"):
        batches = -(-TRAIN_ROWS // 4)
        assert float(epoch["train_nsentences"]) == pytest.approx(TRAIN_ROWS / batches, abs=1e-3)
    assert float(chain.training.last("valid", "valid_nsentences")) == VAL_ROWS / 4


def test_an_own_checkpoint_asks_for_no_unsafe_loading(chain: Chain):
    import torch

    assert torch.serialization.get_unsafe_globals_in_checkpoint(chain.last) == []


@pytest.mark.parametrize("flags", [["--autocast", "bf16"], ["--bf16"]], ids=["autocast", "bf16"])
def test_half_precision_trains_on_the_cpu(data: Data, tmp_path: Path, flags: list[str]):
    outcome = succeed(train(data, tmp_path / "run", *flags, "--max-epoch", "2", "--no-save"))
    losses = [float(epoch["train_loss"]) for epoch in outcome.logged("train")]
    assert losses[1] < losses[0]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("fairseq-train", ["--arch", "unival_tiny", "--criterion", "adjust_label_smoothed_cross_entropy"]),
        ("fairseq-validate", ["--path", "x.pt"]),
        ("fairseq-generate", ["--path", "x.pt", "--scoring", "caption"]),
    ],
)
def test_help_shows_our_options(name: str, more: list[str]):
    outcome = succeed([program(name), "--user-dir", str(PLUGIN), "--task", "caption", *more, "--help"])
    wanted = ["--eval-cider", "--on-bad-row", "--selected-cols"]
    own = {"fairseq-train": ["--image-encoder-name", "--drop-worst-ratio"], "fairseq-generate": ["--caption-cider-df"]}
    missing = [option for option in wanted + own.get(name, []) if option not in outcome.stdout]
    assert not missing, outcome.text


def _hydra_yaml(data: Data, save_dir: Path) -> str:
    files = ",".join(str(data.file(name)) for name in ("train_1.tsv", "train_2.tsv", "val.tsv"))
    network = dict(zip((flag[2:].replace("-", "_") for flag in NETWORK[2::2]), NETWORK[3::2], strict=True))
    sections = {
        "common": {"user_dir": str(PLUGIN), "log_format": "json", "log_interval": 1, "seed": 1},
        "task": {
            "_name": "caption",
            "data": files,
            "selected_cols": "0,4,2",
            "bpe": "sentencepiece",
            "sentencepiece_model": str(data.file("digits.model")),
            "patch_image_size": 32,
            "code_dict_size": 8,
            "num_bins": 8,
            "max_source_positions": 32,
            "max_target_positions": 64,
        },
        "dataset": {"batch_size": 4, "num_workers": 0},
        "checkpoint": {"save_dir": str(save_dir), "no_epoch_checkpoints": True},
        "criterion": {"_name": "adjust_label_smoothed_cross_entropy", "label_smoothing": 0.1},
        "optimization": {"max_epoch": EPOCHS, "lr": [0.01], "clip_norm": 1.0},
        "optimizer": {"_name": "adam"},
        "lr_scheduler": {"_name": "polynomial_decay_ratio", "warmup_ratio": 0.1},
        "model": {
            "_name": "unival_tiny",
            "max_source_positions": 32,
            "max_target_positions": 64,
            **{key: int(value) for key, value in network.items()},
        },
    }
    return "# @package _group_\n" + json.dumps(sections, indent=1)  # JSON is YAML


def test_hydra_trains_the_same_as_flags_and_its_checkpoint_is_read(data: Data, tmp_path: Path, chain: Chain):
    (tmp_path / "digits.yaml").write_text(_hydra_yaml(data, tmp_path / "run"))
    command = [program("fairseq-hydra-train"), "--config-dir", str(tmp_path), "--config-name", "digits"]
    succeed([*command, f"hydra.run.dir={tmp_path}"], cwd=tmp_path)
    last = tmp_path / "run" / "checkpoint_last.pt"
    own, other = checkpoint(last)["cfg"]["model"], checkpoint(chain.last)["cfg"]["model"]
    assert own["_name"] == "unival_tiny"
    assert {k: v for k, v in own.items() if v is not None and k != "_name"}.items() <= dict(other).items()
    assert succeed(validate(data, last)).last("valid", "valid_loss") == chain.validation.last("valid", "valid_loss")


def test_hydra_reports_a_mistake_without_traceback(data: Data, tmp_path: Path):
    (tmp_path / "digits.yaml").write_text(_hydra_yaml(data, tmp_path / "run").replace("train_1.tsv", "gone.tsv"))
    command = [program("fairseq-hydra-train"), "--config-dir", str(tmp_path), "--config-name", "digits"]
    outcome = run([*command, f"hydra.run.dir={tmp_path}"], cwd=tmp_path)
    assert outcome.code != 0
    assert "Traceback" not in outcome.stderr
    last_line = outcome.stderr.splitlines()[-1]
    assert last_line.startswith(f"fairseq-hydra-train: error: {data.file('gone.tsv')} does not exist")


def _site_packages(folder: Path) -> Path:
    """A folder of packages in which fairseq and the plugin lie side by side, as after ``pip install``."""
    (folder / "fairseq").mkdir(parents=True)
    for entry in Path(fairseq.__file__).parent.iterdir():
        (folder / "fairseq" / entry.name).symlink_to(entry)
    (folder / "unival_plugin").symlink_to(PLUGIN)
    return folder


def test_the_installed_plugin_is_found_by_name_from_any_folder(data: Data, chain: Chain, tmp_path: Path):
    packages = _site_packages(tmp_path / "packages")
    (tmp_path / "elsewhere").mkdir()
    command = ["unival_plugin" if word == str(PLUGIN) else word for word in validate(data, chain.last)]
    outcome = succeed(command, cwd=tmp_path / "elsewhere", PYTHONPATH=str(packages))
    assert outcome.last("valid", "valid_loss") == chain.validation.last("valid", "valid_loss")


TWICE_AND_SPAWN = """
import argparse, importlib, pickle, sys
from fairseq import tasks, utils

def main(plugin, data, model):
    for user_dir in (plugin, plugin + "/../unival_plugin"):
        utils.import_user_module(argparse.Namespace(user_dir=user_dir))
    package = importlib.import_module("unival_plugin")
    package.compat.apply()
    cfg = tasks.TASK_DATACLASS_REGISTRY["caption"](
        data=data, selected_cols="0,4,2", bpe="sentencepiece", sentencepiece_model=model, patch_image_size=32,
        code_dict_size=8, num_bins=8, use_dataaug=True,
    )
    task = tasks.TASK_REGISTRY["caption"].setup_task(cfg)
    task.load_dataset("train", epoch=1)
    dataset = pickle.loads(pickle.dumps(task.dataset("train")))
    from torch.utils.data import DataLoader
    batches = dataset.batches(1, 0, 16, seed=1, epoch=1, shuffle=True)
    here = [dataset.collater([dataset[row] for row in batch]) for batch in batches]
    loader = DataLoader(
        dataset, batch_sampler=batches, collate_fn=dataset.collater, num_workers=2, multiprocessing_context="spawn"
    )
    there = list(loader)
    assert len(here) == len(there) == 3
    for one, other in zip(here, there):
        assert one["id"].tolist() == other["id"].tolist()
        assert (one["net_input"]["patch_images"] == other["net_input"]["patch_images"]).all()
    print("equal")

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


def test_imported_twice_and_in_spawned_workers(data: Data, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(TWICE_AND_SPAWN)
    files = f"{data.file('train_1.tsv')},{data.file('val.tsv')}"
    outcome = succeed([sys.executable, str(script), str(PLUGIN), files, str(data.file("digits.model"))], cwd=tmp_path)
    assert "equal" in outcome.stdout
