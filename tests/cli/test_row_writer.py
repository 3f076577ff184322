"""Records into tables: cells, order, missing and unusable files, going on after a stop."""

from __future__ import annotations

import base64
import errno
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unival_cli import row_writer
from unival_cli.light import light
from unival_cli.row_writer import SHOWN_BAD_ROWS, LeftOut, Medium, Packed, Record, Summary, clean_text, write_rows

ROOT = Path(__file__).resolve().parents[2]


def picture(shade: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (shade % 256, shade // 256, 7)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures 0.png ... 11.png."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.png").write_bytes(picture(number))
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "rows.tsv"


def record(folder: Path, number: int, name: str | None = None, text: str = "a cat") -> Record:
    name = name or f"{number}.png"
    return Record((str(number), text, Medium(folder / name, name)), f"captions.json:{number}")


def cells_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def left_behind(output: Path) -> set[str]:
    return {path.name for path in output.parent.iterdir()} - {output.name, "pictures"}


# ---- cells


def test_texts_are_cleaned_and_files_become_base64(folder, output):
    summary = write_rows(output, [record(folder, 3, text=" a\tblack\r\ncat  ")], inputs={})
    assert cells_of(output) == [["3", "a black cat", base64.b64encode(picture(3)).decode()]]
    assert summary == Summary(rows=1, bad=0, bytes=output.stat().st_size, media=1) and left_behind(output) == set()


def test_paths_stand_in_the_rows_on_request(folder, output):
    write_rows(output, [record(folder, 3)], inputs={}, paths=True)
    assert cells_of(output) == [["3", "a cat", "3.png"]]


def test_any_file_may_be_named_by_its_path(folder, output):
    (folder / "film.mp4").write_bytes(b"no picture")
    write_rows(output, [record(folder, 1, "film.mp4")], inputs={}, paths=True, media="films")
    assert cells_of(output)[0][2] == "film.mp4"


def test_members_of_archives_are_read_in_place(tmp_path, output):
    archive = tmp_path / "shard.tar"
    with tarfile.open(archive, "w") as tar:
        for number in range(3):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(picture(number))
            tar.addfile(member, io.BytesIO(picture(number)))
    with tarfile.open(archive) as tar:
        packed = [Packed(archive, member.offset_data, member.size, member.name) for member in tar]
    summary = write_rows(output, [Record((cell.cell, cell), "shard.tar") for cell in packed], inputs={})
    assert [base64.b64decode(cells[1]) for cells in cells_of(output)] == [picture(number) for number in range(3)]
    assert summary.media == 3


def test_rows_keep_their_order_with_any_number_of_threads(folder, output):
    records = [record(folder, number % 12, text=f"caption {number}") for number in range(200)]
    contents = set()
    for workers in (1, 5):
        summary = write_rows(output, records, inputs={}, workers=workers, overwrite=True)
        contents.add(output.read_bytes())
        assert (summary.rows, summary.media) == (200, 12)
    assert len(contents) == 1 and [cells[1] for cells in cells_of(output)] == [f"caption {n}" for n in range(200)]


def test_what_gives_no_row_is_counted_by_reason(folder, output):
    records = [record(folder, 1), LeftOut("without a label"), record(folder, 2), LeftOut("without a label")]
    summary = write_rows(output, records, inputs={})
    assert summary.rows == 2 and summary.bad == 0 and summary.left_out == {"without a label": 2}


def test_records_may_be_made_anew_at_each_pass(folder, output):
    summary = write_rows(output, lambda: (record(folder, number) for number in range(5)), inputs={})
    assert summary.rows == 5


def test_an_iterator_is_refused_because_it_can_be_used_once_only(folder, output):
    with pytest.raises(TypeError, match="gone through twice"):
        write_rows(output, iter([record(folder, 1)]), inputs={})


def test_few_records_are_held_in_memory(folder, output):
    given_out: list[int] = []

    def records() -> Iterator[Record]:
        given_out.clear()
        for number in range(500):
            given_out.append(number)
            yield record(folder, number % 12)

    class Watched(row_writer._RowReader):
        def __call__(self, item):
            assert len(given_out) <= finished + 12
            return super().__call__(item)

    finished = 0
    original = row_writer._Writer._write

    def write(self, line, handle, state):
        nonlocal finished
        finished += 1
        original(self, line, handle, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_writer, "_RowReader", Watched)
        patch.setattr(row_writer._Writer, "_write", write)
        write_rows(output, records, inputs={}, workers=2)
    assert finished == 500


@given(st.text())
def test_cleaned_texts_have_no_mark_that_breaks_a_row(text):
    cleaned = clean_text(text)
    assert not set(cleaned) & set("\t\r\n\x0b\x0c\x85\u2028") and cleaned == cleaned.strip()
    assert cleaned.split() == text.split()


def test_different_files_are_counted_also_when_they_return_later(monkeypatch):
    counter = row_writer._Distinct()
    for name in "aabbaca":
        counter.add(name)
    assert counter.count == 3
    monkeypatch.setattr(row_writer, "NAMES_KEPT", 3)
    for name in "ddacee":
        counter.add(name)
    assert counter.count == 5


# ---- files that cannot be used


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(light("errors").DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_files_are_found_before_anything_is_written(folder, output):
    records = [record(folder, number) for number in range(12)]
    records += [record(folder, number, f"gone/{number % 3}.png") for number in range(6)]
    message = refusal(lambda: write_rows(output, records, inputs={}))
    assert message.startswith(f"3 of 15 pictures are missing, e.g. {folder}/gone/0.png (captions.json:0)")
    assert left_behind(output) == set() and not output.exists()


def test_rows_with_missing_files_can_be_left_out(folder, output, capsys):
    records = [record(folder, 0), record(folder, 1, "gone.png"), record(folder, 2)]
    for paths in (False, True):
        summary = write_rows(output, records, inputs={}, on_bad="skip", paths=paths, overwrite=True)
        assert (summary.rows, summary.bad, summary.media) == (2, 1, 2)
        assert [cells[0] for cells in cells_of(output)] == ["0", "2"]
        shown = capsys.readouterr().err
        assert shown.count("row left out") == 1 and "captions.json:1" in shown and "gone.png" in shown


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n%%EndComments\n"
BAD_FILES = [(b"", "is empty"), (b"GIF?", "is no picture"), (EPS, "is a picture in a format that is not")]


@pytest.mark.parametrize(("content", "reason"), BAD_FILES)
def test_files_that_are_no_pictures_stop_with_their_place(folder, output, content, reason):
    (folder / "1.png").write_bytes(content)
    message = refusal(lambda: write_rows(output, [record(folder, 1)], inputs={}))
    assert message.startswith(f"captions.json:1: {folder}/1.png {reason}") and not output.exists()


def test_formats_that_the_package_does_not_read_are_no_pictures(folder, output, monkeypatch):
    monkeypatch.setattr(light("data.picture_cells"), "FORMATS", ("JPEG", "BMP"))
    message = refusal(lambda: write_rows(output, [record(folder, 1)], inputs={}))
    assert "is a picture in a format that is not read (PNG)" in message


def test_a_missing_file_is_named_with_the_one_that_has_nearly_its_name(folder, output):
    message = refusal(lambda: write_rows(output, [record(folder, 1, "1.PNG")], inputs={}))
    assert f"e.g. {folder}/1.PNG (captions.json:1), but there is {folder}/1.png: correct the paths" in message


def test_a_decompression_bomb_is_refused_by_its_header(folder, output, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    assert "too many pixels" in refusal(lambda: write_rows(output, [record(folder, 1)], inputs={}))


def test_an_archive_that_was_cut_is_named(tmp_path, output):
    (tmp_path / "shard.tar").write_bytes(picture(1))
    cut = Packed(tmp_path / "shard.tar", 0, 10_000, "a.png")
    assert "a.png in" in refusal(lambda: write_rows(output, [Record((cut,), "shard.tar")], inputs={}))


def test_members_of_archives_have_no_path(tmp_path, output):
    (tmp_path / "shard.tar").write_bytes(picture(1))
    packed = Record((Packed(tmp_path / "shard.tar", 0, 10, "a.png"),), "shard.tar")
    assert "unpack it" in refusal(lambda: write_rows(output, [packed], inputs={}, paths=True))


def test_a_path_that_would_break_the_row_is_named(folder, output):
    (folder / "a\tb.png").write_bytes(picture(1))
    assert "a\\tb.png" in refusal(lambda: write_rows(output, [record(folder, 1, "a\tb.png")], inputs={}, paths=True))


def test_half_of_a_surrogate_pair_is_named(folder, output):
    assert "captions.json:1: 'a \\udc00'" in refusal(
        lambda: write_rows(output, [record(folder, 1, text="a \udc00")], inputs={})
    )


def test_only_the_first_bad_rows_are_named(folder, output, capsys):
    records = [record(folder, 0), *[record(folder, n, f"gone{n}.png") for n in range(SHOWN_BAD_ROWS + 5)]]
    assert write_rows(output, records, inputs={}, on_bad="skip").bad == SHOWN_BAD_ROWS + 5
    assert capsys.readouterr().err.count("row left out") == SHOWN_BAD_ROWS


@pytest.mark.parametrize("records", [[], [LeftOut("no label")]])
def test_a_table_without_rows_is_an_error(output, records):
    assert "would have no rows" in refusal(lambda: write_rows(output, records, inputs={}))
    assert left_behind(output) == set() and not output.exists()


def test_an_output_is_not_replaced_unasked(folder, output):
    write_rows(output, [record(folder, 1)], inputs={})
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_rows(output, [record(folder, 2)], inputs={})
    write_rows(output, [record(folder, 2)], inputs={}, overwrite=True)
    assert cells_of(output)[0][0] == "2"


def test_a_full_disk_is_one_line_and_what_is_written_counts(folder, output, monkeypatch):
    original, left = row_writer._Writer._write, 5

    def write(self, line, handle, state):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self, line, handle, state)

    records = [record(folder, number) for number in range(12)]
    monkeypatch.setattr(row_writer._Writer, "_write", write)
    message = refusal(lambda: write_rows(output, records, inputs={}))
    assert f"{output} cannot be written (No space left on device)" in message
    left = 7
    assert write_rows(output, records, inputs={}).rows == 12


def test_a_file_that_may_not_grow_is_continued_with_equal_bytes(output):
    script = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from unival_cli import row_writer
from unival_cli.row_writer import Record, write_rows
row_writer.NOTE_SECONDS = 0.0
if sys.argv[1] == "limited":
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_001, 200_001))
try:
    write_rows(Path({str(output)!r}), [Record((str(i), "x" * 100), "a") for i in range(3000)], inputs={{}})
except ValueError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    said = subprocess.run([*command, "limited"], check=True, capture_output=True, text=True).stdout
    assert "cannot be written (File too large)" in said and said.count("\n") == 1 and not output.exists()
    assert output.with_name(".rows.tsv.part.json").exists()
    subprocess.run([*command, "free"], check=True, capture_output=True)
    assert output.read_text() == "".join(f"{i}\t{'x' * 100}\n" for i in range(3000))


# ---- going on


class Stop(Exception):
    """What stops a writer."""


def stopping(records: list[Record], at: int) -> Callable[[], Iterator[Record]]:
    """Records whose second pass, the one that writes, is stopped at this one."""
    passes = 0

    def start() -> Iterator[Record]:
        nonlocal passes
        passes += 1
        for number, item in enumerate(records):
            if passes == 2 and number == at:
                raise Stop
            yield item

    return start


def test_a_stopped_call_goes_on_and_the_bytes_are_the_same(folder, output):
    records: list[Record] = [record(folder, number % 12, text=f"caption {number}") for number in range(60)]
    records[2:2] = [LeftOut("no label"), record(folder, 5, "gone.png")]
    write_rows(output, records, inputs={"a": [1]}, on_bad="skip")
    whole = output.read_bytes()
    output.unlink()
    for at in (1, 17, 40):
        with pytest.raises(Stop):
            write_rows(output, stopping(records, at), inputs={"a": (1,)}, workers=2, on_bad="skip")
        assert not output.exists()
    assert left_behind(output) == {".rows.tsv.part", ".rows.tsv.part.json"}
    summary = write_rows(output, records, inputs={"a": (1,)}, on_bad="skip")
    assert output.read_bytes() == whole and left_behind(output) == set()
    assert summary == Summary(60, 1, len(whole), 12, {"no label": 1})


def test_other_inputs_start_anew(folder, output, capsys):
    records = [record(folder, number) for number in range(12)]
    for inputs, paths in (({"a": 2}, False), ({"a": 1}, True)):
        with pytest.raises(Stop):
            write_rows(output, stopping(records, 11), inputs={"a": 1})
        write_rows(output, records, inputs=inputs, paths=paths)
        assert "is started anew" in capsys.readouterr().err and len(cells_of(output)) == 12
        output.unlink()


def test_rows_that_an_earlier_call_left_out_are_asked_for_again(folder, output):
    records = [record(folder, 0), record(folder, 1), *[record(folder, 2)] * 20]
    (folder / "1.png").write_bytes(b"no picture")
    with pytest.raises(Stop):
        write_rows(output, stopping(records, 15), inputs={}, on_bad="skip")
    (folder / "1.png").write_bytes(picture(1))
    assert write_rows(output, records, inputs={}).rows == 22
    assert cells_of(output)[1][0] == "1"


def test_a_killed_process_goes_on_with_equal_bytes(folder, output):
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from unival_cli import row_writer
from unival_cli.row_writer import Medium, Record, write_rows
row_writer.NOTE_SECONDS = 0.0
passes = 0
def records():
    global passes
    passes += 1
    for number in range(300):
        if passes == 2 and number == 150 and sys.argv[1] == "wait":
            time.sleep(60)
        yield Record((str(number), Medium(Path({str(folder)!r}) / f"{{number % 12}}.png", "")), "x")
write_rows(Path({str(output)!r}), records, inputs={{}}, workers=2, overwrite=True)
"""
    command = [sys.executable, "-c", script]
    subprocess.run([*command, "go"], check=True, capture_output=True)
    whole = output.read_bytes()
    output.unlink()
    with subprocess.Popen([*command, "wait"], stderr=subprocess.DEVNULL) as process:
        note, deadline = output.with_name(".rows.tsv.part.json"), time.monotonic() + 30
        while not (note.exists() and '"rows": 14' in note.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not output.exists() and note.exists()
    subprocess.run([*command, "go"], check=True, capture_output=True)
    assert output.read_bytes() == whole
