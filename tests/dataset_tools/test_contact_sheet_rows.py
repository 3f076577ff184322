"""Contact sheets of questions, boxes and statements: what is shown, what counts as right."""

from __future__ import annotations

import base64
import io
import json

import contact_sheet
import numpy as np
import pytest
from PIL import Image

from unival_cli.sheet_rows import (
    PREDICTED_BOX,
    RIGHT_BOX,
    TASKS,
    items_from_table,
    overlap,
    read_predictions,
    with_boxes,
)


def cell(size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 200, 200)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def table(path, *rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


@pytest.fixture
def questions(tmp_path):
    return table(tmp_path / "vqa.tsv", ["7", "im", "what is it?", "0.3|!+two&&1.0|!+one", "", cell()])


@pytest.fixture
def boxes(tmp_path):
    return table(tmp_path / "boxes.tsv", ["a_1", "im", "the one", "1,2,5,6", cell()])


@pytest.fixture
def statements(tmp_path):
    return table(tmp_path / "snli.tsv", ["a#1", "im", cell(), "it is grey", "a caption", "entailment"])


def texts(path, task, predictions=None):
    columns = [int(column) for column in TASKS[task].selected_cols.split(",")]
    return [item[1:] for item in items_from_table(path, columns, predictions, 9, task)]


def has(picture, colour):
    return bool((np.asarray(picture) == colour).all(axis=2).any())


def test_questions_show_answers_with_confidences(questions):
    assert texts(questions, "vqa_gen") == [("what is it? two 0.3, one 1.0", None)]


def test_the_surest_answer_is_right(questions):
    assert texts(questions, "vqa_gen", [("7", "two")]) == [("what is it? two", "what is it? one")]
    assert texts(questions, "vqa_gen", [("7", "one")]) == [("what is it? one", "what is it? one")]


def test_statements_show_the_label_and_understand_yes_no_maybe(statements):
    assert texts(statements, "snli_ve") == [("it is grey: entailment", None)]
    assert texts(statements, "snli_ve", [("a#1", "no")]) == [("it is grey: contradiction", "it is grey: entailment")]


def test_boxes_are_right_from_half_their_union(boxes):
    assert texts(boxes, "refcoco") == [("the one", None)]
    assert texts(boxes, "refcoco", [("a_1", [1, 2, 5, 5])]) == [("the one", "the one")]
    assert texts(boxes, "refcoco", [("a_1", [4, 2, 8, 6])]) == [("the one", "IoU 0.14")]


def test_both_boxes_are_drawn(boxes):
    ((picture, _, _),) = items_from_table(boxes, [0, 4, 2, 3], [("a_1", [4, 2, 8, 6])], 9, "refcoco")
    assert has(picture, RIGHT_BOX) and has(picture, PREDICTED_BOX)


def test_frames_stand_at_the_edges_of_the_box():
    drawn = np.asarray(with_boxes(Image.new("RGB", (32, 32)), [((8, 4, 24, 28), RIGHT_BOX)]))
    ys, xs = np.nonzero((drawn == RIGHT_BOX).all(axis=2))
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (80, 40, 240, 280)


@pytest.mark.parametrize("box", [(5, 5, 5, 5), (6, 6, 2, 2), (-9, -9, 99, 99)])
def test_odd_predicted_boxes_are_drawn_too(box):
    with_boxes(Image.new("RGB", (8, 8)), [(box, PREDICTED_BOX)])


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [((0, 0, 2, 2), (0, 0, 2, 2), 1.0), ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3), ((0, 0, 1, 1), (2, 2, 3, 3), 0.0)],
)
def test_overlap(a, b, expected):
    assert overlap(a, b) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("task", "record"),
    [
        ("vqa_gen", {"question_id": 7}),
        ("vqa_gen", {"answer": "one"}),
        ("refcoco", {"uniq_id": "a", "box": "1,2,3,4"}),
        ("snli_ve", {"uniq_id": "a", "answer": 3}),
    ],
)
def test_bad_predictions_are_named(tmp_path, task, record):
    path = tmp_path / "p.json"
    path.write_text(json.dumps([record]))
    with pytest.raises(ValueError, match="record 1 needs"):
        read_predictions(path, task)


def test_a_bad_box_is_named_with_its_row(tmp_path, capsys):
    path = table(tmp_path / "bad.tsv", ["a_1", "im", "the one", "1,2,x,6", cell()])
    assert contact_sheet.main(["--tsv", str(path), "--task", "refcoco", "--output", str(tmp_path / "s.png")]) == 2
    assert "bad.tsv:row 1: box 'x' is not a number" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [["--task", "refcoco", "--predictions", "p.json"], ["--tsv", "t", "--task", "snli_ve", "--selected-cols", "0,1"]],
)
def test_wrong_flags_are_refused(tmp_path, flags):
    with pytest.raises(SystemExit):
        contact_sheet.main([*flags, "--output", str(tmp_path / "s.png")])
