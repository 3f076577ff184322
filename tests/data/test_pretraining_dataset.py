"""Steps of pretraining: what a step holds, on every rank, and that its rows are drawn the same way everywhere."""

from __future__ import annotations

import json
import logging
import math
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from made_pretraining import ROWS, make_folder, row, write

from unival_plugin.data.audio import SoundOptions
from unival_plugin.data.boxes import BoxCodec
from unival_plugin.data.dataset import BadRow
from unival_plugin.data.grounding_transform import GroundingTrainTransform
from unival_plugin.data.image import eval_transform, train_transform
from unival_plugin.data.media import Films, Pictures, Sounds
from unival_plugin.data.mixing import Line, Mixture, Source
from unival_plugin.data.negatives import NegativeSamples
from unival_plugin.data.pretraining import PretrainingEncoder, PretrainingReader
from unival_plugin.data.pretraining_dataset import PretrainingDataset
from unival_plugin.data.samples import Sample, collate
from unival_plugin.data.text import build_text_encoder
from unival_plugin.data.tsv import TsvTable
from unival_plugin.data.video import FilmEvalTransform, FrameSampling
from unival_plugin.errors import DataError
from unival_plugin.unival.tasks.base import parts_of

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "unival_tasks" / "pretraining_rows.json").read_text())
GOLDEN_BATCH = {
    "src_tokens": [4, 16, "torch.int64"], "src_lengths": [4, "torch.int64"],
    "patch_images": [4, 3, 64, 64, "torch.float32"], "patch_masks": [4, "torch.bool"],
    "prev_output_tokens": [4, 8, "torch.int64"], "patch_types": [4, "torch.int64"],
}  # fmt: skip
"""Shapes of the original's batch of the first two rows; its frames and waveforms of zeros are left out here."""
SIZE, PAD = 24, 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    return make_folder(tmp_path_factory.mktemp("mixed"), digits / "digits.model")


def made(
    folder: Path, *main: str, skip: bool = False, training: bool = True, draws: bool = False, **joined: tuple[int, int]
) -> PretrainingDataset:
    """The main files (default: ``main``), and others by name with their ``every`` and ``batch``."""
    tables = [TsvTable(folder / f"{name}.tsv") for name in main or ("main",)]
    others = {name: TsvTable(folder / f"{name}.tsv") for name in joined}
    sources = [Source(name, len(others[name]), every, batch) for name, (every, batch) in joined.items()]
    text = build_text_encoder(
        "sentencepiece", sentencepiece_model=folder / "digits.model", code_dict_size=8, num_bins=8
    )
    media = {
        "picture": Pictures(train_transform(SIZE) if draws else eval_transform(SIZE)),
        "film": Films(FilmEvalTransform(SIZE), FrameSampling(2, "rand", 2), folder, SIZE, draws),
        "sound": Sounds(SoundOptions(600), folder, SIZE, draws),
    }
    return PretrainingDataset(
        tables,
        others,
        Mixture(tuple(map(len, tables)), tuple(sources)),
        PretrainingReader(20, 10, NegativeSamples.read(folder / "wrong") if training else None),
        PretrainingEncoder(text, media, GroundingTrainTransform(SIZE, resizes=draws), BoxCodec(8, SIZE, SIZE)),
        PAD,
        skip,
    )


def plan(
    dataset: PretrainingDataset, size: int = 1, shards: int = 1, shard: int = 0, epoch: int = 1, seed: int = 3
) -> list[list[int]]:
    return dataset.batches(shards, shard, size, seed, epoch, shuffle=True)


def steps(dataset: PretrainingDataset, *args: Any, **how: int) -> list[Any]:
    return [dataset.collater([dataset[k] for k in batch]) for batch in plan(dataset, *args, **how)]


def counted(taken: list[Any]) -> dict[str, dict[str, int]]:
    """Sums of the counts of steps."""
    sums: dict[str, Counter[str]] = {}
    for step in taken:
        first, *others = parts_of(step)
        assert not any({"counts", "bad_rows"} & set(other) for other in others)
        for source, count in first["counts"].items():
            sums.setdefault(source, Counter()).update(count)
    return {source: dict(count) for source, count in sums.items()}


# ---- what a step is


def test_a_step_without_sources_of_a_second_batch_is_one_batch(folder: Path) -> None:
    taken = steps(made(folder, qa=(1, 1), web=(3, 1)), 3)
    assert [len(step["id"]) for step in taken] == [3 * 2 + 3 * 2 + 2, 3 * 2 + 3 * 2 + 2, 2 + 2]
    assert not any(step["is_dummy"] for step in taken)


