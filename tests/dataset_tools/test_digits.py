"""The quickstart data: same bytes for the same seed, no digit scan in two splits, captions that fit the boxes."""

from __future__ import annotations

import base64
import io
import json
import re

import digits
import numpy as np
import pytest
import sentencepiece
from digits_scenes import (
    LAYOUTS,
    NAMES,
    SPLITS,
    Box,
    SceneMaker,
    article,
    describe,
    layout_of,
    load_source,
    relation,
)
from digits_vocabulary import PROMPTS, WORDS
from PIL import Image

SMALL = digits.BuildPlan(train_rows=40, val_rows=5, test_rows=6, epoch_files=2, pictures=3)


@pytest.fixture(scope="module")
def source():
    return load_source(seed=7)


@pytest.fixture(scope="module")
def scenes(source):
    maker = SceneMaker(source, seed=7)
    return [maker.make(split, stream, row) for stream, split in enumerate(SPLITS, 1) for row in range(120)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "data"
    digits.build(folder, SMALL)
    return folder


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_same_seed_gives_the_same_bytes(built, tmp_path):
    digits.build(tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(built)


def test_another_seed_gives_other_rows(built, tmp_path):
    digits.build(tmp_path / "other", digits.BuildPlan(train_rows=40, val_rows=5, test_rows=6, epoch_files=2, seed=8))
    assert contents(tmp_path / "other")["train_1.tsv"] != contents(built)["train_1.tsv"]


def test_a_scene_depends_on_its_row_number_only(source):
    maker = SceneMaker(source, seed=7)
    late = maker.make("train", 1, 9)
    maker.make("train", 1, 3)
    assert maker.make("train", 1, 9) == late


def test_no_source_scan_is_in_two_splits(source):
    pools = {split: set(np.concatenate(source.pools[split]).tolist()) for split in SPLITS}
    assert not pools["train"] & pools["val"] and not pools["train"] & pools["test"] and not pools["val"] & pools["test"]
    assert sorted(set.union(*pools.values())) == list(range(1797))


def test_every_split_has_all_classes(source):
    for split in SPLITS:
        for label, pool in enumerate(source.pools[split]):
            assert len(pool) >= 15 and set(source.labels[pool].tolist()) == {label}


def test_scenes_use_scans_of_their_split_with_the_right_label(source, scenes):
    for scene in scenes:
        for digit in scene.digits:
            assert digit.source in source.pools[scene.split][digit.label]


def test_every_layout_is_drawn(scenes):
    assert {scene.layout for scene in scenes} == set(LAYOUTS)


def test_the_caption_follows_from_labels_and_boxes(scenes):
    for scene in scenes:
        # Forget the order of the caption: the boxes alone must bring it back.
        shuffled = scene.digits[::-1]
        found = layout_of([digit.box for digit in shuffled], scene.canvas)
        assert found is not None
        layout, order = found
        assert describe(layout, [shuffled[i].label for i in order]) == scene.caption


def test_boxes_lie_in_the_canvas_and_do_not_overlap(scenes):
    for scene in scenes:
        boxes = [digit.box for digit in scene.digits]
        for box in boxes:
            assert 0 <= box[0] < box[2] <= scene.canvas and 0 <= box[1] < box[3] <= scene.canvas
        assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_the_ink_is_inside_the_boxes(source):
    """Around the boxes there is only background and noise; in them there is contrast."""
    maker = SceneMaker(source, seed=3, file_format="png")
    for row in range(30):
        scene = maker.make("train", 1, row)
        with Image.open(io.BytesIO(scene.picture)) as picture:
            grey = np.asarray(picture.convert("L"), dtype=np.float32)
        outside = np.ones_like(grey, dtype=bool)
        for digit in scene.digits:
            x0, y0, x1, y1 = digit.box
            outside[max(0, y0 - 3) : y1 + 3, max(0, x0 - 3) : x1 + 3] = False
            assert np.ptp(grey[y0:y1, x0:x1]) > 40
        assert grey[outside].std() < 15


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 10, 10), (30, 5, 40, 15), "left"),
        ((0, 0, 10, 10), (5, 30, 15, 40), "above"),
        ((30, 5, 40, 15), (0, 0, 10, 10), None),
        ((0, 0, 10, 10), (20, 22, 30, 32), None),
    ],
)
def test_the_larger_distance_decides_and_near_ties_are_nothing(first, second, expected):
    assert relation(first, second, margin=6) == expected


