"""``unival data split --join``: parts with a row a picture, whose captions are joined."""

from __future__ import annotations

import tracemalloc

import pytest

from unival_cli.main import main


@pytest.fixture
def table(tmp_path):
    """Three captions for each of 40 pictures, one after the other: 120 rows."""
    path = tmp_path / "rows.tsv"
    path.write_text("".join(f"{k}\tim{k % 40}\tcaption {k}\tcat\tPIC{k % 40}\n" for k in range(120)))
    return path


def split(table, *flags):
    status = main(["data", "split", str(table), *flags])
    return status, {path.stem.partition("_")[2]: path.read_text() for path in table.parent.glob("rows_*.tsv")}


def cells(part: str) -> list[list[str]]:
    return [line.split("\t") for line in part.splitlines()]


OUTPUTS = ("--outputs", "train=0.5,valid=0.25,test=rest")


def test_parts_have_a_row_a_picture_with_its_captions_in_order(table, capsys):
    plain = split(table, *OUTPUTS)[1]
    status, parts = split(table, *OUTPUTS, "--join", "valid,test", "--overwrite")
    assert status == 0 and parts["train"] == plain["train"]
    for name in ("valid", "test"):
        rows, firsts = cells(parts[name]), [row for row in cells(plain[name]) if int(row[0]) < 40]
        assert [row[0] for row in rows] == [row[0] for row in firsts]
        for row in rows:
            k = int(row[0])
            assert row == [f"{k}", f"im{k}", f"caption {k}&&caption {k + 40}&&caption {k + 80}", "cat", f"PIC{k}"]
    printed = capsys.readouterr().out
    assert f"rows_valid.tsv: {len(cells(parts['valid']))} rows, joined from {len(cells(plain['valid']))}" in printed
    assert f"rows_train.tsv: {len(cells(plain['train']))} rows\n" in printed


def test_the_joined_column_may_be_another_and_line_ends_stay(table):
    table.write_bytes(b"0\ta\tx y\tone\r\n1\tb\tz\ttwo\r\n2\ta\tx y\tthree\r\n3\tb\tz\tfour")
    status, parts = split(table, "--outputs", "p=2,q=2", "--join", "p,q", "--join-col", "3")
    assert status == 0
    rows = sorted(path.read_bytes() for path in table.parent.glob("rows_*.tsv"))
    assert rows == [b"0\ta\tx y\tone&&three\r\n", b"1\tb\tz\ttwo&&four\r\n"]


def test_what_is_joined_already_stays_joined(table):
    table.write_text("0\ta\tone&&two\tP\n1\tb\tx\tQ\n2\ta\tthree\tP\n")
    assert sorted(split(table, "--outputs", "p=2,q=1", "--join", "p")[1].values()) == [
        "0\ta\tone&&two&&three\tP\n",
        "1\tb\tx\tQ\n",
    ]


def test_pictures_are_not_kept_in_memory(table):
    picture = "x" * 2**20
    with table.open("w") as handle:
        for k in range(24):
            handle.write(f"{k}\tim{k // 2}\tcaption {k}\t\t{picture}\n")
    tracemalloc.start()
    status, parts = split(table, "--outputs", "one=0.5,two=0.5", "--join", "one,two")
    parts.clear()
    tracemalloc.clear_traces()
    assert main(["data", "split", str(table), "--outputs", "a=0.5,b=0.5", "--join", "a,b"]) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert status == 0 and peak < 10 * 2**20


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["0\ta\tx\tP", "1\tb\tx\tP", "2\ta\ty\tQ"], "rows.tsv:3: column 3 differs from row 1, with the same column 1"),
        (["0\ta\tx\tP", "1\tb\tx\tP", "2\ta\ty"], "rows.tsv:3 has 3 columns, row 1 4"),
        (["0\ta\tx\tP", "1\tb\tx\tP", "2\ta\t \tP"], "rows.tsv:3: column 2 is empty"),
        (["0\ta\tx &\tP", "1\tb\tx\tP", "2\ta\ty\tP"], "rows.tsv:1: column 2 ends with &"),
        (["0\ta", "1\tb", "2\ta"], "rows.tsv:1 has 2 columns, but --join-col 2 is needed"),
    ],
)
def test_rows_that_cannot_be_joined_leave_no_files(table, rows, reason, capsys):
    table.write_text("\n".join(rows) + "\n")
    status, parts = split(table, "--outputs", "p=2,q=1", "--join", "p,q")
    error = capsys.readouterr().err
    assert (status, parts) == (2, {}) and reason in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--join", "dev"], "--join: there is no part 'dev'; there are train, val, test"),
        (["--join", "val", "--join-col", "1"], "--join-col 1 is the column of --group-col"),
        (["--join", "val", "--join-col", "-1"], "--join-col is -1, but columns count from 0"),
        (["--join-col", "3"], "--join-col is for --join only"),
    ],
)
def test_flags_that_do_not_fit_are_user_errors(table, flags, reason, capsys):
    status, parts = split(table, *flags)
    error = capsys.readouterr().err
    assert (status, parts) == (2, {}) and reason in error and error.count("\n") == 1
