"""Expressions and entailment from what RefCOCO, RefCOCO+, RefCOCOg and SNLI-VE publish."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from build import main
from raw_pictures import cells_of, coco_picture, refcoco, snli_ve

from unival_cli.main import main as unival


def build(name: str, raw: Path, *flags: str) -> int:
    return main([name, "--raw", str(raw), "--output", str(raw.parent / "out"), *flags])


def valid(path: Path, task: str) -> bool:
    return unival(["data", "validate", str(path), "--task", task]) == 0


REFS = [
    ("train", 9, [1.5, 2.25, 10.1, 20.2], ["The left\tcat", "cat on the left"]),
    ("val", 9, [0, 0, 64, 48], ["everything"]),
    ("testA", 30, [3.0, 4.0, 5.0, 6.0], ["man"]),
    ("testB", 30, [3.0, 4.0, 5.0, 6.0], ["red chair"]),
]


@pytest.mark.parametrize(("name", "folder"), [("refcoco", "refcoco"), ("refcocoplus", "refcoco+")])
def test_every_expression_is_a_row_with_the_corners_of_its_box(tmp_path, name, folder):
    raw = tmp_path / "raw"
    refcoco(raw, folder, "unc", REFS)
    assert build(name, raw) == 0
    out = tmp_path / "out"
    assert [cells[:4] for cells in cells_of(out / f"{name}_train.tsv")] == [
        ["1000", "9", "the left cat", "1.5,2.25,11.6,22.45"],
        ["1001", "9", "cat on the left", "1.5,2.25,11.6,22.45"],
    ]
    assert [cells_of(out / f"{name}_{part}.tsv")[0][2:4] for part in ("val", "testA", "testB")] == [
        ["everything", "0,0,64,48"],
        ["man", "3,4,8,10"],
        ["red chair", "3,4,8,10"],
    ]
    assert all(valid(path, "refcoco") for path in out.glob("*.tsv"))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_of_any_age_are_read(tmp_path, protocol):
    raw = tmp_path / "raw"
    refcoco(raw, "refcocog", "umd", [(part, 9, [1, 2, 3, 4], [part]) for part in ("train", "val", "test")], protocol)
    assert build("refcocog", raw) == 0
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        "refcocog_test.tsv",
        "refcocog_train.tsv",
        "refcocog_val.tsv",
    ]


# [{'split': 'train', 'image_id': 9, 'ann_id': 5000, 'sentences': [{'sent': 'the café', 'sent_id': 7L}]}] by Python 2
PYTHON_2 = b"""(lp0
(dp1
S'split'
p2
S'train'
p3
sS'image_id'
p4
I9
sS'ann_id'
p5
I5000
sS'sentences'
p6
(lp7
(dp8
S'sent'
p9
S'the caf\\xc3\\xa9'
p10
sS'sent_id'
p11
L7L
sasa."""


def test_byte_strings_and_long_numbers_of_python_2_are_read(tmp_path):
    raw = tmp_path / "raw"
    refcoco(raw, "refcoco", "unc", REFS)
    (raw / "refcoco" / "refs(unc).p").write_bytes(PYTHON_2)
    assert build("refcoco", raw, "--splits", "refcoco_train") == 0
    assert cells_of(tmp_path / "out" / "refcoco_train.tsv")[0][:3] == ["7", "9", "the café"]


def test_both_partitions_of_refcocog_can_be_built(tmp_path):
    raw = tmp_path / "raw"
    refcoco(raw, "refcocog", "google", REFS[:2])
    assert build("refcocog-google", raw) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "refcocog_google_train.tsv",
        "refcocog_google_val.tsv",
    }


def test_expressions_without_a_box_or_a_word_are_counted(tmp_path, capsys):
    raw = tmp_path / "raw"
    refs = [("train", 9, [1, 2, 0, 4], ["flat", "line"]), ("train", 9, [1, 2, 3, 4], ["  ", "good"])]
    refcoco(raw, "refcoco", "unc", refs)
    assert build("refcoco", raw, "--splits", "refcoco_train") == 0
    shown = capsys.readouterr().out
    assert "1 rows, 1 pictures" in shown and "left out: 2 expressions whose box has no area" in shown
    assert "left out: 1 expressions without a word" in shown and "note: 1 of 120624 expected rows" in shown


class Harmful:
    """Would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_hostile_pickles_are_refused_and_nothing_is_run(tmp_path, capsys, protocol):
    raw, trace = tmp_path / "raw", tmp_path / "trace"
    refcoco(raw, "refcoco", "unc", REFS)
    (raw / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([{"split": Harmful(trace)}], protocol))
    assert build("refcoco", raw) == 2
    error = capsys.readouterr().err
    assert "refs(unc).p: the pickle asks for " in error and error.count("\n") == 1
    assert not trace.exists() and not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"no pickle", "not a readable pickle"),
        (pickle.dumps({}), "holds no list"),
        (pickle.dumps([3]), "reference 1 is no object"),
        (pickle.dumps([{"split": "train", "image_id": 77, "ann_id": 5000}]), "its picture or box is not in"),
        (pickle.dumps([{"split": "train", "image_id": 9, "ann_id": 5}]), "its picture or box is not in"),
    ],
)
def test_damaged_references_are_named(tmp_path, capsys, content, complaint):
    raw = tmp_path / "raw"
    refcoco(raw, "refcoco", "unc", REFS)
    (raw / "refcoco" / "refs(unc).p").write_bytes(content)
    assert build("refcoco", raw, "--splits", "refcoco_train") == 2
    error = capsys.readouterr().err
    assert "refs(unc).p" in error and complaint in error and error.count("\n") == 1


def test_a_damaged_box_is_named(tmp_path, capsys):
    raw = tmp_path / "raw"
    refcoco(raw, "refcoco", "unc", [("train", 9, [1, 2, 3], ["cat"])])
    assert build("refcoco", raw, "--splits", "refcoco_train") == 2
    assert "annotation 1: its box is not four numbers" in capsys.readouterr().err


# ---- SNLI-VE

ROWS = [
    ("3416050480", "Two men\tare outside.", "A man is outside.", "entailment"),
    ("3416050480", "Two men are outside.", "They sleep.", "contradiction"),
    ("1000092795", "Two friends.", "They are  brothers.", "neutral"),
    ("1000092795", "Two friends.", "Nobody agrees.", "-"),
]


@pytest.mark.parametrize("key", ["Flickr30K_ID", "Flikr30kID"])
def test_sentences_have_picture_caption_and_label(tmp_path, capsys, key):
    raw = tmp_path / "raw"
    for part in ("train", "dev", "test"):
        snli_ve(raw, part, ROWS, key)
    assert build("snli-ve", raw) == 0
    out = tmp_path / "out"
    rows = [cells[:2] + cells[3:] for cells in cells_of(out / "snli_ve_dev.tsv")]
    assert rows == [
        ["3416050480.jpg#2r0", "3416050480", "A man is outside.", "Two men are outside.", "entailment"],
        ["3416050480.jpg#2r1", "3416050480", "They sleep.", "Two men are outside.", "contradiction"],
        ["1000092795.jpg#2r2", "1000092795", "They are brothers.", "Two friends.", "neutral"],
    ]
    assert capsys.readouterr().out.count("left out: 1 sentences without an agreed label") == 3
    assert all(valid(path, "snli_ve") for path in out.glob("*.tsv"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"gold_label": "maybe"}, "the label 'maybe' is none of contradiction, entailment, neutral"),
        ({"Flickr30K_ID": None}, "has no text 'Flickr30K_ID'"),
        ({"sentence2": 4}, "has no text 'sentence2'"),
    ],
)
def test_lines_of_another_format_are_named(tmp_path, capsys, change, complaint):
    raw = tmp_path / "raw"
    snli_ve(raw, "dev", ROWS)
    file = raw / "snli_ve_dev.jsonl"
    lines = file.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    file.write_text("\n".join(lines))
    assert build("snli-ve", raw, "--splits", "snli_ve_dev") == 2
    assert f"{file}:2" in (error := capsys.readouterr().err) and complaint in error


