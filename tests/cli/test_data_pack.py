"""``unival data pack``: every task's records become rows that pass ``unival data validate``; bad ones are named."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_films import write_film
from made_sounds import tone, written
from PIL import Image

from unival_cli.main import main
from unival_cli.pack_cells import Unusable, answers_cell, box_cell

ROOT = Path(__file__).resolve().parents[2]


def png(size=(8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """a.png (8 x 6), b.png (20 x 10), and a film and a sound."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "a.png").write_bytes(png())
    (folder / "b.png").write_bytes(png((20, 10)))
    write_film(folder / "film.mp4", frames=8)
    written(folder / "sound.flac", tone(seconds=0.1))
    return folder


@pytest.fixture
def pack(media, tmp_path, capsys):
    """Pack records (JSON lines) and give status, rows as lists of cells, and what was printed."""

    def run(task, records, *flags, name="table.jsonl"):
        table = tmp_path / name
        if isinstance(records, str):
            table.write_text(records)
        else:
            table.write_text("".join(json.dumps(record) + "\n" for record in records))
        output = tmp_path / "rows.tsv"
        command = ["--task", task, "--data", str(table), "--images", str(media), "--output", str(output)]
        status = main(["data", "pack", *command, *flags])
        rows = [line.split("\t") for line in output.read_text().splitlines()] if output.exists() else None
        return status, rows, capsys.readouterr()

    return run


def next_command(printed: str) -> list[str]:
    return shlex.split(re.search(r"^next: unival (.+)$", printed, re.MULTILINE)[1])


QUESTION = {"image": "a.png", "question": "how many?", "answers": ["two", "two", "2"], "question_id": 77}
BOX = {"image": "b.png", "expression": ["the left one", "the red one"], "box": [1, 2, 5.5, 6]}
STATEMENT = {"image": "a.png", "hypothesis": "it is red", "label": "Entailment", "premise": "a box"}
CAPTION = {"image": "a.png", "captions": ["a box", "red paint"], "objects": ["box", "paint"]}
PICTURE_A = base64.b64encode(png()).decode()


@pytest.mark.parametrize(
    ("task", "record", "flags", "rows"),
    [
        (
            "caption",
            CAPTION,
            [],
            [["0", "a.png", "a box", "box&&paint", "PICTURE"], ["1", "a.png", "red paint", "box&&paint", "PICTURE"]],
        ),
        ("vqa_gen", QUESTION, [], [["77", "a.png", "how many?", "0.6|!+two&&0.3|!+2", "", "PICTURE"]]),
        (
            "refcoco",
            BOX,
            ["--paths"],
            [
                ["0", "b.png", "the left one", "1,2,5.5,6", "b.png"],
                ["1", "b.png", "the red one", "1,2,5.5,6", "b.png"],
            ],
        ),
        ("snli_ve", STATEMENT, [], [["0", "a.png", "PICTURE", "it is red", "a box", "entailment"]]),
        (
            "video_caption",
            {"video": "film.mp4", "caption": "bits", "video_id": "v1"},
            [],
            [["0", "v1", "bits", "", "film.mp4"]],
        ),
        (
            "video_vqa_gen",
            {"video": "film.mp4", "question": "what is it?", "answer": "bits"},
            [],
            [["0", "film.mp4", "what is it?", "1.0|!+bits", "", "film.mp4"]],
        ),
        (
            "audio_caption",
            {"audio": "sound.flac", "text": "a tone"},
            [],
            [["0", "sound.flac", "a tone", "", "sound.flac"]],
        ),
        (
            "unify_task",
            QUESTION,
            ["--row-type", "qa", "--dataset", "vqa"],
            [["77", "PICTURE", "", "how many?", "0.6|!+two&&0.3|!+2", "", "vqa", "qa"]],
        ),
        (
            "unify_task",
            {**BOX, "image": "a.png", "expression": "it"},
            ["--row-type", "visual_grounding"],
            [["0", "PICTURE", "it", "", "1,2,5.5,6", "", "", "visual_grounding"]],
        ),
        (
            "unify_task",
            {"video": "film.mp4", "caption": "bits"},
            ["--row-type", "video_caption"],
            [["0", "film.mp4", "bits", "", "", "", "", "video_caption"]],
        ),
    ],
)
def test_rows_of_every_task_are_valid(pack, task, record, flags, rows):
    status, packed, printed = pack(task, [record], *flags)
    assert (status, packed) == (0, [[cell.replace("PICTURE", PICTURE_A) for cell in row] for row in rows])
    assert main(next_command(printed.out)) == 0