@pytest.mark.parametrize("size, parts", [(1, [1, 2, 1, 2, 1, 2, 1]), (2, [2, 2, 2, 1]), (7, [2])])
def test_a_step_is_a_list_with_a_second_batch_where_films_are_due(folder: Path, size: int, parts: list[int]) -> None:
    taken = steps(made(folder, web=(2, 1), video=(2, 2)), size)
    assert all(isinstance(step, list) for step in taken) and [len(step) for step in taken] == parts
    for first, *second in taken:
        assert set(first["net_input"]["patch_types"].tolist()) == {0} and "patch_videos" not in first["net_input"]
        assert all(set(batch["net_input"]["patch_types"].tolist()) == {1} for batch in second)
        assert not any(batch["is_dummy"] for batch in (first, *second))


def test_sources_without_rows_make_no_second_batch(folder: Path) -> None:
    dataset = made(folder, empty=(1, 2), web=(1, 1))
    taken = steps(dataset, 3)
    assert all(isinstance(step, dict) for step in taken) and set(counted(taken)) == {"main", "web"}


def test_the_medium_of_a_row_may_be_any_in_either_batch(folder: Path) -> None:
    ((first, second),) = steps(made(folder, "kinds", audio=(2, 2), video=(2, 2)), 6)
    for batch, films, sounds, pictures in [(first, 4, 2, 6), (second, 6, 6, 0)]:
        net_input = batch["net_input"]
        kinds = Counter(net_input["patch_types"].tolist())
        assert kinds == +Counter({0: pictures, 1: films, 2: sounds})
        assert net_input["patch_videos"].shape == (films, 3, 2, SIZE, SIZE)
        assert net_input["patch_audios"].shape == (sounds, 600)
        assert net_input["patch_images"].shape == (films + sounds + pictures, 3, SIZE, SIZE)
        shown = net_input["patch_images"].flatten(1).any(1)
        assert shown.tolist() == (net_input["patch_types"] == 0).tolist() and net_input["patch_masks"].all()
        assert batch["nsentences"] == len(batch["id"]) == len(batch["conf"]) == len(batch["target"])
        assert batch["ntokens"] == int((batch["target"] != PAD).sum()) and batch["conf"].dtype == torch.float32


def test_only_training_asks_about_captions(folder: Path) -> None:
    for training, each in ((True, 2), (False, 1)):
        dataset = made(folder, "kinds", training=training)
        (step,) = steps(dataset, 6)
        assert Counter(step["id"].tolist()) == {f"kinds{k}": 2 if k == 5 else each for k in range(6)}


def test_a_batch_has_the_shapes_of_the_originals() -> None:
    names = ("source", "target", "prev_output_tokens", "patch_type")
    samples = []
    for pair in GOLDEN["train"][:2]:
        medium = {"patch_image": torch.zeros(3, 64, 64), "patch_mask": torch.tensor([True])}
        samples += [{"id": t["id"], **medium, **{name: torch.tensor(t[name]) for name in names}} for t in pair]
    found = collate(samples, PAD)["net_input"]
    assert found.pop("patch_first").tolist() == [0, 0, 2, 2]  # ours: both samples of a row have its picture
    assert {name: [*value.shape, str(value.dtype)] for name, value in found.items()} == GOLDEN_BATCH


# ---- counts, ranks


def test_rows_and_samples_of_every_source_are_counted(folder: Path) -> None:
    dataset = made(folder, qa=(1, 1), audio=(3, 2), video=(2, 2), empty=(1, 1))
    for epoch in (1, 2):
        found = counted(steps(dataset, 2, epoch=epoch))
        rows = {"main": 7, "qa": 7, "audio": 2, "video": 3}
        assert found == {name: {"rows": count, "samples": 2 * count, "bad": 0} for name, count in rows.items()}


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2])
def test_all_ranks_make_the_same_steps(folder: Path, shards: int, size: int) -> None:
    """One source has a single row, one has none, the main rows do not divide."""
    dataset = made(folder, single=(1, 2), empty=(1, 2), web=(2, 1))
    for epoch in (1, 2):
        ranks = [steps(dataset, size, shards, shard, epoch) for shard in range(shards)]
        assert len({tuple(len(step) for step in rank) for rank in ranks}) == 1
        assert len(ranks[0]) == math.ceil(math.ceil(7 / shards) / size)
        seen = Counter(name for rank in ranks for step in rank for part in step for name in part["id"].tolist())
        assert all(seen[f"main{k}"] == 2 for k in range(7)) and seen["single0"] == 2 * 7
        rows = [counted(rank) for rank in ranks]
        assert all(list(count) == ["main", "single", "web"] for count in rows)  # the log is added up by name
        joined = {source.name: dataset.mixture.joined(source, epoch, shards) for source in dataset.mixture.sources}
        totals = {name: sum(count[name]["rows"] for count in rows) for name in rows[0]}
        assert totals == {"main": 7, "single": 7, "web": joined["web"]}


