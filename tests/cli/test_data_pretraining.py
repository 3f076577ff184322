"""``unival data pretraining``: rows of every task as rows of multitask pretraining."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from unival_cli.data_pretraining import TYPE_OF_TASK
from unival_cli.data_schemas import FILE_COLUMNS
from unival_cli.main import main


def picture() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (0, 90, 0)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE = picture()
CELLS = {
    "id": "q7",
    "caption": "a dog&&two dogs",
    "question": "how many?",
    "answers": "1.0|!+two&&0.3|!+one",
    "objects": "dog&&grass",
    "image": PICTURE,
    "film": "films/a.mp4",
    "sound": "sounds/a.wav",
    "expression": "the left dog",
    "box": "1,1,5,6",
}


def table(path: Path, task: str, rows: int = 2, **cells: str) -> Path:
    values = [{**CELLS, **cells}.get(name, name) for name in FILE_COLUMNS[task]]
    path.write_text("".join("\t".join(values) + "\n" for _ in range(rows)))
    return path


def convert(*words: str) -> int:
    return main(["data", "pretraining", *words])


@pytest.mark.parametrize("task", TYPE_OF_TASK)
def test_each_task_gives_rows_of_its_type(task: str, tmp_path: Path) -> None:
    source = table(tmp_path / "in.tsv", task)
    out = tmp_path / "out.tsv"
    assert convert(str(source), "--task", task, "--dataset", "mine", "--output", str(out)) == 0
    rows = [line.split("\t") for line in out.read_text().splitlines()]
    captions = {"refcoco": ["the left dog"], "vqa_gen": [""], "video_vqa_gen": [""]}.get(task, ["a dog", "two dogs"])
    assert [row[0] for row in rows] == [str(number) for number in range(2 * len(captions))]
    assert [row[2] for row in rows] == captions * 2
    medium = next(CELLS[name] for name in ("image", "film", "sound") if name in FILE_COLUMNS[task])
    question = CELLS["question"] if "question" in FILE_COLUMNS[task] else ""
    refs = CELLS["box"] if task == "refcoco" else CELLS["answers"] if question else ""
    objects = "" if task == "refcoco" else CELLS["objects"]
    for row in rows:
        assert [row[1], *row[3:]] == [medium, question, refs, objects, "mine", TYPE_OF_TASK[task]]


@pytest.mark.parametrize("task", [task for task in TYPE_OF_TASK if "image" in FILE_COLUMNS[task]])
def test_the_rows_are_good_for_pretraining(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = table(tmp_path / "in.tsv", task)
    out = str(tmp_path / "out.tsv")
    assert convert(str(source), str(source), "--task", task, "--dataset", "mine", "--output", out) == 0
    said = capsys.readouterr().out
    command = said[said.index("next: unival ") + len("next: unival ") :].split()
    assert main(command) == 0
    assert " 0 bad" in capsys.readouterr().out


def test_an_empty_cell_is_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = table(tmp_path / "in.tsv", "caption", caption="a dog&& ")
    out = tmp_path / "out.tsv"
    assert convert(str(source), "--task", "caption", "--dataset", "mine", "--output", str(out)) == 2
    assert "in.tsv:row 1: caption is empty" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("name", ["", "a\tb"])
def test_a_data_set_needs_a_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(table(tmp_path / "in.tsv", "caption"))
    assert convert(source, "--task", "caption", "--dataset", name, "--output", str(tmp_path / "o.tsv")) == 2
    assert "--dataset" in capsys.readouterr().err


def test_an_input_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(table(tmp_path / "in.tsv", "caption"))
    words = [source, "--task", "caption", "--dataset", "mine", "--output", source]
    assert convert(*words) == 2 and convert(*words, "--overwrite") == 2
    assert "is an input" in capsys.readouterr().err


def test_files_of_another_task_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(table(tmp_path / "in.tsv", "caption"))
    words = ["--task", "vqa_gen", "--dataset", "mine", "--output", str(tmp_path / "o.tsv")]
    assert convert(source, *words) == 2
    assert "column" in capsys.readouterr().err