def test_the_end_tells_rows_media_and_words(pack, tmp_path):
    out = pack("caption", [CAPTION, {"image": "b.png", "caption": "x"}])[2].out
    assert out.startswith(f"{tmp_path}/rows.tsv: 3 rows, 2 pictures, 5 words\nnext: unival data validate ")


def test_fields_of_other_names_are_named_by_flags(pack):
    record = {"photo": "a.png", "asked": "what?", "said": "red", "nr": 5, "pic": "p1", "things": ["x"]}
    flags = ["--image-key=photo", "--question-key=asked", "--answer-key=said", "--id-key=nr", "--image-id-key=pic"]
    assert pack("vqa_gen", [record], *flags, "--objects-key=things", "--paths")[1] == [
        ["5", "p1", "what?", "1.0|!+red", "x", "a.png"]
    ]


def test_an_id_with_several_texts_is_numbered(pack):
    rows = pack("caption", [{**CAPTION, "nr": "x"}], "--id-key", "nr", "--paths")[1]
    assert [row[0] for row in rows] == ["x_1", "x_2"]


def test_captions_of_a_picture_are_joined_over_all_records(pack):
    records = [CAPTION, {"image": "b.png", "caption": "x"}, {"image": "a.png", "caption": "y"}]
    rows = pack("caption", records, "--join", "--paths")[1]
    assert [row[:3] for row in rows] == [["0", "a.png", "a box&&red paint&&y"], ["1", "b.png", "x"]]


def test_boxes_of_corner_width_and_height(pack):
    assert pack("refcoco", [BOX], "--box-format", "xywh", "--paths")[1][0][3] == "1,2,6.5,8"


@pytest.mark.parametrize("box", ["1,2,5.5,6", "[1, 2, 5.5, 6]", "1 2 5.5 6", [1.0, 2, "5.5", 6]])
def test_boxes_in_texts(pack, box):
    assert pack("refcoco", [{**BOX, "box": box}], "--paths")[1][0][3] == "1,2,5.5,6"


@pytest.mark.parametrize(
    ("answers", "cell"),
    [
        ("two", "1.0|!+two"),
        (2, "1.0|!+2"),
        (["two"], "1.0|!+two"),
        (["no"] + ["yes"] * 4, "1.0|!+yes&&0.3|!+no"),
        ([{"answer": "no", "confidence": 0.25}, {"answer": "yes", "confidence": 1}], "1.0|!+yes&&0.25|!+no"),
        ([{"answer": "yes", "confidence": 0.3}, {"answer": "yes", "confidence": 0.6}], "0.6|!+yes"),
        ([{"answer": "yes", "answer_confidence": "maybe", "answer_id": 1}] * 3, "0.9|!+yes"),
        ({"answer": ["a b", "c"], "confidence": [0.5, 0.7]}, "0.7|!+c&&0.5|!+a b"),
        ({"answer": "yes", "confidence": 0.5}, "0.5|!+yes"),
        ("0.3|!+two&&1.0|!+three", "1.0|!+three&&0.3|!+two"),
    ],
)
def test_answers_in_all_forms(pack, answers, cell):
    assert pack("vqa_gen", [{**QUESTION, "answers": answers}], "--paths")[1][0][3] == cell