def test_a_rank_without_rows_gets_batches_that_stand_for_none(folder: Path) -> None:
    dataset = made(folder, single=(1, 2))
    usual, short = (steps(dataset, 1, shards=2, shard=shard)[-1] for shard in (0, 1))
    for real, dummy in zip(usual, short, strict=True):
        assert dummy["is_dummy"] and not real["is_dummy"] and dummy.keys() == real.keys()
        assert len(dummy["id"]) == dummy["nsentences"] == dummy["ntokens"] == 0
        assert (dummy["target"] == PAD).all() and len(dummy["target"]) == len(dummy["conf"]) > 0
        assert dummy["net_input"].keys() <= real["net_input"].keys() | {"patch_images"}
    assert counted([short]) == {name: {"rows": 0, "samples": 0, "bad": 0} for name in ("main", "single")}


def test_standing_for_none_leaves_the_row_as_it_is(folder: Path) -> None:
    dataset = made(folder)
    plan(dataset, shards=2, shard=1)
    first, again = (parts_of(dataset.collater([]))[0] for _ in range(2))
    real = collate(dataset.load(Line("main", 0, 1, 1)), PAD)
    assert (real["target"] != PAD).any() and not (again["target"] != PAD).any()
    for batch in (first, again):
        assert torch.equal(batch["net_input"]["src_tokens"], real["net_input"]["src_tokens"])


def test_epochs_read_the_main_files_in_turn(folder: Path) -> None:
    dataset = made(folder, "main", "qa")
    names = [{name for step in steps(dataset, 4, epoch=epoch) for name in step["id"].tolist()} for epoch in (1, 2, 3)]
    assert names == [{f"main{k}" for k in range(7)}, {f"qa{k}" for k in range(3)}, names[0]]
    lengths = []
    for epoch in (1, 2, 3):
        plan(dataset, epoch=epoch)
        lengths.append(len(dataset))
    assert lengths == [ROWS["main"], ROWS["qa"], ROWS["main"]]


# ---- bad rows


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """The same folder; the first picture, a type, a film and the only row of ``single`` cannot be used."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    main = [row("caption", f"main{k}", k) for k in range(4)]
    main[0][1], main[2][7] = "no picture", "detection"
    write(tmp_path / "main.tsv", main)
    write(tmp_path / "video.tsv", [row("video_caption", "v0", medium="gone.mp4"), row("video_qa", "v1")])
    write(tmp_path / "single.tsv", [row("video_qa", "s", refs="red")])
    write(tmp_path / "lost.tsv", [row("caption", "x", caption=""), row("qa", "y", question="")])
    return tmp_path


def test_bad_rows_are_left_out_counted_and_named(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = made(damaged, skip=True, video=(1, 2), single=(2, 1))
    with caplog.at_level(logging.WARNING):
        taken = steps(dataset, 4)
    assert counted(taken) == {
        "main": {"rows": 4, "samples": 4, "bad": 2},
        "video": {"rows": 4, "samples": 4, "bad": 2},
        "single": {"rows": 2, "samples": 0, "bad": 2},
    }
    assert taken[0][0]["bad_rows"] == 6 and set(taken[0][0]["id"].tolist()) == {"main1", "main3"}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 6 and all(message.startswith("row left out: ") for message in messages)
    for place in ("main.tsv:row 1, column 1", "main.tsv:row 3, column 7", "video.tsv:row 1, column 1"):
        assert any(f"{damaged}/{place}" in message for message in messages), place


def test_a_batch_of_bad_rows_stands_for_none(damaged: Path) -> None:
    dataset = made(damaged, skip=True, single=(1, 2))
    taken = {tuple(step[0]["id"].tolist()): step for step in steps(dataset, 1)}
    assert all(len(step) == 2 and step[1]["is_dummy"] and step[1]["ntokens"] == 0 for step in taken.values())
    assert taken[("main1", "main1")][0]["is_dummy"] is False and taken[()][0]["is_dummy"]
    assert taken[()][0]["bad_rows"] == 2  # that of the main file and that of the other


def test_a_bad_row_stops_with_its_place(damaged: Path) -> None:
    for dataset, place in [
        (made(damaged), "main.tsv:row (1, column 1|3, column 7): "),
        (made(damaged, "kinds", single=(2, 2)), "single.tsv:row 1, column 4: 'red' is no answer"),
    ]:
        with pytest.raises(DataError, match=f"^{damaged}/{place}") as caught:
            steps(dataset)
        assert "\n" not in str(caught.value)


def test_a_file_of_bad_rows_cannot_stand_for_none(damaged: Path) -> None:
    with pytest.raises(DataError, match=r"lost.tsv: none of its 2 rows can be used; see the messages above"):
        steps(made(damaged, "lost", skip=True), 2)


# ---- what is drawn


def drawn(dataset: PretrainingDataset, *args: int, back: bool = False, **how: int) -> dict[Line, list[Sample]]:
    """Samples of all lines of a rank's epoch, read in order or backwards."""
    positions = [k for batch in plan(dataset, *args, **how) for k in batch]
    rows = [dataset[k] for k in (reversed(positions) if back else positions)]
    return {line: good(samples) for row in rows for line, samples in row.read}


