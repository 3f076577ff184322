"""``unival data validate`` on files of any size: processes, what is printed and reported, and what is not loaded."""

from __future__ import annotations

import base64
import io
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from commands import ROOT
from PIL import Image

from unival_cli import data_rows
from unival_cli.data_report import MOST_TEXTS, Report
from unival_cli.main import main


def _picture() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 10, 10)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE = _picture()

Validate = Callable[..., tuple[int, list[str]]]


def row(number: object, caption: str = "a red box", picture: str = PICTURE) -> str:
    return f"{number}\tim{number}\t{caption}\t\t{picture}"


@pytest.fixture
def validate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Validate:
    """Checks lines of a file ``rows.tsv`` in the working folder; gives exit status and printed lines."""
    monkeypatch.chdir(tmp_path)

    def run(lines: Sequence[str], *flags: str, end: str = "\n") -> tuple[int, list[str]]:
        Path("rows.tsv").write_text("".join(line + end for line in lines), newline="")
        return main(["data", "validate", "rows.tsv", *flags]), capsys.readouterr().out.splitlines()

    return run


# ---- processes


def test_processes_print_what_one_prints(validate: Validate) -> None:
    rows = [row(number, "a box " * (number % 7) + "&&" * (number % 50 == 3)) for number in range(700)]
    rows[600] = row(20)
    outcomes = [validate(rows, "--workers", workers, "--max-errors", "0") for workers in ("1", "2", "3")]
    assert outcomes[0][0] == 1 and len(outcomes[0][1]) > 100
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_processes_may_be_spawned(validate: Validate, monkeypatch: pytest.MonkeyPatch) -> None:
    spawn = multiprocessing.get_context("spawn")
    monkeypatch.setattr(multiprocessing, "get_context", lambda: spawn)
    status, lines = validate([row(0), row(1, "")], "--workers", "2")
    assert status == 1 and lines[:2] == [
        "rows.tsv:2:2: caption is empty: fill in the cell or remove the row",
        "rows.tsv: 2 rows checked, 1 bad",
    ]