@pytest.mark.parametrize(
    ("task", "change", "reason"),
    [
        ("caption", {"captions": []}, "the caption is"),
        ("caption", {"captions": ["..."]}, "has no word"),
        ("caption", {"captions": "a&&b"}, "separates"),
        ("caption", {"captions": "salt &"}, "or ends with &"),
        ("caption", {"captions": None}, "there is no 'caption' or 'captions'"),
        ("caption", {"image": None}, "there is no image"),
        ("caption", {"image": 7}, "the image is '7', not a path"),
        ("caption", {"image": "../x.png"}, "outside"),
        ("caption", {"image_id": 1.5}, "image_id is '1.5'"),
        ("caption", {"captions": [3]}, "the caption is '3', not a text"),
        ("vqa_gen", {"question": " "}, "the question is empty"),
        ("vqa_gen", {"answers": []}, "there are no answers"),
        ("vqa_gen", {"answers": [True]}, "not a text"),
        ("vqa_gen", {"answers": [{"answer": "x", "confidence": 1.5}]}, "confidence 1.5"),
        ("vqa_gen", {"answers": "x|!+y"}, "confidence 'x'"),
        ("refcoco", {"box": [1, 2, 3]}, "not four numbers"),
        ("refcoco", {"box": [5, 2, 3, 4]}, "no area as xyxy"),
        ("refcoco", {"box": [1, 2, float("nan"), 4]}, "not four numbers"),
        ("refcoco", {"box": [0.1, 0.2, 0.5, 0.9]}, "multiply shares"),
        ("refcoco", {"box": [1, 2, 30, 4]}, "outside the picture of 20 x 10"),
        ("refcoco", {"expression": ""}, "the expression is empty"),
        ("snli_ve", {"label": "-"}, "no agreed label"),
        ("snli_ve", {"label": 1}, "label '1' is none of"),
    ],
)
def test_unusable_records_stop_with_their_place_or_are_counted(pack, task, change, reason):
    good = {"caption": CAPTION, "vqa_gen": QUESTION, "refcoco": BOX, "snli_ve": STATEMENT}[task]
    records = [good, {**good, **change}]
    status, rows, printed = pack(task, records)
    assert (status, rows) == (2, None)
    assert "table.jsonl:2: " in printed.err and reason in printed.err and printed.err.count("\n") == 1
    status, rows, printed = pack(task, records, "--on-bad-row", "skip")
    assert status == 0 and "table.jsonl:2: " in printed.err
    assert "records left out: 1 (" in printed.out and main(next_command(printed.out)) == 0


def test_broken_lines_and_missing_pictures_can_be_left_out(pack):
    table = '{"image": "a.png", "caption": "x"}\n{broken\n[1]\n{"image": "none.png", "caption": "y"}\n'
    status, rows, printed = pack("caption", table, "--on-bad-row", "skip")
    assert status == 0 and [row[2] for row in rows] == ["x"]
    assert "records left out: 2 (record 2)" in printed.out and "rows left out: 1 (" in printed.out


def test_nothing_usable_is_an_error(pack):
    status, rows, printed = pack("caption", [{"image": "a.png"}], "--on-bad-row", "skip")
    assert (status, rows) == (2, None) and "none of its 1 records" in printed.err


