"""Rows with pictures into rows with codes: which codes, captions, bad rows, going on after a stop."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import encode_pictures
import numpy as np
import pytest
import torch
from encode_pictures import SHOWN_BAD_ROWS, TOOL, main
from PIL import Image
from tokenizer_training import Plan, new_tokenizer

from unival_cli.light import light

SIZE = 16
Table = Callable[..., Path]


def png(seed: int, width: int = SIZE, height: int = SIZE) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def cell(seed: int, **size: int) -> str:
    return base64.b64encode(png(seed, **size)).decode("ascii")


def row(number: int, caption: str = "a three") -> list[str]:
    return [f"id{number}", cell(number), caption]


@pytest.fixture(scope="module")
def tokenizer_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An untrained tokenizer: different pictures have different codes all the same."""
    folder = tmp_path_factory.mktemp("tokenizer")
    files = folder / "last.ckpt", folder / "model.yaml"
    torch.manual_seed(3)
    light("checkpoints.image_tokenizer").write_image_tokenizer(
        new_tokenizer(Plan(image_size=SIZE, code_dict_size=64)), *files
    )
    return files


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "codes.tsv"


@pytest.fixture
def table(tmp_path: Path) -> Table:
    def write(rows: Sequence[Sequence[str]], name: str = "rows.tsv") -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join("\t".join(cells).encode() + b"\n" for cells in rows))
        return path

    return write


@pytest.fixture
def run(output: Path, tokenizer_files: tuple[Path, Path]) -> Callable[..., int]:
    weights, config = tokenizer_files

    def call(path: Path, *flags: str, columns: str = "0,1,2") -> int:
        command = ["--tsv", str(path), "--selected-cols", columns, "--output", str(output), "--code-image-size"]
        command += [str(SIZE), "--vqgan-model-path", str(weights), "--vqgan-config-path", str(config)]
        return main([*command, "--batch-size", "2", "--num-workers", "2", "--device", "cpu", *flags])

    return call


def cells_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def left_behind(output: Path) -> set[str]:
    """Names in the folder but for the tables and the output."""
    return {path.name for path in output.parent.iterdir() if ".tsv" in path.name} - {
        output.name,
        "rows.tsv",
        "rows.tsv.idx",
    }


# ---- rows


