"""``unival data answers``: the most frequent answers of rows."""

from __future__ import annotations

import json

import pytest

from unival_cli.data_answer_set import answers_of
from unival_cli.light import light
from unival_cli.main import main


@pytest.fixture
def table(tmp_path):
    cells = ["1.0|!+two&&0.3|!+2", "0.6|!+one&&0.9|!+two", "1.0|!+red", "1.0|!+blue", "1.0|!+ blue ", "0.3|!+rare"]
    path = tmp_path / "vqa.tsv"
    path.write_text("".join(f"{k}\tim\twhat?\t{cell}\t\tPICTURE\n" for k, cell in enumerate(cells)))
    return path


def answers(table, output, *flags):
    assert main(["data", "answers", str(table), "--output", str(output), *flags]) == 0
    return output.read_text()


def test_the_most_frequent_come_first_then_the_alphabet_decides(table, tmp_path):
    found = json.loads(answers(table, tmp_path / "answers.json"))
    assert list(found.items()) == [("blue", 0), ("two", 1), ("rare", 2), ("red", 3)]


def test_all_answers_of_rows_can_count(table, tmp_path):
    assert set(answers(table, tmp_path / "a.txt", "--all-answers").split()) == {
        "blue",
        "two",
        "one",
        "rare",
        "red",
        "2",
    }


def test_rare_answers_are_left_out_and_coverage_is_told(table, tmp_path, capsys):
    assert answers(table, tmp_path / "a.txt", "--min-count", "2") == "blue\ntwo\n"
    assert answers(table, tmp_path / "b.txt", "--top", "3") == "blue\ntwo\nrare\n"
    out = capsys.readouterr().out
    assert "a.txt: 2 of 4 answers, in 2 to 2 rows each" in out and "most frequent: blue 2, two 2\n" in out
    assert "surest answer is in the set: 4 of 6 (66.7 %)" in out


def test_files_and_rows_of_pretraining_are_counted_together(table, tmp_path):
    rows = tmp_path / "unify.tsv"
    rows.write_text("1\tP\t\twhat?\t1.0|!+x\t\tvqa\tqa\n2\tP\tit\t\t1,2,3,4\t\tcoco\tvisual_grounding\n")
    assert answers(rows, tmp_path / "u.txt", "--task", "unify_task") == "x\n"
    assert main(["data", "answers", str(table), str(table), "--output", str(tmp_path / "two.json"), "--top", "1"]) == 0
    assert json.loads((tmp_path / "two.json").read_text()) == {"blue": 0}


def test_rows_of_the_set_pass_validation_of_answers(table, tmp_path):
    answers(table, tmp_path / "answers.json", "--all-answers")
    known = set(light("data.answer_files").read_answers(tmp_path / "answers.json"))
    cells = [line.split("\t")[3] for line in table.read_text().splitlines()]
    assert all(set(answers_of(cell, "")) <= known for cell in cells)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--output", "a.pkl"], "must end in .json"),
        (["--output", "a.json", "--top", "0"], "at least 1"),
        (["--output", "a.json", "--min-count", "3"], "lower --min-count"),
        (["--output", "a.json", "--selected-cols", "0,1"], "needs 5 columns"),
        (["--output", "a.json", "--selected-cols", "0,5,3,2,4"], "row 1, column 2: 'what?' is no answer"),
    ],
)
def test_what_gives_no_set_is_one_line(table, tmp_path, monkeypatch, flags, reason, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "answers", str(table), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("unival: error:") and reason in error and error.count("\n") == 1
    assert not list(tmp_path.glob("a.*"))


def test_an_existing_set_is_kept_unless_asked(table, tmp_path):
    (tmp_path / "a.txt").write_text("precious")
    assert main(["data", "answers", str(table), "--output", str(tmp_path / "a.txt")]) == 2
    assert answers(table, tmp_path / "a.txt", "--overwrite", "--top", "1") == "blue\n"
