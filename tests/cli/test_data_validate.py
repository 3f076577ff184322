"""``unival data validate`` for questions, boxes and statements: every planted defect is named, good rows pass."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import soundfile
from made_films import write_film
from PIL import Image

from unival_cli.main import main


def picture(size=(64, 48)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE = picture()


def question(number, text="what is it?", answers="1.0|!+yes", objects="", image=PICTURE):
    return [str(number), f"im{number}", text, answers, objects, image]


def expression(number, text="the box", box="1.5,2,30,40.25", image=PICTURE):
    return [str(number), f"im{number}", text, box, image]


def statement(number, text="it is red", caption="a box", label="entailment", image=PICTURE):
    return [str(number), f"im{number}", image, text, caption, label]


def validate(tmp_path, capsys, task, rows, *flags):
    """Exit status, and the reasons by "row:column"."""
    path = tmp_path / "rows.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    status = main(["data", "validate", str(path), "--task", task, *flags])
    lines = capsys.readouterr().out.splitlines()
    found = [line.removeprefix(f"{path}:") for line in lines if line.startswith(f"{path}:")]
    faults = dict(line.split(": ", 1) for line in found if not line.startswith(" "))
    return status, faults, "\n".join(lines)


@pytest.mark.parametrize(
    ("task", "make"), [("vqa_gen", question), ("refcoco", expression), ("snli_ve", statement)], ids=lambda v: str(v)[:9]
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_good_rows_pass(tmp_path, capsys, task, make, workers):
    rows = [make(number) for number in range(200)]
    status, faults, text = validate(tmp_path, capsys, task, rows, "--workers", workers)
    assert (status, faults) == (0, {})
    assert "200 rows checked, 0 bad" in text and "picture width" in text


def test_films_and_sounds_are_decoded(tmp_path, capsys):
    write_film(tmp_path / "good.mp4", frames=12)
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    soundfile.write(tmp_path / "good.wav", np.zeros(4800), 48_000)
    films = [[str(k), f"f{k}", "a film", "", name] for k, name in enumerate(["good.mp4", "bad.mp4", "../x.mp4"])]
    status, faults, text = validate(tmp_path, capsys, "video_caption", films, "--image-dir", str(tmp_path))
    assert status == 1 and list(faults) == ["2:4", "3:4"]
    assert "bad.mp4" in faults["2:4"] and "leaves the folder" in faults["3:4"]
    assert "160 to 160, median 160" in text
    sounds = [[str(k), f"s{k}", "a sound", "", name] for k, name in enumerate(["good.wav", "gone.wav"])]
    status, faults, text = validate(tmp_path, capsys, "audio_caption", sounds, "--image-dir", str(tmp_path))
    assert status == 1 and list(faults) == ["2:4"] and "100 to 100, median 100" in text


def test_paths_need_a_folder(tmp_path, capsys):
    (tmp_path / "rows.tsv").write_text("0\tx\ta film\t\ta.mp4\n")
    assert main(["data", "validate", str(tmp_path / "rows.tsv"), "--task", "video_caption"]) == 2
    assert "--image-dir" in capsys.readouterr().err


# -------------------------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("cells", "column", "message"),
    [
        ({"text": ""}, 2, "question is empty"),
        ({"text": "  ?!"}, 2, "has no word"),
        ({"answers": ""}, 3, "answers is empty"),
        ({"answers": "yes"}, 3, "write confidence|!+answer"),
        ({"answers": "1.0|!+"}, 3, "write confidence|!+answer"),
        ({"answers": "1.0|!+yes&&"}, 3, "write confidence|!+answer"),
        ({"answers": "1.5|!+yes"}, 3, "confidence '1.5'"),
        ({"answers": "0|!+yes"}, 3, "above 0"),
        ({"answers": "-0.3|!+yes"}, 3, "above 0"),
        ({"answers": "nan|!+yes"}, 3, "confidence 'nan'"),
        ({"answers": "high|!+yes"}, 3, "confidence 'high'"),
        ({"answers": "1.0|!+yes&&0.3|!+yes"}, 3, "stands twice"),
        ({"image": "no picture"}, 5, "base64"),
    ],
)
def test_defects_of_questions(tmp_path, capsys, cells, column, message):
    status, faults, _ = validate(tmp_path, capsys, "vqa_gen", [question(0), question(1, **cells)])
    assert status == 1 and list(faults) == [f"2:{column}"]
    assert message in faults[f"2:{column}"]


def test_a_question_may_come_again_with_another_answer_only(tmp_path, capsys):
    rows = [question(1), question(1, answers="0.3|!+no"), question(1)]
    status, faults, _ = validate(tmp_path, capsys, "vqa_gen", rows)
    assert (status, faults) == (1, {"3:0": "id '1' with the same answers is also in row 1: remove one of them"})


@pytest.mark.parametrize("name", ["answers.json", "list.json", "answers.txt"])
def test_answers_outside_the_set_are_named_and_counted(tmp_path, capsys, name):
    content = {
        "answers.json": json.dumps({"yes": 0, "no": 1}),
        "list.json": '["yes", "no"]',
        "answers.txt": "yes\nno\n",
    }
    (tmp_path / name).write_text(content[name])
    rows = [question(0), question(1, answers="1.0|!+no&&0.3|!+maybe"), question(2, answers="1.0|!+maybe")]
    status, faults, text = validate(tmp_path, capsys, "vqa_gen", rows, "--answers", str(tmp_path / name))
    assert status == 1 and set(faults) == {"2:3", "3:3"}
    assert faults["2:3"].startswith("not in the answer set: 'maybe'")
    assert "answers outside the set: maybe 2" in text


def test_without_a_set_every_answer_is_good(tmp_path, capsys):
    assert validate(tmp_path, capsys, "vqa_gen", [question(0, answers="1.0|!+a big red bus")])[0] == 0


@pytest.mark.parametrize("content", [None, "{broken", "[]", "[1]"])
def test_unusable_answer_files_are_user_errors(tmp_path, capsys, content):
    path = tmp_path / "answers.json"
    if content is not None:
        path.write_text(content)
    rows = tmp_path / "rows.tsv"
    rows.write_text("\t".join(question(0)) + "\n")
    assert main(["data", "validate", str(rows), "--task", "vqa_gen", "--answers", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("unival: error:") and "answers.json" in error


@pytest.mark.parametrize("task", ["caption", "refcoco", "snli_ve"])
def test_an_answer_set_is_for_questions(tmp_path, capsys, task):
    (tmp_path / "a.txt").write_text("yes\n")
    (tmp_path / "rows.tsv").write_text("x\n")
    flags = ["--task", task, "--answers", str(tmp_path / "a.txt")]
    assert main(["data", "validate", str(tmp_path / "rows.tsv"), *flags]) == 2
    assert "--answers is for tasks with answers" in capsys.readouterr().err


# -------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize(
    ("cells", "column", "message"),
    [
        ({"text": ""}, 2, "expression is empty"),
        ({"text": "..."}, 2, "has no word"),
        ({"box": ""}, 3, "box is empty"),
        ({"box": "1,2,3"}, 3, "write x0,y0,x1,y1"),
        ({"box": "1,2,3,4,5"}, 3, "write x0,y0,x1,y1"),
        ({"box": "1,2,x,4"}, 3, "write x0,y0,x1,y1"),
        ({"box": "1,2,inf,4"}, 3, "write x0,y0,x1,y1"),
        ({"box": "30,2,1,40"}, 3, "x0 30 not below x1 1"),
        ({"box": "5,2,5,40"}, 3, "x0 5 not below x1 5"),
        ({"box": "1,40,30,2"}, 3, "y0 40 not below y1 2"),
        ({"box": "1,2,65,40"}, 3, "outside the picture of 64 x 48"),
        ({"box": "1,2,30,49"}, 3, "outside the picture of 64 x 48"),
        ({"box": "-1,2,30,40"}, 3, "outside the picture"),
        ({"box": "1,-2,30,40"}, 3, "outside the picture"),
    ],
)
def test_defects_of_boxes(tmp_path, capsys, cells, column, message):
    status, faults, _ = validate(tmp_path, capsys, "refcoco", [expression(0), expression(1, **cells)])
    assert status == 1 and list(faults) == [f"2:{column}"]
    assert message in faults[f"2:{column}"]


@pytest.mark.parametrize("box", ["0,0,64,48", "0.0,0.0,64.3,48.4", "-0.2,0,10,10"])
def test_boxes_may_touch_the_border(tmp_path, capsys, box):
    assert validate(tmp_path, capsys, "refcoco", [expression(0, box=box)])[0] == 0


def test_a_box_is_not_blamed_for_a_bad_picture(tmp_path, capsys):
    _, faults, _ = validate(tmp_path, capsys, "refcoco", [expression(0, box="1,2,999,999", image="none")])
    assert list(faults) == ["1:4"]


def test_the_picture_before_does_not_count(tmp_path, capsys):
    rows = [expression(0, image=picture((999, 999))), expression(1, box="1,2,100,40")]
    assert list(validate(tmp_path, capsys, "refcoco", rows)[1]) == ["2:3"]


# -------------------------------------------------------------------------------- statements


@pytest.mark.parametrize(
    ("cells", "column", "message"),
    [
        ({"text": ""}, 3, "hypothesis is empty"),
        ({"label": ""}, 5, "label is empty"),
        ({"label": "yes"}, 5, "none of contradiction, entailment, neutral"),
        ({"label": "-"}, 5, "remove the row"),
        ({"image": "none"}, 2, "not a picture"),
    ],
)
def test_defects_of_statements(tmp_path, capsys, cells, column, message):
    status, faults, _ = validate(tmp_path, capsys, "snli_ve", [statement(0), statement(1, **cells)])
    assert status == 1 and list(faults) == [f"2:{column}"]
    assert message in faults[f"2:{column}"]


def test_labels_are_counted(tmp_path, capsys):
    rows = [statement(0), statement(1, label="neutral"), statement(2, caption="")]
    status, _, text = validate(tmp_path, capsys, "snli_ve", rows)
    assert status == 0 and "labels: entailment 2, neutral 1" in text


def test_ids_must_differ(tmp_path, capsys):
    assert list(validate(tmp_path, capsys, "snli_ve", [statement(0), statement(0, "it is big")])[1]) == ["2:0"]


def test_help_names_the_columns_of_every_task(capsys):
    with pytest.raises(SystemExit):
        main(["data", "validate", "--help"])
    text = capsys.readouterr().out
    for words in (
        "id, image, question, answers, objects",
        "expression, box",
        "hypothesis, caption, label",
        "--answers",
    ):
        assert words in text