def test_rows_are_id_codes_caption(run, table, output):
    assert run(table([row(1), row(2, "vier – fünf"), row(3)])) == 0
    rows = cells_of(output)
    assert [(cells[0], cells[2]) for cells in rows] == [("id1", "a three"), ("id2", "vier – fünf"), ("id3", "a three")]
    codes = [[int(code) for code in cells[1].split(" ")] for cells in rows]
    assert all(len(found) == (SIZE // 8) ** 2 and min(found) >= 0 and max(found) < 64 for found in codes)
    assert len({tuple(found) for found in codes}) > 1
    assert left_behind(output) == set()


def test_codes_are_the_tokenizers_for_the_picture_between_minus_one_and_one(run, table, output, tokenizer_files):
    assert run(table([row(5)])) == 0
    with Image.open(io.BytesIO(png(5))) as picture:
        pixels = torch.from_numpy(np.asarray(picture, np.float32) / 127.5 - 1).permute(2, 0, 1)
    tokenizer = light("checkpoints.image_tokenizer").read_image_tokenizer(*tokenizer_files)
    with torch.inference_mode():
        wanted = tokenizer.eval().encode(pixels[None])[0]
    assert cells_of(output)[0][1] == " ".join(str(code) for code in wanted.flatten().tolist())


def test_pictures_are_resized_to_the_square(run, table, output):
    wide = ["a", cell(1, width=50, height=20), "x"]
    with Image.open(io.BytesIO(png(1, 50, 20))) as picture:
        buffer = io.BytesIO()
        picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(buffer, "PNG")
    square = ["b", base64.b64encode(buffer.getvalue()).decode(), "x"]
    assert run(table([wide, square])) == 0
    first, second = cells_of(output)
    assert first[1] == second[1]


def test_columns_may_stand_in_any_order_and_the_caption_is_optional(run, table, output):
    assert run(table([["x", cell(1), "id1"]]), columns="2,1") == 0
    assert [len(cells) for cells in cells_of(output)] == [2] and cells_of(output)[0][0] == "id1"


def test_each_of_several_captions_gives_a_row(run, table, output):
    assert run(table([row(1, "a three&& three ")])) == 0
    first, second = cells_of(output)
    assert first[:2] == second[:2] and (first[2], second[2]) == ("a three", "three")


def test_only_the_first_caption_on_request(run, table, output, capsys):
    assert run(table([row(1, "a three&&three"), row(2)]), "--captions", "first") == 0
    assert [cells[2] for cells in cells_of(output)] == ["a three", "a three"]
    assert "2 rows of 2 pictures" in capsys.readouterr().out


def test_pictures_may_be_files_below_a_folder(run, table, output, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "one.png").write_bytes(png(1))
    assert run(table([row(1)])) == 0
    from_cell = cells_of(output)
    flags = ["--read-from-img-path", "--image-dir", str(tmp_path / "pictures"), "--overwrite"]
    assert run(table([["id1", "one.png", "a three"]]), *flags) == 0
    assert cells_of(output) == from_cell


def test_flags_may_be_written_with_underscores(table, output, tokenizer_files):
    weights, config = map(str, tokenizer_files)
    flags = ["--vqgan_model_path", weights, "--vqgan_config_path", config, "--code_image_size", str(SIZE)]
    assert main(["--tsv", str(table([row(1)])), "--selected_cols", "0,1,2", "--output", str(output), *flags]) == 0


# ---- bad rows

BAD_ROWS = [
    (["id", "no base64 !", "x"], 1, ""),
    (["id", base64.b64encode(b"no picture").decode(), "x"], 1, "not a picture"),
    (["id", base64.b64encode(png(1)[:-30]).decode(), "x"], 1, "damaged"),
    (["id", "", "x"], 1, "empty"),
    (["id", cell(1), " "], 2, "caption"),
    (["id", cell(1), "a&&"], 2, "caption"),
    ([" ", cell(1), "a"], 0, "id is empty"),
]


@pytest.mark.parametrize(("bad", "column", "reason"), BAD_ROWS)
def test_a_bad_row_stops_with_its_place(run, table, output, capsys, bad, column, reason):
    path = table([row(1), bad])
    assert run(path) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{TOOL}: error: {path}:row 2, column {column}") and reason in error
    assert error.count("\n") == 1 and not output.exists() and left_behind(output) == set()


def test_bad_rows_can_be_left_out_and_are_counted(run, table, output, capsys):
    rows = [row(0), *(bad for bad, _, _ in BAD_ROWS), ["too", "few"], row(1), row(2)]
    assert run(table(rows), "--on-bad-row", "skip") == 0
    assert [cells[0] for cells in cells_of(output)] == ["id0", "id1", "id2"]
    shown = capsys.readouterr()
    assert f"3 rows of {len(rows)} pictures ({len(BAD_ROWS) + 1} bad ones left out)" in shown.out
    assert shown.err.count("row left out") == len(BAD_ROWS) + 1


def test_only_the_first_bad_rows_are_named(run, table, capsys):
    rows = [row(1), *[["id", "", "x"]] * (SHOWN_BAD_ROWS + 5)]
    assert run(table(rows), "--on-bad-row", "skip") == 0
    shown = capsys.readouterr()
    assert shown.err.count("row left out") == SHOWN_BAD_ROWS and f"({SHOWN_BAD_ROWS + 5} bad ones" in shown.out


def test_bad_rows_only_is_an_error(run, table, output, capsys):
    assert run(table([["id", "", "x"]]), "--on-bad-row", "skip") == 2
    assert "none of the rows can be used" in capsys.readouterr().err
    assert not output.exists() and left_behind(output) == set()


# ---- one-line errors


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith(f"{TOOL}: error: ") and error.count("\n") == 1
    return error


def test_a_missing_table_is_named(run, tmp_path, output, capsys):
    assert run(tmp_path / "none.tsv") == 2
    assert "none.tsv does not exist" in error_of(capsys) and not output.exists()


@pytest.mark.parametrize("content", [b"", b"1\t2\n"])
def test_unusable_tables_are_named_even_when_bad_rows_are_skipped(run, tmp_path, capsys, content):
    path = tmp_path / "rows.tsv"
    path.write_bytes(content)
    assert run(path, "--on-bad-row", "skip") == 2
    assert str(path) in error_of(capsys)


def test_a_size_that_the_codes_do_not_fit_is_refused(run, table, capsys):
    assert run(table([row(1)]), "--code-image-size", "20") == 2
    assert "--code-image-size 20 is no multiple of 8" in error_of(capsys)


@pytest.mark.parametrize("flag", ["--vqgan-model-path", "--vqgan-config-path"])
def test_missing_files_of_the_tokenizer_are_named(run, table, tmp_path, capsys, flag):
    assert run(table([row(1)]), flag, str(tmp_path / "missing")) == 2
    assert "missing" in error_of(capsys)


def test_an_unknown_device_is_named(run, table, capsys):
    assert run(table([row(1)]), "--device", "toaster") == 2
    assert "'toaster' is no device" in error_of(capsys)


def test_a_gpu_that_is_not_there_is_named(run, table, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert run(table([row(1)]), "--device", "cuda") == 2
    assert "there are 0 GPUs" in error_of(capsys)


@pytest.mark.parametrize("columns", ["0", "0,1,2,3", "0,a", "0,-1"])
def test_columns_must_be_two_or_three_numbers(run, table, capsys, columns):
    with pytest.raises(SystemExit):
        run(table([row(1)]), columns=columns)
    assert "is not two or three column numbers" in capsys.readouterr().err


# ---- the output


def test_an_output_is_not_replaced_unasked(run, table, output, capsys):
    assert run(table([row(1)])) == 0
    assert run(table([row(2)])) == 2
    assert "add --overwrite" in error_of(capsys) and cells_of(output)[0][0] == "id1"
    assert run(table([row(2)]), "--overwrite") == 0
    assert cells_of(output)[0][0] == "id2"


@pytest.fixture
def stopping(monkeypatch):
    """Stops the tool as a user does, when it is asked for the codes of this batch (from 0; -1: never)."""
    original = encode_pictures.Encoder.codes

    def arrange(batch: int) -> list[int]:
        read: list[int] = []

        def codes(self, pictures):
            if len(read) == batch:
                raise KeyboardInterrupt
            read.append(len(pictures))
            return original(self, pictures)

        monkeypatch.setattr(encode_pictures.Encoder, "codes", codes)
        return read

    return arrange


@pytest.fixture
def whole(run, table, output) -> tuple[Path, bytes]:
    """A table and what is written of it without a stop."""
    path = table([row(number, "a&&b" if number % 2 else "c") for number in range(7)])
    assert run(path) == 0
    content = output.read_bytes()
    output.unlink()
    return path, content


def test_a_stopped_tool_goes_on_where_it_was(run, whole, output, stopping):
    path, content = whole
    stopping(2)
    with pytest.raises(KeyboardInterrupt):
        run(path)
    assert not output.exists() and left_behind(output) == {".codes.tsv.part", ".codes.tsv.part.json"}
    read = stopping(-1)
    assert run(path) == 0
    assert read == [2, 1]
    assert output.read_bytes() == content and left_behind(output) == set()


def test_bytes_behind_the_noted_state_do_not_count(run, whole, output, stopping):
    path, content = whole
    stopping(2)
    with pytest.raises(KeyboardInterrupt):
        run(path)
    with (output.parent / ".codes.tsv.part").open("ab") as part:
        part.write(b"id5\t1 2")
    stopping(-1)
    assert run(path) == 0
    assert output.read_bytes() == content


def test_after_a_bad_row_the_rest_can_be_done_without_it(run, table, output, stopping):
    path = table([*(row(number) for number in range(4)), ["id", "", "x"], row(5)])
    assert run(path) == 2
    read = stopping(-1)
    assert run(path, "--on-bad-row", "skip") == 0
    assert read == [1] and len(cells_of(output)) == 5


@pytest.mark.parametrize("change", ["flags", "table", "state"])
def test_what_was_made_otherwise_is_started_anew(run, whole, table, output, stopping, capsys, change):
    path, content = whole
    stopping(2)
    with pytest.raises(KeyboardInterrupt):
        run(path)
    if change == "table":
        path.write_bytes(path.read_bytes().replace(b"id0", b"id9"))
        content = content.replace(b"id0", b"id9")
    elif change == "state":
        (output.parent / ".codes.tsv.part.json").write_text("{")
    read = stopping(-1)
    assert run(path, *(["--batch-size", "3"] if change == "flags" else [])) == 0
    assert sum(read) == 7 and "is started anew" in capsys.readouterr().err
    assert len(output.read_bytes()) == len(content) if change == "flags" else output.read_bytes() == content


def test_two_processes_do_not_write_the_same_output(run, table, output, capsys):
    import fcntl

    part = output.with_name(f".{output.name}.part")
    with part.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert run(table([row(1)])) == 2
    assert "is being written by another process" in error_of(capsys) and not output.exists()


def test_states_are_noted_while_it_runs(run, whole, output, stopping, monkeypatch):
    path, _ = whole
    monkeypatch.setattr(encode_pictures, "NOTE_SECONDS", 0.0)
    noted: list[int] = []
    original = encode_pictures.UnfinishedOutput.note
    monkeypatch.setattr(
        encode_pictures.UnfinishedOutput,
        "note",
        lambda self, handle, state: (original(self, handle, state), noted.append(state.rows)),
    )
    assert run(path) == 0
    assert noted == [2, 4, 6, 7]