def test_links_out_of_the_folder_are_no_pictures(pack, media, tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    (media / "link.png").symlink_to(tmp_path / "secret.png")
    (media / "up").symlink_to(tmp_path)
    for name in ("link.png", "up/secret.png", "x/../../y.png", "..", "/etc/passwd", "a\0b"):
        status, rows, printed = pack("caption", [{"image": name, "caption": "x"}])
        assert (status, rows) == (2, None) and printed.err.count("\n") == 1


def test_an_absolute_path_below_the_folder_is_a_picture(pack, media):
    rows = pack("caption", [{"image": str(media / "a.png"), "caption": "x"}], "--paths")[1]
    assert rows == [["0", "a.png", "x", "", "a.png"]]


def test_a_stopped_command_goes_on(pack, media, tmp_path):
    records = [{"image": f"{name}.png", "caption": "x"} for name in ("a", "b", "late")]
    (media / "late.png").write_bytes(b"no picture")
    status, rows, printed = pack("caption", records)
    assert (status, rows) == (2, None) and "table.jsonl:3" in printed.err
    assert (tmp_path / ".rows.tsv.part").stat().st_size > 100
    (media / "late.png").write_bytes(png())
    status, rows, printed = pack("caption", records)
    assert status == 0 and [row[1] for row in rows] == ["a.png", "b.png", "late.png"]
    assert "3 rows, 3 pictures, 3 words" in printed.out


TEXTS = st.text(st.sampled_from("ab1 &|!+.\t"), max_size=8)


@given(st.lists(TEXTS | st.fixed_dictionaries({"answer": TEXTS, "confidence": st.floats(-0.5, 1.5)}), max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_answers_are_unusable_or_become_a_valid_cell(answers):
    try:
        cell = answers_cell(answers)
    except Unusable:
        return
    parts = [part.split("|!+") for part in cell.split("&&")]
    assert all(0 < float(confidence) <= 1 and answer == " ".join(answer.split()) != "" for confidence, answer in parts)
    assert len({answer for _, answer in parts}) == len(parts)


@given(st.lists(st.floats(-50, 2000) | st.integers(-9, 99), max_size=5), st.sampled_from(["xyxy", "xywh"]))
@settings(max_examples=200, deadline=None)
def test_any_box_is_unusable_or_becomes_a_valid_cell(box, box_format):
    try:
        edges = [float(edge) for edge in box_cell(box, box_format).split(",")]
    except Unusable:
        return
    assert len(edges) == 4 and edges[0] < edges[2] and edges[1] < edges[3]


def test_csv_lines_with_too_many_cells_are_named(pack):
    status, _, printed = pack("caption", "image,caption\na.png,red, square\n", name="t.csv")
    assert status == 2 and "t.csv:2: more cells than the first line names" in printed.err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.tsv", 'image\tcaption\na.png\ta "red" box, square\n'),
        ("t.csv", '\ufeffcaption,image\n"a ""red"" box, square",a.png\n'),
        ("t.json", '[{"image": "a.png", "caption": "a \\"red\\" box, square"}]'),
        ("t.ndjson", '{"image": "a.png", "caption": "a \\"red\\" box, square"}\n'),
    ],
)
def test_tables_of_text(pack, name, text):
    assert pack("caption", text, "--paths", name=name)[1] == [["0", "a.png", 'a "red" box, square', "", "a.png"]]


def test_coco_boxes_are_no_expressions(pack):
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}
    status, _, printed = pack("refcoco", json.dumps(coco), name="instances.json")
    assert status == 2 and "not a COCO caption file" in printed.err


@pytest.mark.parametrize(
    "flags",
    [
        ["--box-key", "b"],
        ["--box-format", "xywh"],
        ["--row-type", "qa"],
        ["--dataset", "x"],
        ["--workers", "0"],
        ["--split", "train"],
        ["--caption-key", "nix", "--images", "nix"],
        ["--task", "unify_task"],
        ["--task", "image_gen"],
        ["--task", "vqa_gen", "--join"],
    ],
)
def test_flags_that_do_not_fit_are_user_errors(pack, flags):
    status, rows, printed = pack("caption", [CAPTION], *flags)
    assert (status, rows) == (2, None) and printed.err.startswith("unival: error:")


def test_media_start_in_the_folder_of_the_table_and_threads_keep_the_order(media, tmp_path):
    table = media / "here.jsonl"
    table.write_text("".join(f'{{"image": "{"ab"[k % 2]}.png", "caption": "c{k}"}}\n' for k in range(40)))
    output = tmp_path / "rows.tsv"
    command = [sys.executable, "-m", "unival_cli", "data", "pack", "--data", str(table), "--output", str(output)]
    done = subprocess.run([*command, "--workers", "3"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "40 rows, 2 pictures, 40 words" in done.stdout
    assert [line.split("\t")[2] for line in output.read_text().splitlines()] == [f"c{k}" for k in range(40)]
