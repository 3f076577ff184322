"""``unival data show``: rows in the terminal and on a sheet."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_films import write_film
from made_sounds import tone, written
from PIL import Image

from unival_cli.main import main
from unival_cli.sheet_rows import RIGHT_BOX

ROOT = Path(__file__).resolve().parents[2]
BLUE = (0, 0, 255)


def jpeg_or_png(kind="PNG", size=(8, 8)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, BLUE).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def table(path, *rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


@pytest.fixture
def captions(tmp_path):
    return table(tmp_path / "rows.tsv", *([f"{k}", f"im{k}", f"caption {k}", "", jpeg_or_png()] for k in range(1, 41)))


def show(path, *flags):
    return main(["data", "show", str(path), *flags])


def blue(path) -> int:
    with Image.open(path) as sheet:
        return int((np.asarray(sheet) == BLUE).all(axis=2).sum())


def shown_rows(out: str) -> list[int]:
    return [int(line.split()[1]) for line in out.splitlines() if line.startswith("row ")]


def test_rows_are_printed_with_what_their_pictures_are(tmp_path, capsys):
    path = table(tmp_path / "rows.tsv", ["7", "im", "a cat&&one cat", "", jpeg_or_png("JPEG", (64, 32))])
    assert show(path) == 0
    size = len(base64.b64decode(jpeg_or_png("JPEG", (64, 32))))
    assert capsys.readouterr().out.splitlines() == [
        "row 1",
        "  id:      7",
        f"  image:   JPEG 64 x 32, {size} bytes",
        "  caption: a cat && one cat",
    ]


def test_sixteen_rows_from_the_first_unless_told_otherwise(captions, capsys):
    show(captions)
    assert shown_rows(capsys.readouterr().out) == list(range(1, 17))
    show(captions, "3", "--start", "39")
    assert shown_rows(capsys.readouterr().out) == [39, 40]


def test_random_rows_are_the_same_for_the_same_seed(captions, capsys):
    found = []
    for seed in ("1", "1", "2"):
        assert show(captions, "5", "--random", "--seed", seed) == 0
        found.append(shown_rows(capsys.readouterr().out))
    assert found[0] == found[1] != found[2] and len(set(found[0])) == 5 and found[0] == sorted(found[0])


@pytest.mark.parametrize(
    ("task", "cells", "expected"),
    [
        ("vqa_gen", ["1", "im", "how many?", "1.0|!+two&&0.3|!+2", "", "P"], "answers:  1.0|!+two && 0.3|!+2"),
        ("refcoco", ["1", "im", "the box", "1,2,5,6", "P"], "box:        1,2,5,6"),
        ("snli_ve", ["1", "im", "P", "it is blue", "", "entailment"], "label:      entailment"),
        ("image_gen", ["1", "5 6 7 8", "a cat"], "codes:   4 codes: 5 6 7 8"),
        ("video_caption", ["1", "im", "a cat", "", "none.mp4"], "none.mp4 (missing in "),
        ("audio_caption", ["1", "im", "a cat", "", "rows.tsv"], "sound:   rows.tsv ("),
        ("unify_task", ["1", "P", "", "what?", "1.0|!+x", "", "vqa", "qa"], "question: what?"),
    ],
)
def test_rows_of_all_tasks_are_printed(tmp_path, capsys, task, cells, expected):
    path = table(tmp_path / "rows.tsv", [jpeg_or_png() if cell == "P" else cell for cell in cells])
    assert show(path, "--task", task) == 0
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("cell", ["not base64!", base64.b64encode(b"text").decode()])
def test_pictures_that_are_none_are_printed_as_such(tmp_path, capsys, cell):
    assert show(table(tmp_path / "rows.tsv", ["1", "im", "x", "", cell])) == 0
    assert "no picture" in capsys.readouterr().out


def test_a_sheet_has_the_rows_asked_for(captions, tmp_path, capsys):
    assert show(captions, "5", "--start", "3", "--output", str(tmp_path / "sheet.png"), "--cell", "20") == 0
    assert blue(tmp_path / "sheet.png") == 5 * 20 * 20
    assert "sheet.png: 5 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    "cells",
    [
        ["vqa_gen", "1", "im", "how many?", "1.0|!+two", "", "P"],
        ["refcoco", "1", "im", "the box", "1,2,5,6", "P"],
        ["snli_ve", "1", "im", "P", "it is blue", "", "entailment"],
        ["unify_task", "1", "P", "", "what?", "1.0|!+x", "", "vqa", "qa"],
        ["unify_task", "1", "P", "the box", "", "1,2,5,6", "", "", "visual_grounding"],
    ],
)
def test_sheets_of_all_tasks(tmp_path, cells):
    task, *cells = cells
    path = table(tmp_path / "rows.tsv", [jpeg_or_png() if cell == "P" else cell for cell in cells])
    output = tmp_path / "sheet.png"
    assert show(path, "--task", task, "--output", str(output), "--cell", "320") == 0
    with Image.open(output) as sheet:
        framed = bool((np.asarray(sheet) == RIGHT_BOX).all(axis=2).any())
    assert blue(output) > 1000 and framed == ("1,2,5,6" in cells)


def test_pictures_films_and_sounds_of_paths(tmp_path):
    Image.new("RGB", (8, 8), BLUE).save(tmp_path / "a.png")
    write_film(tmp_path / "film.mp4", frames=8)
    written(tmp_path / "sound.flac", tone(seconds=0.1))
    for task, name, flags in (
        ("caption", "a.png", ["--read-from-img-path"]),
        ("video_caption", "film.mp4", []),
        ("audio_caption", "sound.flac", ["--image-dir", str(tmp_path)]),
    ):
        path = table(tmp_path / f"{task}.tsv", ["1", "x", "some words", "", name])
        assert show(path, "--task", task, "--output", str(tmp_path / f"{task}.png"), *flags) == 0
        with Image.open(tmp_path / f"{task}.png") as sheet:
            assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 1


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["0"], "at least 1"),
        (["--cell", "0"], "at least 1"),
        (["--start", "41"], "has 40 rows"),
        (["--start", "2", "--random"], "leave one of them out"),
        (["--selected-cols", "0,4"], "does not fit caption"),
        (["--selected-cols", "0,9,2"], "column 9"),
        (["--task", "video_caption", "--output", "x.png"], "rows.tsv:row 1"),
        (["--task", "image_gen", "--output", "x.png"], "leave --output out"),
    ],
)
def test_what_cannot_be_shown_is_one_line(captions, tmp_path, monkeypatch, flags, reason, capsys):
    monkeypatch.chdir(tmp_path)
    assert show(captions, *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("unival: error:") and reason in error and error.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


def test_an_existing_sheet_is_kept_unless_asked(captions, tmp_path):
    (tmp_path / "sheet.png").write_text("precious")
    assert show(captions, "--output", str(tmp_path / "sheet.png")) == 2
    assert show(captions, "--output", str(tmp_path / "sheet.png"), "--overwrite") == 0


def test_neither_torch_nor_fairseq_is_needed(captions, tmp_path):
    flags = ["data", "show", str(captions), "2", "--output", str(tmp_path / "sheet.png")]
    code = f"import sys; from unival_cli.main import main; assert main({flags}) == 0; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
