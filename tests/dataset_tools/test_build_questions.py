"""Questions about pictures from what VQA, Visual Genome, OK-VQA and VizWiz publish."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from build import main
from public import questions, vqa
from raw_pictures import cells_of, coco_annotations, coco_questions, people, visual_genome, vizwiz

from unival_cli.main import main as unival

YES = people("yes")


def build(name: str, raw: Path, *flags: str) -> Path:
    out = raw.parent / "out"
    assert main([name, "--raw", str(raw), "--output", str(out), *flags]) == 0
    return out


def valid(path: Path, *flags: str) -> bool:
    return unival(["data", "validate", str(path), "--task", "vqa_gen", *flags]) == 0


def rows_of(path: Path) -> list[list[str]]:
    """The cells before the picture."""
    return [cells[:5] for cells in cells_of(path)]


# ---- answers and confidences


@pytest.mark.parametrize(("count", "wanted"), [(1, "0.3"), (2, "0.6"), (3, "0.9"), (4, "1.0"), (10, "1.0")])
def test_confidences_are_three_tenths_a_person_and_at_most_one(count, wanted):
    assert questions.confidence(count) == wanted


def test_the_most_frequent_answer_stands_first_and_ties_keep_their_order():
    cell = questions.answers_cell(Counter({"red": 1, "blue": 4, "green": 1}))
    assert cell == "1.0|!+blue&&0.3|!+red&&0.3|!+green"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Cat.", "cat"),
        ("two", "2"),
        ("dont", "don't"),
        ("salt && pepper", "salt & pepper"),
        ("a", ""),
        ("x\ty", "x y"),
    ],
)
def test_answers_are_written_as_the_evaluation_compares_them(text, wanted):
    assert questions.answer_of(text) == wanted


# ---- VQA v2


@pytest.fixture
def vqa_raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten pictures of train2014 and five of val2014 with a question each, two of test2015, three of Visual Genome."""
    monkeypatch.setattr(vqa, "VALIDATION_PICTURES", 2)
    raw = tmp_path / "raw"
    train = {image * 1000: people("yes", "no", "no", "YES", "a sofa") for image in range(1, 10)}
    val = {image * 1000 + 1: people("no", "no", "no", "no", "yes") for image in range(21, 26)}
    train[10_000] = people("xylophone")
    coco_questions(raw, "v2_", "train2014", [(n, n // 1000, f"Is it\t{n}?") for n in train])
    coco_questions(raw, "v2_", "val2014", [(n, n // 1000, "Is it so?") for n in val])
    coco_annotations(raw, "v2_", "train2014", dict(reversed(train.items())))
    coco_annotations(raw, "v2_", "val2014", val | {25_001: people("The.", "")})
    test = [(31_000, 31, "Who?"), (32_000, 32, "Why?")]
    coco_questions(raw, "v2_", "test2015", test)
    coco_questions(raw, "v2_", "test-dev2015", test[:1], pictures="test2015")
    visual_genome(
        raw,
        [
            (1, None, "VG_100K_2", [("What?", "A sofa."), ("Is it so?", "Yes."), ("And?", "Tuesday evening.")]),
            (2, 3, "VG_100K", [("Of train?", "Yes.")]),
            (3, 21, "VG_100K", [("Of val?", "Yes.")]),
            (4, 31, "VG_100K", [("Of test?", "No.")]),
        ],
    )
    return raw


def test_the_answer_set_is_the_consensus_of_at_least_nine_questions(vqa_raw):
    # sofa is the consensus of nine questions, yes of four, xylophone of one
    assert vqa.vqa2_answer_set(vqa_raw) == ["sofa"]
    document = json.loads((build("vqa2", vqa_raw) / "trainval_ans2label.json").read_text())
    assert document == {"sofa": 0}


@pytest.fixture
def smaller_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of four questions are enough."""
    monkeypatch.setattr(vqa, "VQA_MINIMUM", 4)


def test_training_rows_are_the_answers_of_the_set(vqa_raw, smaller_set, capsys):
    out = build("vqa2", vqa_raw, "--splits", "vqa_train")
    rows = rows_of(out / "vqa_train.tsv")
    assert [cells for cells in rows if cells[1] == "1"] == [
        ["1000", "1", "Is it 1000?", "1.0|!+sofa", ""],
        ["1000", "1", "Is it 1000?", "0.6|!+yes", ""],
    ]
    assert not [cells for cells in rows if cells[1] == "10"]
    assert "questions without an answer of the set" in capsys.readouterr().out
    file = vqa_raw / "train2014" / "COCO_train2014_000000000001.jpg"
    assert base64.b64decode(cells_of(out / "vqa_train.tsv")[0][5]) == file.read_bytes()


def test_pictures_that_validate_are_not_trained_on_and_the_others_of_val2014_are(vqa_raw, smaller_set):
    out = build("vqa2", vqa_raw, "--splits", "vqa_train_vqa2,vqa_val")
    trained = {cells[1] for cells in rows_of(out / "vqa_train_vqa2.tsv")}
    kept = {cells[1] for cells in rows_of(out / "vqa_val.tsv")}
    assert not trained & kept
    assert kept | (trained & {str(image) for image in range(21, 25)}) == {"21", "22", "23", "24"}


def test_visual_genome_trains_but_for_pictures_of_validation_and_test(vqa_raw, smaller_set, capsys):
    out = build("vqa2", vqa_raw, "--splits", "vqa_train")
    rows = [cells for cells in rows_of(out / "vqa_train.tsv") if cells[0].startswith("vg")]
    assert rows == [
        ["vg986769", "vg1", "What?", "1.0|!+sofa", ""],
        ["vg986770", "vg1", "Is it so?", "1.0|!+yes", ""],
        ["vg986772", "vg2", "Of train?", "1.0|!+yes", ""],
    ]
    shown = capsys.readouterr().out
    assert "left out: 2 questions of Visual Genome about pictures of COCO's validation or test" in shown
    pictures = [cells[5] for cells in cells_of(out / "vqa_train.tsv") if cells[0].startswith("vg")]
    assert base64.b64decode(pictures[0]) == (vqa_raw / "visual_genome" / "VG_100K_2" / "1.jpg").read_bytes()


def test_validation_rows_keep_all_answers(vqa_raw, capsys):
    out = build("vqa2", vqa_raw, "--splits", "vqa_fullval")
    rows = rows_of(out / "vqa_fullval.tsv")
    assert rows[0] == ["21001", "21", "Is it so?", "1.0|!+yes&&1.0|!+no", ""] and len(rows) == 4
    shown = capsys.readouterr().out
    assert "left out: 1 questions without an answer" in shown and "note: 4 of 214354 expected rows" in shown


def test_test_rows_have_a_placeholder_for_the_answer(vqa_raw):
    out = build("vqa2", vqa_raw, "--splits", "vqa_test,vqa_testdev")
    assert rows_of(out / "vqa_test.tsv") == [
        ["31000", "31", "Who?", "1.0|!+no", ""],
        ["32000", "32", "Why?", "1.0|!+no", ""],
    ]
    assert [cells[0] for cells in cells_of(out / "vqa_testdev.tsv")] == ["31000"]


def test_every_table_of_vqa_is_valid_and_training_answers_are_in_the_set(vqa_raw, smaller_set):
    out = build("vqa2", vqa_raw)
    tables = sorted(path.name for path in out.glob("*.tsv"))
    assert tables == ["vqa_fullval.tsv", "vqa_test.tsv", "vqa_train.tsv", "vqa_val.tsv"]
    assert all(valid(out / name) for name in tables)
    assert valid(out / "vqa_train.tsv", "--answers", str(out / "trainval_ans2label.json"))


def test_validation_pictures_are_always_the_same_ones(vqa_raw):
    assert vqa.validation_pictures(vqa_raw) == vqa.validation_pictures(vqa_raw)
    assert len(vqa.validation_pictures(vqa_raw)) == 2


def test_an_answer_of_another_format_is_named(vqa_raw, capsys):
    coco_annotations(vqa_raw, "v2_", "val2014", {21_001: [{"answer": 3, "answer_confidence": "yes"}] * 10})
    flags = ["--raw", str(vqa_raw), "--output", str(vqa_raw.parent / "out"), "--splits", "vqa_fullval"]
    assert main(["vqa2", *flags]) == 2
    error = capsys.readouterr().err
    assert "annotation 1: an answer has no text 'answer'" in error and error.count("\n") == 1


# ---- OK-VQA


def test_okvqa_has_validation_training_and_a_set_of_answers(tmp_path):
    raw = tmp_path / "raw"
    given: list[dict[str, Any]] = [dict(entry, raw_answer="racing") for entry in people("race", "race", "bike")]
    coco_questions(raw, "", "train2014", [(10_005, 10, "What sport is it?")])
    coco_annotations(raw, "", "train2014", {10_005: given})
    coco_questions(raw, "", "val2014", [(20_005, 20, "What animal?"), (20_015, 20, "Where?")])
    coco_annotations(raw, "", "val2014", {20_005: people("pony tail"), 20_015: people("race")})
    out = build("okvqa", raw)
    assert json.loads((out / "okvqa_trainval_ans2label.json").read_text()) == {"race": 0, "pony tail": 1}
    assert rows_of(out / "okvqa_train.tsv") == [["10005", "10", "What sport is it?", "0.6|!+race", ""]]
    assert rows_of(out / "okvqa_acc_val.tsv") == [
        ["20005", "20", "What animal?", "1.0|!+pony tail", ""],
        ["20015", "20", "Where?", "1.0|!+race", ""],
    ]
    assert all(valid(path) for path in out.glob("*.tsv"))


# ---- VizWiz


def test_vizwiz_rows_have_the_numbers_of_their_pictures_as_ids(tmp_path):
    raw = tmp_path / "raw"
    vizwiz(
        raw, "train", [(0, "What is\nthis?", people("soda", "soda", "coke")), (1, "Read it.", people("unanswerable"))]
    )
    vizwiz(raw, "val", [(7, "What colour?", people("grey", "gray"))])
    vizwiz(raw, "test", [(20_000, "What is it?", None)])
    out = build("vizwiz", raw)
    assert rows_of(out / "vizwiz_acc_val.tsv") == [
        ["7", "VizWiz_val_00000007.jpg", "What colour?", "1.0|!+gray&&0.3|!+grey", ""]
    ]
    assert [cells[:4] for cells in rows_of(out / "vizwiz_train.tsv")] == [
        ["1", "VizWiz_train_00000001.jpg", "Read it.", "1.0|!+unanswerable"]
    ]
    assert list(json.loads((out / "vizwiz_trainval_ans2label.json").read_text())) == ["unanswerable", "gray"]
    build("vizwiz", raw, "--splits", "vizwiz_acc_test")
    assert rows_of(out / "vizwiz_acc_test.tsv")[0][:4] == [
        "20000",
        "VizWiz_test_00020000.jpg",
        "What is it?",
        "1.0|!+no",
    ]
    assert all(valid(path) for path in out.glob("*.tsv"))


def test_a_picture_without_a_number_is_named(tmp_path, capsys):
    raw = tmp_path / "raw"
    vizwiz(raw, "val", [(7, "What?", people("grey"))])
    file = raw / "Annotations" / "val.json"
    file.write_text(file.read_text().replace("VizWiz_val_00000007", "picture"))
    flags = ["--raw", str(raw), "--output", str(tmp_path / "out"), "--splits", "vizwiz_acc_val"]
    assert main(["vizwiz", *flags]) == 2
    assert "'picture.jpg' has no number at the end" in capsys.readouterr().err
