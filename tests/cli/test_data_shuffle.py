"""``unival data shuffle``: the order of training, whatever the memory, and no half file whatever happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from commands import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unival_cli import data_shuffle
from unival_cli.data_shuffle import Parts, shuffle_rows
from unival_cli.main import main
from unival_plugin.data.batching import row_order
from unival_plugin.data.tsv import TsvTable
from unival_plugin.errors import DataError


def in_order_of_training(path: Path, seed: int, epoch: int) -> bytes:
    """All rows, read one by one."""
    table = TsvTable(path)
    rows = row_order(len(table), seed, epoch, shuffle=True).tolist()
    return b"".join(table.line(row).rstrip(b"\r") + b"\n" for row in rows)


line = st.tuples(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"")), st.sampled_from([b"\n", b"\r\n"]))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lines=st.lists(line, min_size=1, max_size=40),
    last_end=st.booleans(),
    mark=st.booleans(),
    memory=st.sampled_from([1, 300, 1000, 10**6]),
    epoch=st.integers(1, 4),
)
def test_the_order_is_that_of_training_in_any_memory(
    tmp_path: Path, lines: list[tuple[bytes, bytes]], last_end: bool, mark: bool, memory: int, epoch: int
) -> None:
    content = b"".join(text + end for text, end in lines)
    content = b"\xef\xbb\xbf" * mark + (content if last_end else content.rstrip(b"\r\n") + b"x")
    source, output = tmp_path / "rows.tsv", tmp_path / "out.tsv"
    source.write_bytes(content)
    source.with_name("rows.tsv.idx").unlink(missing_ok=True)
    assert shuffle_rows(source, output, 3, epoch, True, memory) == len(TsvTable(source))
    assert output.read_bytes() == in_order_of_training(source, 3, epoch)
    assert {path.name for path in tmp_path.iterdir()} == {"rows.tsv", "rows.tsv.idx", "out.tsv"}


def test_pieces_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_shuffle, "_ROWS_AT_A_TIME", 7)
    source, output = tmp_path / "rows.tsv", tmp_path / "out.tsv"
    source.write_bytes(b"".join(b"%d\t%s\r\n" % (i, b"x" * (i * 37 % 101)) for i in range(500)))
    for memory in (500, 5000, 10**6):
        shuffle_rows(source, output, 1, 1, True, memory)
        assert output.read_bytes() == in_order_of_training(source, 1, 1)


def test_parts_take_no_more_than_their_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(b"".join(b"x" * (i * 37 % 101) + b"\n" for i in range(1000)))
    offsets = TsvTable(path).offsets
    parts = Parts(row_order(1000, 1, 1, shuffle=True), offsets, 3000)
    sizes = [parts.lengths(part) for part in range(len(parts))]
    assert sum(map(len, sizes)) == 1000 and len(parts) > 30
    assert all(size.sum() + data_shuffle._ROW_COST * len(size) <= 3000 for size in sizes)
    assert min(size.sum() + data_shuffle._ROW_COST * len(size) for size in sizes[:-1]) > 2500


def test_copies_have_the_orders_of_the_epochs(tmp_path: Path) -> None:
    source = tmp_path / "rows.tsv"
    source.write_bytes(b"".join(b"%d\n" % i for i in range(100)))
    assert main(["data", "shuffle", str(source), str(tmp_path / "o.tsv"), "--seed", "5", "--copies", "3"]) == 0
    for epoch in (1, 2, 3):
        assert (tmp_path / f"o_{epoch}.tsv").read_bytes() == in_order_of_training(source, 5, epoch)


def test_a_full_disk_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.tsv"
    source.write_bytes(b"a\nb\n" * 1000)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 9999, 9999))
    assert main(["data", "shuffle", str(source), str(tmp_path / "o.tsv"), "--copies", "3"]) == 2
    assert "are needed for 3 shuffled file(s)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.tsv"]
    assert main(["data", "shuffle", str(source), str(tmp_path / "o.tsv"), "--copies", "2"]) == 0


def test_a_wrong_index_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "rows.tsv"
    source.write_bytes(b"aa\nbb\ncc\n")
    assert len(TsvTable(source)) == 3
    index = bytearray((tmp_path / "rows.tsv.idx").read_bytes())
    index[-16] += 1  # where row 2 starts
    (tmp_path / "rows.tsv.idx").write_bytes(index)
    for memory in (1, 10**6):
        with pytest.raises(DataError, match=r"rows\.tsv\.idx does not fit .*rows\.tsv: delete it"):
            shuffle_rows(source, tmp_path / "o.tsv", 1, 1, memory=memory)
    assert not (tmp_path / "o.tsv").exists()


@pytest.mark.parametrize("flags", [["--memory", "0"], ["--copies", "0"]])
def test_impossible_flags_are_user_errors(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.tsv").write_bytes(b"a\n")
    assert main(["data", "shuffle", str(tmp_path / "rows.tsv"), str(tmp_path / "o.tsv"), *flags]) == 2
    assert "at least 1" in capsys.readouterr().err


def test_a_job_that_is_ended_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_bytes(b"".join(b"%d\n" % i for i in range(100)))
    driver = (
        "import os, signal, sys; from unival_cli import data_shuffle; from unival_cli.main import main\n"
        "data_shuffle._write = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(main(['data', 'shuffle', 'rows.tsv', 'out.tsv']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", driver], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 130
    assert {path.name for path in tmp_path.iterdir()} == {"rows.tsv", "rows.tsv.idx"}
