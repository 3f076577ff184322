"""Row table: addressing, damage, index, workers."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from unival_plugin.data import tsv
from unival_plugin.data.tsv import TsvTable, build_index, epoch_file
from unival_plugin.errors import ConfigError, DataError

GOLDEN = Path(__file__).parents[1] / "golden" / "unival_tasks"


def write(folder: Path, content: bytes) -> Path:
    path = folder / "rows.tsv"
    path.write_bytes(content)
    return path


def test_rows_and_column_order_are_the_reference_readers(tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "tsv_reader.json").read_text())
    path = write(tmp_path, "\n".join(golden["file_lines"]).encode() + b"\n")
    table = TsvTable(path, golden["selected_cols"])
    assert [table.row(i % 5) for i in range(7)] == golden["seven_reads_any_index"]


def test_all_columns_by_default(tmp_path: Path) -> None:
    assert TsvTable(write(tmp_path, b"a\tb\tc\n")).row(0) == ["a", "b", "c"]


@pytest.mark.parametrize("content", [b"1\tx\n2\ty\n", b"1\tx\n2\ty", b"1\tx\r\n2\ty\r\n", b"\xef\xbb\xbf1\tx\n2\ty"])
def test_line_ends_and_byte_order_mark_never_reach_the_cells(tmp_path: Path, content: bytes) -> None:
    table = TsvTable(write(tmp_path, content))
    assert [table.row(i) for i in range(len(table))] == [["1", "x"], ["2", "y"]]


def test_cell_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    table = TsvTable(write(tmp_path, "é\tb\0c\n".encode()), [1, 0])
    assert table.cell_bytes(0, 0) == b"b\0c"
    assert table.cell(0, 1) == "é"


def test_reading_one_cell_does_not_decode_the_others(tmp_path: Path) -> None:
    assert TsvTable(write(tmp_path, b"\xff\tok\n")).cell(0, 1) == "ok"


def test_lines_keep_all_but_their_end(tmp_path: Path) -> None:
    table = TsvTable(write(tmp_path, b"\xef\xbb\xbfa\tb\r\n\nc"))
    assert [table.line(i) for i in range(3)] == [b"a\tb\r", b"", b"c"]
    with pytest.raises(IndexError):
        table.line(3)


@pytest.mark.parametrize(("content", "is_open"), [(b"a\nb", True), (b"a\nb\n", False), (b"", False)])
def test_an_open_last_line_is_known(tmp_path: Path, content: bytes, is_open: bool) -> None:
    assert TsvTable(write(tmp_path, content)).last_line_is_open is is_open


def test_offsets_are_those_of_the_rows_and_the_end(tmp_path: Path) -> None:
    assert TsvTable(write(tmp_path, b"a\nbcd\n")).offsets.tolist() == [0, 2, 6]


@pytest.mark.parametrize("content", [b"", b"a\tb\nc\td\n"])
def test_what_was_forgotten_is_read_again(tmp_path: Path, content: bytes) -> None:
    table = TsvTable(write(tmp_path, content))
    before = [table.row(i) for i in range(len(table))]
    table.forget()
    assert [table.row(i) for i in range(len(table))] == before


def test_where_counts_rows_from_one_and_names_the_file_column(tmp_path: Path) -> None:
    table = TsvTable(write(tmp_path, b"a\tb\tc\n"), "2,0")
    assert table.where(0) == f"{table.path}:row 1"
    assert table.where(0, 0) == f"{table.path}:row 1, column 2"


cells = st.text(st.characters(blacklist_characters="\t\n\r", blacklist_categories=["Cs"]), max_size=12)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=8), last_end=st.booleans())
def test_what_is_written_is_read(tmp_path: Path, rows: list[tuple[str, str]], last_end: bool) -> None:
    content = "\n".join("\t".join(row) for row in rows) + "\n" * last_end
    if content.startswith("\ufeff"):
        content = "\ufeff" + content
    table = TsvTable(write(tmp_path, content.encode()))
    assert [tuple(table.row(i)) for i in range(len(table))] == rows


def test_blocks_of_the_scan_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsv, "_BLOCK_BYTES", 7)
    monkeypatch.setattr(tsv, "_READ_BYTES", 3)
    lines = [b"x" * (i % 11) for i in range(50)]
    starts = np.cumsum([0] + [len(line) + 1 for line in lines])[:-1]
    assert build_index(write(tmp_path, b"\n".join(lines) + b"\n")).tolist() == starts.tolist()


class TestDamage:
    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="none.tsv does not exist"):
            TsvTable(tmp_path / "none.tsv")

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="is a directory"):
            TsvTable(tmp_path)

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Path, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        path = write(tmp_path, b"a\n")
        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(DataError, match="permission"):
            TsvTable(path)

    @pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
    def test_empty_file_has_no_rows_and_says_so_when_asked(self, tmp_path: Path, content: bytes) -> None:
        table = TsvTable(write(tmp_path, content), "0,1")
        assert len(table) == 0
        with pytest.raises(DataError, match="is empty"):
            table.row(0)

    @pytest.mark.parametrize(("line", "found"), [(b"x", 1), (b"x\ty\tz", 3), (b"", 1)])
    def test_wrong_column_count(self, tmp_path: Path, line: bytes, found: int) -> None:
        table = TsvTable(write(tmp_path, b"a\tb\n" + line + b"\nc\td\n"), "0")
        with pytest.raises(DataError, match=f"rows.tsv:row 2 has {found} columns, but 2 "):
            table.row(1)
        assert table.row(2) == ["c"]

    def test_selected_column_out_of_range_names_the_highest(self, tmp_path: Path) -> None:
        table = TsvTable(write(tmp_path, b"a\tb\n"), "0,7")
        for _ in range(2):
            with pytest.raises(DataError, match="highest column is 1.*column 7"):
                table.row(0)

    @pytest.mark.parametrize("columns", ["0,x", "", "-1", [], [-1]])
    def test_columns_that_are_no_numbers(self, tmp_path: Path, columns: object) -> None:
        with pytest.raises(ConfigError, match="selected columns"):
            TsvTable(write(tmp_path, b"a\tb\n"), columns)  # type: ignore[arg-type]

    def test_text_that_is_not_utf8_names_file_row_and_column(self, tmp_path: Path) -> None:
        table = TsvTable(write(tmp_path, b"a\tb\nc\t\xe9\n"), "1")
        with pytest.raises(DataError, match="rows.tsv:row 2, column 1 is not UTF-8"):
            table.row(1)

    @pytest.mark.parametrize("i", [-1, 2])
    def test_row_out_of_range(self, tmp_path: Path, i: int) -> None:
        with pytest.raises(IndexError, match="has 2 rows"):
            TsvTable(write(tmp_path, b"a\nb\n")).row(i)

    def test_messages_are_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            TsvTable(write(tmp_path, b"a\n\xff\n")).row(1)
        assert "\n" not in str(caught.value)


class TestIndex:
    def test_is_written_beside_the_table_and_used_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path, b"a\nb\nc\n")
        assert build_index(path).tolist() == [0, 2, 4]
        monkeypatch.setattr(tsv, "_scan", lambda *_, **__: pytest.fail("scanned again"))
        assert TsvTable(path).row(2) == ["c"]

    def test_holds_eight_bytes_a_row(self, tmp_path: Path) -> None:
        path = write(tmp_path, b"a\n" * 1000)
        build_index(path)
        assert tsv.index_path(path).stat().st_size < 8 * 1000 + 64

    @pytest.mark.parametrize("content", [b"d\ne\nf\ng\n", b"d\n\ne\n"])
    def test_is_rebuilt_when_the_table_changes(self, tmp_path: Path, content: bytes) -> None:
        path = write(tmp_path, b"a\nb\nc\n")
        build_index(path)
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))
        assert len(TsvTable(path)) == content.count(b"\n")

    @pytest.mark.parametrize("damage", [b"", b"junk", b"x" * 48])
    def test_is_rebuilt_when_it_is_not_an_index(self, tmp_path: Path, damage: bytes) -> None:
        path = write(tmp_path, b"a\nb\nc\n")
        tsv.index_path(path).write_bytes(damage)
        assert [TsvTable(path).row(i) for i in range(3)] == [["a"], ["b"], ["c"]]
        assert tsv.index_path(path).read_bytes() != damage

    @pytest.mark.parametrize("cut", [1, 8, 16, 40])
    def test_is_rebuilt_when_it_is_truncated(self, tmp_path: Path, cut: int) -> None:
        path = write(tmp_path, b"a\nb\nc\n")
        build_index(path)
        whole = tsv.index_path(path).read_bytes()
        tsv.index_path(path).write_bytes(whole[:-cut])
        assert len(TsvTable(path)) == 3
        assert tsv.index_path(path).read_bytes() == whole

    def test_garbled_offsets_never_yield_half_a_row(self, tmp_path: Path) -> None:
        path = write(tmp_path, b"aa\nbb\ncc\n")
        build_index(path)
        index = bytearray(tsv.index_path(path).read_bytes())
        index[-16] += 1
        tsv.index_path(path).write_bytes(index)
        with pytest.raises(DataError, match="delete it"):
            TsvTable(path).row(2)

    def test_stays_in_memory_where_it_cannot_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        real_open = Path.open

        def read_only(self: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
            if "x" in mode:
                raise OSError(30, "Read-only file system")
            return real_open(self, mode, *args, **kwargs)  # type: ignore[call-overload]

        monkeypatch.setattr(Path, "open", read_only)
        with caplog.at_level(logging.INFO, logger=tsv.__name__):
            assert TsvTable(write(tmp_path, b"a\nb\n")).row(1) == ["b"]
        assert [record.levelname for record in caplog.records] == ["INFO"]
        assert [path.name for path in tmp_path.iterdir()] == ["rows.tsv"]

    def test_two_builders_at_once_leave_one_good_file(self, tmp_path: Path) -> None:
        path = write(tmp_path, b"".join(b"%d\tx\n" % i for i in range(20_000)))
        context = multiprocessing.get_context("fork")
        builders = [context.Process(target=build_index, args=(path,)) for _ in range(4)]
        for builder in builders:
            builder.start()
        for builder in builders:
            builder.join()
        assert [builder.exitcode for builder in builders] == [0] * 4
        assert sorted(file.name for file in tmp_path.iterdir()) == ["rows.tsv", "rows.tsv.idx"]
        assert TsvTable(path).row(19_999) == ["19999", "x"]

    def test_progress_bar_goes_to_standard_error(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        build_index(write(tmp_path, b"a\nb\n"), progress=True)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "index" in captured.err


class Rows(Dataset[list[str]]):
    def __init__(self, table: TsvTable) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> list[str]:
        return self.table.row(i)


def as_they_are(rows: list[list[str]]) -> list[list[str]]:
    return rows


class TestWorkers:
    def test_pickle_holds_no_rows(self, tmp_path: Path) -> None:
        table = TsvTable(write(tmp_path, b"0123456789\tx\n" * 10_000), "1,0")
        table.row(0)
        packed = pickle.dumps(table)
        assert len(packed) < 1000
        assert pickle.loads(packed).row(9_999) == ["x", "0123456789"]

    @pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
    def test_workers_read_the_same_rows(self, tmp_path: Path, method: str, workers: int) -> None:
        table = TsvTable(write(tmp_path, "".join(f"{i}\té{i}\n" for i in range(40)).encode()))
        expected = [table.row(i) for i in range(40)]
        loader = DataLoader(
            Rows(table), batch_size=4, num_workers=workers, multiprocessing_context=method, collate_fn=as_they_are
        )
        assert [row for batch in loader for row in batch] == expected


class TestEpochFile:
    @pytest.mark.parametrize(("epoch", "name"), [(1, "a"), (2, "b"), (3, "a"), (10, "b")])
    def test_training_walks_through_the_files_before_the_last(self, epoch: int, name: str) -> None:
        assert epoch_file("a,b,valid", "train", epoch) == name

    @pytest.mark.parametrize("split", ["valid", "test"])
    def test_other_splits_read_the_last_file(self, split: str) -> None:
        assert epoch_file("a,b,valid", split, 7) == "valid"
        assert epoch_file("valid", split, 1) == "valid"

    @pytest.mark.parametrize("data", ["only.tsv", "a,,b", ""])
    def test_impossible_lists_are_refused(self, data: str) -> None:
        with pytest.raises(ConfigError, match="data: "):
            epoch_file(data, "train", 1)