def good(samples: list[Sample] | BadRow) -> list[Sample]:
    assert not isinstance(samples, BadRow), samples
    return samples


def same(first: list[Sample], second: list[Sample]) -> bool:
    return len(first) == len(second) and all(
        a.keys() == b.keys()
        and all(torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a)
        for a, b in zip(first, second, strict=True)
    )


@pytest.fixture(scope="module")
def everything(folder: Path) -> PretrainingDataset:
    return made(folder, draws=True, ground=(1, 1), audio=(3, 1), video=(1, 2))


def test_batches_order_and_processes_do_not_change_what_is_drawn(everything: PretrainingDataset) -> None:
    expected = drawn(everything)
    others = [drawn(everything, 3), drawn(everything, back=True), drawn(pickle.loads(pickle.dumps(everything)))]
    for found in others:
        assert found.keys() == expected.keys() and all(same(found[line], expected[line]) for line in expected)


def test_a_copy_is_in_the_same_epoch(everything: PretrainingDataset) -> None:
    """A worker gets the data set once an epoch is planned."""
    plan(everything, epoch=2)
    copy = pickle.loads(pickle.dumps(everything))
    assert [line for line, _ in copy[3].read] == [line for line, _ in everything[3].read]
    pairs = zip(copy[3].read, everything[3].read, strict=True)
    assert all(same(good(first), good(second)) for (_, first), (_, second) in pairs)


@pytest.mark.parametrize("shards", [2, 3])
def test_ranks_do_not_change_what_is_drawn(everything: PretrainingDataset, shards: int) -> None:
    expected = drawn(everything)
    found: dict[Line, list[Sample]] = {}
    for shard in range(shards):
        found |= drawn(everything, shards=shards, shard=shard)
    common = found.keys() & expected.keys()
    assert {line.source for line in common} == {"main", "ground", "audio", "video"} and len(common) >= 21
    assert all(same(found[line], expected[line]) for line in common)


@pytest.mark.parametrize("epoch, seed", [(2, 3), (1, 4)])
def test_other_epochs_and_seeds_draw_anew(everything: PretrainingDataset, epoch: int, seed: int) -> None:
    def by_row(found: dict[Line, list[Sample]]) -> dict[tuple[str, int], list[Sample]]:
        return {(line.source, line.row): samples for line, samples in found.items()}

    before, after = by_row(drawn(everything)), by_row(drawn(everything, epoch=epoch, seed=seed))
    assert before.keys() == after.keys()
    changed = [key for key in before if not torch.equal(*(x[key][0]["patch_image"] for x in (before, after)))]
    assert {("main", k) for k in range(7)} <= set(changed)  # other sizes, crops and operations
    assert {source for source, _ in changed} == {"main", "ground"}
    asked = [key for key in before if not before[key][1]["source"].equal(after[key][1]["source"])]
    assert {"main", "video"} <= {source for source, _ in asked}  # other wrong captions and answers
    frames = [key for key in before if key[0] == "video"]
    assert any(not before[key][0]["patch_video"].equal(after[key][0]["patch_video"]) for key in frames)