def test_lines_that_are_no_json_or_name_no_picture_are_named(tmp_path, capsys):
    raw = tmp_path / "raw"
    raw.mkdir()
    for line, complaint in (
        ("{", "is not valid JSON"),
        ("3", "holds no object"),
        ('{"gold_label": "neutral"}', "names"),
    ):
        (raw / "snli_ve_dev.jsonl").write_text(f"\n{line}\n")
        assert build("snli-ve", raw, "--splits", "snli_ve_dev") == 2
        assert f"snli_ve_dev.jsonl:2 {complaint}" in capsys.readouterr().err


def test_a_missing_picture_is_named_with_its_line(tmp_path, capsys):
    raw = tmp_path / "raw"
    snli_ve(raw, "dev", ROWS)
    (raw / "flickr30k-images" / "1000092795.jpg").unlink()
    assert build("snli-ve", raw, "--splits", "snli_ve_dev") == 2
    error = capsys.readouterr().err
    assert "1 of 2 pictures are missing" in error and "snli_ve_dev.jsonl:3" in error


def test_pictures_of_the_other_data_sets_do_not_matter(tmp_path):
    raw = tmp_path / "raw"
    refcoco(raw, "refcoco", "unc", REFS)
    coco_picture(raw, "val2014", 3)
    assert build("refcoco", raw, "--splits", "refcoco_val", "--paths") == 0
    assert cells_of(tmp_path / "out" / "refcoco_val.tsv")[0][4] == "train2014/COCO_train2014_000000000009.jpg"