def test_a_killed_process_is_one_line(
    validate: Validate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data_rows.RowChecker, "check", lambda *_: os._exit(1))
    Path("rows.tsv").write_text(row(0) + "\n")
    assert main(["data", "validate", "rows.tsv", "--workers", "2"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("unival: error: rows.tsv: a worker process was killed") and error.count("\n") == 1


# ---- much that is wrong


def test_the_first_bad_cells_are_printed_and_all_are_counted_and_reported(validate: Validate) -> None:
    status, lines = validate([row(number, "") for number in range(30)], "--max-errors", "4", "--report", "bad.jsonl")
    assert status == 1
    assert [line.split(": ")[0] for line in lines[:5]] == [f"rows.tsv:{n}:2" for n in (1, 2, 3, 4)] + ["rows.tsv"]
    assert lines[5:7] == ["  26 more bad cells are not printed", "  empty cell: 30, first in row 1"]
    records = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert [record["row"] for record in records] == list(range(1, 31))
    assert records[0] == {
        "file": "rows.tsv",
        "row": 1,
        "column": 2,
        "kind": "empty cell",
        "reason": "caption is empty: fill in the cell or remove the row",
    }


def test_what_is_not_printed_can_be_had(validate: Validate) -> None:
    rows = [row(number, "") for number in range(120)]
    _, lines = validate(rows)
    assert sum(line.startswith("rows.tsv:") for line in lines) == 101
    assert "  20 more bad cells are not printed; --max-errors 0 prints all, --report FILE writes them" in lines
    _, lines = validate(rows, "--max-errors", "0")
    assert sum(line.startswith("rows.tsv:") for line in lines) == 121 and "more bad" not in "\n".join(lines)


def test_a_file_of_one_row_again_and_again(validate: Validate) -> None:
    status, lines = validate([row(7)] * 500, "--workers", "2", "--max-errors", "2")
    assert status == 1
    assert lines[:2] == [f"rows.tsv:{n}:0: id '7' is also in row 1: remove one of them" for n in (2, 3)]
    assert "rows.tsv: 500 rows checked, 499 bad" in lines and "  repeated id: 499, first in row 2" in lines


def test_a_repeated_id_counts_a_bad_row_once(validate: Validate) -> None:
    _, lines = validate([row(1), row(2), row(1, "")])
    assert "rows.tsv: 3 rows checked, 1 bad" in lines
    assert "  empty cell:  1, first in row 3" in lines and "  repeated id: 1, first in row 3" in lines


def test_endlessly_many_different_texts_are_counted_in_bounded_memory() -> None:
    whole = Report()
    for start in range(0, 3 * MOST_TEXTS, 1000):
        part = Report()
        part.tallies["answers outside the set"].update(map(str, range(start, start + 1000)))
        whole.add(part)
    counts = whole.tallies["answers outside the set"]
    assert len(counts) == MOST_TEXTS + 1 and counts.total() == 3 * MOST_TEXTS


# ---- rows as a whole


def test_an_odd_first_row_is_blamed_itself(validate: Validate) -> None:
    status, lines = validate(["id\tcaption", *map(row, range(5))])
    assert status == 1 and lines[0].startswith("rows.tsv:1: has 2 columns, but 5 are usual in this file")
    assert "rows.tsv: 6 rows checked, 1 bad" in lines


def test_a_file_with_too_few_columns_for_the_task_is_a_user_error(
    validate: Validate, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rows.tsv").write_text("1\ta\n2\tb\n")
    assert main(["data", "validate", "rows.tsv"]) == 2
    assert "has 2 columns (highest column is 1), but column 4 is selected" in capsys.readouterr().err


def test_a_last_row_without_line_end_is_good_if_it_is_whole(validate: Validate) -> None:
    assert validate(["\n".join([row(0), row(1)])], end="")[0] == 0


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_mixed_line_ends_are_told(validate: Validate, end: str) -> None:
    status, lines = validate([row(0), row(1)], end=end)
    assert status == 0 and "line ends" not in "\n".join(lines)
    status, lines = validate([row(0), row(1) + "\r", row(2)])
    assert status == 0 and "  line ends: 1 rows end in \\r\\n, the others in \\n; both are read" in lines


# ---- the report file


def test_a_report_replaces_nothing_unasked(validate: Validate, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.jsonl").write_text("precious")
    assert validate([row(0)], "--report", "bad.jsonl")[0] == 2
    assert Path("bad.jsonl").read_text() == "precious"
    assert validate([row(0)], "--report", "bad.jsonl", "--overwrite")[0] == 0
    assert Path("bad.jsonl").read_text() == ""
    assert validate([row(0)], "--report", "rows.tsv", "--overwrite")[0] == 2
    assert "--report rows.tsv is a data file" in main_error(capsys)
    assert Path("rows.tsv").read_text() == row(0) + "\n"


def main_error(capsys: pytest.CaptureFixture[str]) -> str:
    """What the last command complains about when it is run again."""
    main(["data", "validate", "rows.tsv", "--report", "rows.tsv", "--overwrite"])
    return capsys.readouterr().err


def test_several_files_have_one_report(validate: Validate) -> None:
    Path("other.tsv").write_text(row(0, "") + "\n")
    assert validate([row(0)], "other.tsv", "--report", "bad.jsonl")[0] == 1
    assert [json.loads(line)["file"] for line in Path("bad.jsonl").read_text().splitlines()] == ["other.tsv"]


# ---- memory

DRIVER = """
import sys
from unival_cli.main import main
statuses = [main(["data", *command.split()]) for command in sys.argv[1:]]
print(statuses, sorted({"torch", "fairseq", "unival_plugin"} & set(sys.modules)), file=sys.stderr)
"""


def test_big_libraries_are_not_loaded_for_texts_and_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("yes\n")
    (tmp_path / "rows.tsv").write_text(row(0) + "\n" + row(1) + "\n")
    (tmp_path / "asked.tsv").write_text(f"0\tim\twhat is it?\t1.0|!+yes\t\t{PICTURE}\n")
    (tmp_path / "codes.tsv").write_text("0\t1 2 3 4\ta three\n")
    commands = [
        "index rows.tsv",
        "validate rows.tsv --workers 2",
        "validate asked.tsv --task vqa_gen --answers a.txt",
        "validate codes.tsv --task image_gen",
        "shuffle rows.tsv out.tsv --copies 2",
        "shuffle rows.tsv out.tsv --copies 2",  # a mistake: they exist
    ]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *commands],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[-1] == "[0, 0, 0, 0, 0, 2] []", done.stderr