def test_captions_read_well():
    assert article(8) == "an eight"
    assert describe("row", [3, 7]) == "a three left of a seven"
    assert describe("one_above_two", [2, 5, 9]) == "a two above a five and a nine"
    assert describe("two_above_one", [2, 5, 9]) == "a two and a five above a nine"
    assert describe("column3", [1, 8, 1]) == "a one above an eight above a one"


def test_max_digits_limits_the_scenes(source):
    maker = SceneMaker(source, seed=1, max_digits=1)
    assert {len(maker.make("train", 1, row).digits) for row in range(30)} == {1}


def test_rows_parse_as_caption_rows(built):
    from unival_plugin.data.image import read_cell_image
    from unival_plugin.data.tsv import TsvTable

    table = TsvTable(built / "test.tsv", "0,4,2")
    assert len(table) == 6
    for i in range(len(table)):
        number, image, caption = table.row(i)
        assert number.isdecimal() and re.fullmatch(r"an? [a-z ]+", caption)
        assert read_cell_image(image, table.where(i, 1), None, False).size == (64, 64)


def test_ids_are_unique_over_all_files(built):
    ids = [line.split("\t")[0] for path in built.glob("*.tsv") for line in path.read_text().splitlines()]
    assert len(ids) == len(set(ids)) == 40 + 40 + 5 + 6


def test_epoch_files_hold_different_pictures(built):
    first, second = ({line.split("\t")[4] for line in (built / f"train_{k}.tsv").open()} for k in (1, 2))
    assert not first & second


def test_saved_pictures_are_those_of_the_test_rows(built):
    rows = [line.split("\t") for line in (built / "test.tsv").read_text().splitlines()]
    assert sorted(p.name for p in (built / "pictures").iterdir()) == [f"{cells[1]}.png" for cells in rows[:3]]
    with (
        Image.open(io.BytesIO(base64.b64decode(rows[0][4]))) as in_row,
        Image.open(built / "pictures" / f"{rows[0][1]}.png") as saved,
    ):
        assert saved.format == "PNG" and np.array_equal(np.asarray(in_row), np.asarray(saved))


def test_every_word_is_one_piece_of_the_vocabulary(built):
    model = sentencepiece.SentencePieceProcessor(model_file=str(built / "digits.model"))
    assert [word for word in (*WORDS, *NAMES) if len(model.encode(word)) != 1] == []
    for text in (*PROMPTS, describe("row3", [8, 1, 3])):
        assert model.unk_id() not in model.encode(text)
        assert model.decode(model.encode(text)) == text


def test_manifest_tells_seed_and_counts(built):
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["seed"] == 7
    assert manifest["rows"] == {"train_1.tsv": 40, "train_2.tsv": 40, "val.tsv": 5, "test.tsv": 6}
    assert manifest["source_digits"] == {"train": 1347, "val": 150, "test": 300}


def test_an_existing_folder_is_refused(built, capsys):
    before = contents(built)
    assert digits.main(["--output", str(built), "--train-rows", "2"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert contents(built) == before


def test_overwrite_replaces_an_earlier_build_only(tmp_path):
    flags = ["--train-rows", "2", "--val-rows", "1", "--test-rows", "1", "--overwrite"]
    foreign, earlier = tmp_path / "foreign", tmp_path / "earlier"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("do not delete")
    assert digits.main(["--output", str(foreign), *flags]) == 2
    assert (foreign / "thesis.txt").exists()
    assert digits.main(["--output", str(earlier), *flags, "--seed", "1"]) == 0
    assert digits.main(["--output", str(earlier), *flags, "--seed", "2"]) == 0
    assert json.loads((earlier / "manifest.json").read_text())["seed"] == 2


def test_a_failed_build_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*texts):
        raise OSError("disk full")

    monkeypatch.setattr(digits, "train_sentencepiece", fail)
    with pytest.raises(OSError, match="disk full"):
        digits.build(tmp_path / "data", SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags", [["--tasks", "chess"], ["--epoch-files", "0"], ["--canvas", "20"], ["--val-rows", "0"]]
)
def test_wrong_flags_are_refused(tmp_path, flags):
    with pytest.raises(SystemExit):
        digits.main(["--output", str(tmp_path / "data"), *flags])


def test_easy_files_have_one_digit_a_picture(tmp_path):
    digits.build(
        tmp_path / "easy", digits.BuildPlan(train_rows=30, val_rows=5, test_rows=6, epoch_files=2, easy_files=1)
    )
    words = {
        name: {len(line.split("\t")[2].split()) for line in (tmp_path / "easy" / name).read_text().splitlines()}
        for name in ("train_1.tsv", "train_2.tsv")
    }
    assert words["train_1.tsv"] == {2}
    assert max(words["train_2.tsv"]) > 2
