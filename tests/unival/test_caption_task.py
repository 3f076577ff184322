"""Task ``caption``: rows to batches as the reference does, validation scores, result files."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_rows import compare, gradient
from omegaconf import OmegaConf

from unival_plugin import compat
from unival_plugin.data.dataset import RowDataset
from unival_plugin.errors import ConfigError, DataError
from unival_plugin.generation.generator import SequenceGenerator
from unival_plugin.unival.tasks.caption import CaptionConfig, CaptionTask

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "unival_tasks" / "caption_rows.json").read_text())


def make_task(**options: Any) -> CaptionTask:
    return CaptionTask.setup_task(OmegaConf.structured(CaptionConfig(**options)))


@pytest.fixture
def golden_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.tsv"
    rows = [f"{row_id}\timage{row_id}\t{caption}\t\t{gradient(64, 48)}" for row_id, _, caption in GOLDEN["rows"]]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_rows_become_the_references_samples_and_batch(case: str, golden_file: Path, gpt2_bpe_dir: Path) -> None:
    _, split, scst = case.split("_")
    task = make_task(
        data=f"{golden_file},{golden_file}", selected_cols="0,4,2", bpe_dir=str(gpt2_bpe_dir), patch_image_size=32,
        max_tgt_length=5, scst=scst == "scstTrue",
    )  # fmt: skip
    task.load_dataset(split)
    dataset = task.dataset(split)
    samples = [dataset[i] for i in range(len(dataset))]
    for sample, wanted in zip(samples, GOLDEN["cases"][case]["items"], strict=True):
        compare(sample, wanted)
    compare(dataset.collater(samples), GOLDEN["cases"][case]["batch"])


@pytest.fixture
def task(digits: Path) -> CaptionTask:
    return make_task(
        data=f"{digits}/train_1.tsv,{digits}/train_2.tsv,{digits}/val.tsv", selected_cols="0,4,2",
        bpe="sentencepiece", sentencepiece_model=f"{digits}/digits.model", code_dict_size=8, num_bins=8,
        patch_image_size=32, eval_cider=True, use_dataaug=True,
    )  # fmt: skip


def load(task: CaptionTask, split: str, epoch: int = 1) -> RowDataset:
    task.load_dataset(split, epoch=epoch)
    return task.dataset(split)


def test_epochs_walk_through_the_files(task: CaptionTask) -> None:
    files = [load(task, "train", epoch).table.path.name for epoch in (1, 2, 3)]
    assert files == ["train_1.tsv", "train_2.tsv", "train_1.tsv"]
    assert load(task, "valid").table.path.name == "val.tsv"


def test_every_row_is_in_one_batch_of_one_shard(task: CaptionTask) -> None:
    dataset = load(task, "train")
    iterators = [
        task.get_batch_iterator(dataset, max_sentences=4, seed=3, num_shards=3, shard_id=shard, epoch=2)
        for shard in range(3)
    ]
    batches = [iterator.frozen_batches for iterator in iterators]
    assert len({len(shard) for shard in batches}) == 1
    assert sorted(row for shard in batches for batch in shard for row in batch) == list(range(45))


def test_augmentation_is_a_function_of_seed_epoch_and_row(task: CaptionTask) -> None:
    dataset = load(task, "train")
    dataset.batches(1, 0, 4, seed=5, epoch=1, shuffle=True)
    first = dataset[7]["patch_image"]
    dataset[3]
    assert torch.equal(first, dataset[7]["patch_image"])
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(first, copy[7]["patch_image"])
    dataset.set_epoch(2)
    assert not torch.equal(first, dataset[7]["patch_image"])


def test_a_batch_without_rows_is_a_dummy_that_counts_nothing(task: CaptionTask) -> None:
    batch = load(task, "valid").collater([])
    assert (batch["is_dummy"], batch["nsentences"], batch["ntokens"], len(batch["id"])) == (True, 0, 0, 0)
    assert batch["net_input"]["patch_images"].shape == (1, 3, 32, 32)


def test_validation_captions_are_scored_against_all_references(task: CaptionTask) -> None:
    load(task, "valid")
    scores = task.score(["a two", "a cat"], [["a two", "something else"], ["a dog"]])
    assert scores["exact_match"].tolist() == [1.0, 0.0]
    assert scores["cider"][0] > scores["cider"][1] == 0.0


def test_frequencies_are_read_only_where_captions_are_scored(
    task: CaptionTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.cfg.eval_cider, task.cfg.eval_cider_cached_tokens = False, str(tmp_path / "of another machine.json")
    monkeypatch.setattr(compat, "command_line", {})
    load(task, "valid")
    monkeypatch.setattr(compat, "command_line", {"scoring": "caption"})
    with pytest.raises(ConfigError, match="of another machine"):
        load(task, "valid")


def test_references_survive_tokenizing(task: CaptionTask) -> None:
    dataset = load(task, "valid")
    batch = dataset.collater([dataset[0], dataset[1]])
    wanted = [[dataset.table.cell(row, 2)] for row in (0, 1)]
    assert task.references(batch) == wanted


def test_the_result_file_is_written_after_the_last_row(
    task: CaptionTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load(task, "valid")
    monkeypatch.setattr(compat, "command_line", {"results_path": str(tmp_path), "gen_subset": "test", "path": "x.pt"})
    iterator = task.get_batch_iterator(dataset, max_sentences=8)
    generator = SequenceGenerator([], task.target_dictionary)
    monkeypatch.setattr(generator, "generate", perfect_generator(task))
    for batch in iterator.next_epoch_itr(shuffle=False):
        assert not list(tmp_path.iterdir())
        task.inference_step(generator, [], batch)
    answers = json.loads((tmp_path / "test_predict.json").read_text())
    meta = json.loads((tmp_path / "test_predict.meta.json").read_text())
    assert [answer["image_id"] for answer in answers] == [dataset.table.cell(i, 0) for i in range(13)]
    assert meta["scores"]["exact_match"] == 1.0
    assert (meta["rows"], meta["picture_size"], meta["generation"]["beam_size"]) == (13, 32, 5)


def perfect_generator(task: CaptionTask) -> Any:
    def generate(_: Any, sample: Any) -> list[list[dict[str, Any]]]:
        pad = task.target_dictionary.pad()
        return [[{"tokens": target[target.ne(pad)]}] for target in sample["target"]]

    return generate


class TestMistakes:
    def test_no_data(self, digits: Path) -> None:
        task = make_task(bpe="sentencepiece", sentencepiece_model=f"{digits}/digits.model")
        with pytest.raises(ConfigError, match="no data"):
            task.load_dataset("train")

    def test_too_few_columns(self, task: CaptionTask) -> None:
        task.cfg.selected_cols = "0,4"
        with pytest.raises(ConfigError, match="2 columns selected, the task needs 3"):
            task.load_dataset("valid")

    def test_empty_file(self, task: CaptionTask, tmp_path: Path) -> None:
        (tmp_path / "empty.tsv").write_text("")
        task.cfg.data = str(tmp_path / "empty.tsv")
        with pytest.raises(DataError, match=r"empty\.tsv: the file is empty"):
            task.load_dataset("valid")

    def test_fp16_on_the_cpu(self, task: CaptionTask) -> None:
        task.cfg.autocast = "fp16"
        dataset = load(task, "valid")
        with pytest.raises(ConfigError, match="needs a GPU"):
            task.inference_step(None, [], dataset.collater([dataset[0]]))  # type: ignore[arg-type]

    def test_unsupported_search(self, task: CaptionTask) -> None:
        with pytest.raises(ConfigError, match="only beam search"):
            task.build_generator([], Namespace(diversity_rate=0.5, beam=5))

    def test_the_base_task_is_no_task(self, digits: Path) -> None:
        from unival_plugin.unival.tasks.base import UnIVALTask

        base = UnIVALTask(OmegaConf.structured(CaptionConfig()), None)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="choose a task"):
            base.row_reader("train")
