"""The picture grid: all pictures are on it, wrong captions are red, both kinds of prediction files are read."""

from __future__ import annotations

import base64
import io
import json

import contact_sheet
import numpy as np
import pytest
from PIL import Image

from unival_cli.sheet import QUIET, WRONG

BLUE = (0, 0, 255)


def picture(colour=BLUE, size=(8, 8)):
    return Image.new("RGB", size, colour)


def has_colour(sheet, colour):
    return bool((np.asarray(sheet) == colour).all(axis=2).any())


def count_colour(sheet, colour):
    return int((np.asarray(sheet) == colour).all(axis=2).sum())


@pytest.fixture
def table(tmp_path):
    rows = []
    for number, caption in enumerate(["a cat", "a dog&&one dog", "a cow"]):
        buffer = io.BytesIO()
        picture().save(buffer, "PNG")
        rows.append(f"{number}\tname{number}\t{caption}\t\t{base64.b64encode(buffer.getvalue()).decode()}\n")
    path = tmp_path / "test.tsv"
    path.write_text("".join(rows))
    return path


def predict(path, captions):
    path.write_text(json.dumps([{"image_id": str(k), "caption": text} for k, text in captions.items()]))
    return path


def test_every_picture_is_on_the_sheet():
    sheet = contact_sheet.contact_sheet([(picture(), "a cat", None)] * 5, columns=3, cell=40)
    assert count_colour(sheet, BLUE) == 5 * 40 * 40


def test_the_aspect_ratio_is_kept():
    sheet = contact_sheet.contact_sheet([(picture(size=(8, 4)), "a cat", None)], cell=40)
    assert count_colour(sheet, BLUE) == 40 * 20


def test_only_wrong_captions_are_red():
    right = contact_sheet.contact_sheet([(picture(), "a cat", "one cat&&a cat")])
    wrong = contact_sheet.contact_sheet([(picture(), "a dog", "one cat&&a cat")])
    assert not has_colour(right, WRONG)
    assert has_colour(wrong, WRONG) and has_colour(wrong, QUIET)


def test_long_captions_make_the_sheet_higher():
    short = contact_sheet.contact_sheet([(picture(), "a cat", None)], cell=80)
    long = contact_sheet.contact_sheet([(picture(), "a cat on a mat " * 5, None)], cell=80)
    assert long.width == short.width and long.height > short.height


def test_no_pictures_is_an_error():
    with pytest.raises(ValueError, match="no picture"):
        contact_sheet.contact_sheet([])


def test_command_draws_predictions_beside_the_table(table, tmp_path):
    predictions = predict(tmp_path / "p.json", {"0": "a cat", "1": "one dog", "2": "a horse"})
    output = tmp_path / "sheet.png"
    flags = ["--tsv", str(table), "--predictions", str(predictions), "--output", str(output), "--cell", "40"]
    assert contact_sheet.main(flags) == 0
    with Image.open(output) as sheet:
        assert count_colour(sheet, BLUE) == 3 * 40 * 40 and has_colour(sheet, WRONG)


def test_limit_and_missing_predictions_leave_pictures_out(table, tmp_path):
    predictions = contact_sheet.read_predictions(predict(tmp_path / "p.json", {"1": "a dog", "2": "a cow"}))
    items = contact_sheet.items_from_table(table, [0, 4, 2], predictions, limit=1)
    assert [(caption, reference) for _, caption, reference in items] == [("a dog", "a dog&&one dog")]


@pytest.mark.parametrize("name", ["image", "picture"])
def test_json_lines_name_picture_files(tmp_path, name):
    picture().save(tmp_path / "one.png")
    lines = tmp_path / "out.jsonl"
    lines.write_text(f'{{"{name}": "one.png", "caption": "a cat"}}\n')
    output = tmp_path / "sheet.png"
    flags = ["--predictions", str(lines), "--image-dir", str(tmp_path), "--output", str(output)]
    assert contact_sheet.main(flags) == 0
    assert output.is_file()


@pytest.mark.parametrize("text", ['[{"caption": "a cat"}]', '{"image": "x.png"}\n', "[1]", "{broken"])
def test_bad_predictions_end_with_one_line(table, tmp_path, capsys, text):
    path = tmp_path / "p.json"
    path.write_text(text)
    flags = ["--tsv", str(table), "--predictions", str(path), "--output", str(tmp_path / "sheet.png")]
    assert contact_sheet.main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("contact_sheet.py: error:") and "Traceback" not in error


def test_a_bad_picture_is_named(tmp_path, capsys):
    path = tmp_path / "bad.tsv"
    path.write_text("0\tx\ta cat\t\tnot base64!\n")
    assert contact_sheet.main(["--tsv", str(path), "--output", str(tmp_path / "sheet.png")]) == 2
    assert "bad.tsv:row 1" in capsys.readouterr().err
