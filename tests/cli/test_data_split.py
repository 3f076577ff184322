"""``unival data split``: groups stay together, sizes come near, rows keep their bytes, the same seed gives the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unival_cli.main import main


@pytest.fixture
def table(tmp_path):
    """1,000 rows of 250 pictures, four each, which do not stand together."""
    path = tmp_path / "rows.tsv"
    path.write_text("".join(f"{k}\tim{k % 250}\tcaption {k}\n" for k in range(1000)))
    return path


def split(table, *flags):
    status = main(["data", "split", str(table), *flags])
    return status, {path.stem.partition("_")[2]: path.read_bytes() for path in table.parent.glob("rows_*.tsv")}


def groups(part: bytes) -> set[bytes]:
    return {line.split(b"\t")[1] for line in part.splitlines()}


def test_pictures_are_in_one_part_and_all_rows_in_some(table, capsys):
    status, parts = split(table)
    assert status == 0 and set(parts) == {"train", "val", "test"}
    sizes = {name: len(part.splitlines()) for name, part in parts.items()}
    assert sizes == {"train": 900, "val": 48, "test": 52}
    assert sum(len(groups(part)) for part in parts.values()) == 250
    whole = table.read_bytes().splitlines(keepends=True)
    for part in parts.values():
        lines = set(part.splitlines(keepends=True))
        assert part == b"".join(line for line in whole if line in lines)
    assert "rows_train.tsv: 900 rows" in capsys.readouterr().out


def test_the_seed_decides_not_the_order_of_the_rows(table):
    first = split(table)[1]
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(reversed(lines)))
    again = split(table, "--overwrite")[1]
    other = split(table, "--overwrite", "--seed", "2")[1]
    assert {name: groups(part) for name, part in first.items()} == {name: groups(part) for name, part in again.items()}
    assert groups(other["test"]) != groups(first["test"])


def test_numbers_of_rows_and_the_rest(table):
    parts = split(table, "--outputs", "test=100,few=0.012,train=rest", "--group-col", "0")[1]
    assert {name: len(part.splitlines()) for name, part in parts.items()} == {"test": 100, "few": 12, "train": 888}


def test_lines_keep_their_ends(table):
    table.write_bytes(b"1\ta\tx\r\n2\tb\ty\r\n3\tc\tz")
    parts = split(table, "--outputs", "one=1,two=2")[1]
    assert sorted(b"".join(parts.values()).split(b"\r\n")) == [b"1\ta\tx", b"2\tb\ty", b"3\tc\tz"]


@given(st.lists(st.integers(1, 9), min_size=3, max_size=40), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_every_part_is_at_most_a_group_away_from_its_size(tmp_path_factory, sizes, seed):
    path = tmp_path_factory.mktemp("rows") / "rows.tsv"
    path.write_text("".join(f"x\tg{k}\n" * size for k, size in enumerate(sizes)))
    status, parts = split(path, "--outputs", "a=0.5,b=0.5", "--seed", str(seed))
    assert status == 0 and not groups(parts["a"]) & groups(parts["b"])
    assert abs(len(parts["a"].splitlines()) - sum(sizes) / 2) <= max(sizes)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--outputs", "a"], "'a' is not NAME=0.9"),
        (["--outputs", "a=0.5,b=0.2"], "0.7 together"),
        (["--outputs", "a=0.9,b=0.2"], "1.1 together"),
        (["--outputs", "a=0.9,b=50"], "950 together"),
        (["--outputs", "a=500,b=400"], "900 together"),
        (["--outputs", "a=1000,b=rest"], "1000 together"),
        (["--outputs", "a=rest,b=rest"], "only one"),
        (["--outputs", "a=0,b=rest"], "above 0"),
        (["--outputs", "a=0.5,a=0.5"], "twice"),
        (["--outputs", "a/b=0.5,c=0.5"], "is not NAME"),
        (["--outputs", "a=1,b=1,c=998"], "no rows are left for"),
        (["--group-col", "3"], "rows.tsv:1 has 3 columns"),
        (["--group-col", "-1"], "count from 0"),
    ],
)
def test_what_cannot_be_done_leaves_no_files(table, flags, reason, capsys):
    if flags[1] == "a=1,b=1,c=998":
        table.write_text("1\tsame\n" * 1000)
    status, parts = split(table, *flags)
    error = capsys.readouterr().err
    assert (status, parts) == (2, {}) and reason in error and error.count("\n") == 1
    assert [path.name for path in table.parent.iterdir()] == ["rows.tsv"]


def test_a_short_row_leaves_no_files(table, capsys):
    table.write_text("1\ta\n2\n")
    assert split(table)[1] == {} and "rows.tsv:2 has 1 columns" in capsys.readouterr().err


def test_existing_files_are_kept_unless_asked(table, tmp_path, capsys):
    (tmp_path / "rows_val.tsv").write_text("precious")
    status, parts = split(table)
    assert status == 2 and set(parts) == {"val"} and "--overwrite" in capsys.readouterr().err
    assert split(table, "--overwrite")[0] == 0
    assert split(table, "--overwrite", "--output-prefix", str(tmp_path / "new" / "x"))[0] == 2
    assert main(["data", "split", str(tmp_path / "none.tsv")]) == 2
    (tmp_path / "rows_a.tsv").write_text("1\ta\n2\tb\n")
    flags = ["--output-prefix", str(tmp_path / "rows"), "--outputs", "a=1,b=1", "--overwrite"]
    assert main(["data", "split", str(tmp_path / "rows_a.tsv"), *flags]) == 2
