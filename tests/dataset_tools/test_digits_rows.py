"""Rows of all tasks together: formats that the tools accept, captions untouched, one vocabulary."""

from __future__ import annotations

import json
import re

import digits
import pytest
import sentencepiece
from digits_rows import ROW_KINDS, vocabulary_words
from PIL import Image

from unival_cli.main import main as unival

ALL = ("caption", "vqa_gen", "refcoco", "snli_ve")
PLAN = digits.BuildPlan(tasks=ALL, train_rows=40, val_rows=5, test_rows=6, epoch_files=2, easy_files=1)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "data"
    digits.build(folder, PLAN)
    return folder


def rows(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_files_of_every_task(built):
    names = {path.name for path in built.iterdir()}
    stems = ("train_1", "train_2", "val", "test")
    tables = {f"{prefix}{stem}.tsv" for prefix in ("", "vqa_", "refcoco_", "snli_") for stem in stems}
    assert names == tables | {"digits.model", "manifest.json", "README.txt", "answers.json", "answers.txt"}
    counts = json.loads((built / "manifest.json").read_text())["rows"]
    assert counts == {name: len(rows(built / name)) for name in tables}


def test_the_same_seed_gives_the_same_bytes(built, tmp_path):
    digits.build(tmp_path / "again", PLAN)
    assert all(path.read_bytes() == (tmp_path / "again" / path.name).read_bytes() for path in built.iterdir())


def test_captions_do_not_depend_on_the_other_tasks(built, tmp_path):
    plan = digits.BuildPlan(train_rows=40, val_rows=5, test_rows=6, epoch_files=2, easy_files=1)
    digits.build(tmp_path / "captions", plan)
    for name in ("train_1.tsv", "train_2.tsv", "val.tsv", "test.tsv"):
        assert (built / name).read_bytes() == (tmp_path / "captions" / name).read_bytes()


def test_the_rows_of_a_task_do_not_depend_on_the_others(built, tmp_path):
    plan = digits.BuildPlan(tasks=("refcoco",), train_rows=40, val_rows=5, test_rows=6, epoch_files=2, easy_files=1)
    digits.build(tmp_path / "boxes", plan)
    assert (built / "refcoco_test.tsv").read_bytes() == (tmp_path / "boxes" / "refcoco_test.tsv").read_bytes()
    assert not (tmp_path / "boxes" / "answers.json").exists()


@pytest.mark.parametrize("task", ALL)
def test_rows_are_valid_for_their_task(built, task, capsys):
    files = [str(built / f"{ROW_KINDS[task].prefix}{stem}.tsv") for stem in ("train_1", "train_2", "val", "test")]
    flags = ["--answers", str(built / "answers.json")] if task == "vqa_gen" else []
    columns = ["--selected-cols", ROW_KINDS[task].selected_cols]
    assert unival(["data", "validate", *files, "--task", task, *columns, *flags]) == 0, capsys.readouterr().out


def test_all_tasks_show_the_same_pictures(built):
    by_task = {
        task: [cells[int(kind.selected_cols.split(",")[1])] for cells in rows(built / f"{kind.prefix}test.tsv")]
        for task, kind in ROW_KINDS.items()
        if task in ALL
    }
    assert all(pictures == by_task["caption"] for pictures in by_task.values())


def test_both_files_of_answers_hold_the_same_set(built):
    answers = json.loads((built / "answers.json").read_text())
    assert list(answers) == (built / "answers.txt").read_text().splitlines()
    assert list(answers.values()) == list(range(len(answers)))


def test_every_word_of_every_text_is_one_piece(built):
    model = sentencepiece.SentencePieceProcessor(model_file=str(built / "digits.model"))
    text_columns = {"caption": 2, "vqa_gen": 2, "refcoco": 2, "snli_ve": 3}
    texts = vocabulary_words()
    for task, column in text_columns.items():
        texts += [cells[column] for cells in rows(built / f"{ROW_KINDS[task].prefix}train_2.tsv")]
    words = {word for text in texts for word in re.findall(r"[a-z]+", text)}
    assert len(words) > 60
    assert [word for word in sorted(words) if len(model.encode(word)) != 1] == []


def test_all_builds_have_the_same_vocabulary(built, tmp_path):
    flags = ["--train-rows", "3", "--val-rows", "1", "--test-rows", "1", "--tasks", "snli_ve", "--seed", "11"]
    assert digits.main(["--output", str(tmp_path / "own"), *flags]) == 0
    assert (tmp_path / "own" / "digits.model").read_bytes() == (built / "digits.model").read_bytes()


@pytest.mark.parametrize("flags", [["--tasks", "caption,caption"], ["--tasks", "vqa"], ["--tasks", ""]])
def test_wrong_flags_are_refused(tmp_path, flags):
    with pytest.raises(SystemExit):
        digits.main(["--output", str(tmp_path / "data"), *flags])


def test_the_readme_tells_the_columns(built):
    text = (built / "README.txt").read_text()
    for task in ALL:
        kind = ROW_KINDS[task]
        assert f"Columns of the {task} rows: {kind.columns}; read with --selected-cols {kind.selected_cols}." in text


@pytest.mark.parametrize("task", ["vqa_gen", "refcoco", "snli_ve"])
def test_a_contact_sheet_can_be_drawn(built, tmp_path, task):
    import contact_sheet

    output = tmp_path / "sheet.png"
    table = built / f"{ROW_KINDS[task].prefix}test.tsv"
    assert contact_sheet.main(["--tsv", str(table), "--task", task, "--output", str(output)]) == 0
    with Image.open(output) as sheet:
        assert sheet.width > 900
