"""``unival data validate`` for rows whose pictures are codes: rows of two, three and four columns, and every defect."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from unival_cli.main import main

CODES = " ".join(str(number * 31 % 64) for number in range(64))
SQUARES = {4: "0 1 2 3", 16: " ".join(["5"] * 16)}
WITH_PICTURE = ["--selected-cols", "0,1,2,3"]

Outcome = tuple[int, dict[str, str], str]
Validate = Callable[..., Outcome]


def _picture() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 10, 10)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE = _picture()


def row(number: int = 1, caption: str = "a three above a seven", codes: str = CODES) -> list[str]:
    """As dataset_tools/encode_pictures.py writes it."""
    return [str(number), codes, caption]


def with_picture(
    number: int = 1, image: str = PICTURE, caption: str = "a three above a seven", codes: str = CODES
) -> list[str]:
    return [str(number), image, caption, codes]


@pytest.fixture
def validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Validate:
    """Checks rows of one file; gives exit status, reasons by "row:column" and all that was printed."""

    def run(rows: Sequence[Sequence[str]], *flags: str) -> Outcome:
        path = tmp_path / "rows.tsv"
        path.write_text("".join("\t".join(cells) + "\n" for cells in rows))
        status = main(["data", "validate", str(path), "--task", "image_gen", *flags])
        text = capsys.readouterr().out
        found = [line.removeprefix(f"{path}:") for line in text.splitlines() if line.startswith(f"{path}:")]
        return status, dict(line.split(": ", 1) for line in found if not line.startswith(" ")), text

    return run


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a mistake in the command gives."""
    assert main(["data", "validate", *arguments]) == 2
    return capsys.readouterr().err


# ---- good rows


@pytest.mark.parametrize("workers", ["1", "2"])
def test_good_rows_pass(validate: Validate, workers: str) -> None:
    status, faults, text = validate([row(number) for number in range(150)], "--workers", workers)
    assert (status, faults) == (0, {})
    assert "150 rows checked, 0 bad" in text and "words a caption:" in text
    assert "codes a row:           64 to 64" in text and "different codes a row: 64 to 64" in text


def test_a_file_may_have_captions_only(validate: Validate) -> None:
    status, faults, text = validate([["1", "a three"], ["2", "a seven"]], "--selected-cols", "0,1")
    assert (status, faults) == (0, {}) and "codes" not in text


def test_rows_may_show_their_picture_beside_its_codes(validate: Validate) -> None:
    status, faults, text = validate([with_picture(1), with_picture(2)], *WITH_PICTURE)
    assert (status, faults) == (0, {}) and "picture width" in text and "codes a row" in text


def test_pictures_may_be_paths(validate: Validate, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(base64.b64decode(PICTURE))
    rows = [with_picture(1, "a.png"), with_picture(2, "gone.png")]
    status, faults, _ = validate(rows, *WITH_PICTURE, "--read-from-img-path", "--image-dir", str(tmp_path))
    assert status == 1 and list(faults) == ["2:1"] and "gone.png" in faults["2:1"]


def test_a_single_code_is_a_picture(validate: Validate) -> None:
    assert validate([row(codes="8191")], "--code-image-size", "8")[0] == 0


# ---- codes


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ("", "codes is empty"),
        ("  ", "codes is empty"),
        (CODES.replace("31", "x"), "code 2 of 64 is 'x', not a number from 0 to 8191"),
        (CODES.replace("31", "-31"), "code 2 of 64 is '-31'"),
        (CODES.replace("31", "3.0"), "code 2 of 64 is '3.0'"),
        (CODES.replace("31", "1_0"), "code 2 of 64 is '1_0'"),
        (CODES.replace("31", "²"), "code 2 of 64 is '²'"),
        (CODES.replace("31", "8192"), "code 2 of 64 is '8192'"),
        (CODES.replace("31", "9" * 5000), "give the number of its tokenizer's codes as --code-dict-size"),
        (CODES.replace(" ", ","), "code 1 of 1 is '0,31,62"),
        (CODES.rpartition(" ")[0], "63 codes are no square"),
        (CODES + " 7", "65 codes are no square"),
    ],
)
def test_defects_of_codes(validate: Validate, codes: str, message: str) -> None:
    status, faults, text = validate([row(0), row(1, codes=codes)])
    assert status == 1 and list(faults) == ["2:1"]
    assert message in faults["2:1"] and "2 rows checked, 1 bad" in text


def test_the_size_of_the_code_book_is_a_setting(validate: Validate) -> None:
    assert validate([row()], "--code-dict-size", "64")[0] == 0
    status, faults, _ = validate([row()], "--code-dict-size", "63")
    assert status == 1 and "is '63', not a number from 0 to 62" in faults["1:1"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_all_rows_have_as_many_codes_as_the_first_good_one(validate: Validate, workers: str, tmp_path: Path) -> None:
    rows = [row(0, codes="1 2 3"), row(1), row(2, codes=SQUARES[16]), *map(row, range(3, 200)), row(200, codes="4")]
    status, faults, _ = validate(rows, "--workers", workers)
    assert status == 1 and list(faults) == ["1:1", "3:1", "201:1"]
    assert "3 codes are no square" in faults["1:1"]
    assert faults["3:1"].startswith(f"16 codes, but row 2 of {tmp_path / 'rows.tsv'} has 64")


def test_files_are_compared_with_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.tsv", tmp_path / "b.tsv"]
    for file, codes in zip(files, SQUARES.values(), strict=True):
        file.write_text("\t".join(row(codes=codes)) + "\n")
    assert main(["data", "validate", *map(str, files), "--task", "image_gen"]) == 1
    text = capsys.readouterr().out
    assert f"{files[1]}:1:1: 16 codes, but row 1 of {files[0]} has 4" in text and f"{files[0]}:1:1" not in text


def test_the_side_of_the_pictures_tells_how_many_codes(validate: Validate) -> None:
    assert validate([row()], "--code-image-size", "64")[0] == 0
    rows = [row(1, codes=SQUARES[4]), row(2)]
    status, faults, _ = validate(rows, "--code-image-size", "64")
    assert status == 1 and list(faults) == ["1:1"]
    assert faults["1:1"].startswith("4 codes, but a picture of --code-image-size 64 has 64")


def test_the_last_of_four_columns_is_checked_alike(validate: Validate) -> None:
    rows = [with_picture(1), with_picture(2, codes=SQUARES[4])]
    status, faults, _ = validate(rows, *WITH_PICTURE)
    assert status == 1 and list(faults) == ["2:3"] and "4 codes" in faults["2:3"]


# ---- other cells


@pytest.mark.parametrize(
    ("cells", "place", "message"),
    [
        (row(1, caption=""), "2:2", "caption is empty"),
        (row(1, caption=" .. "), "2:2", "has no word"),
        (["", CODES, "a three"], "2:0", "id is empty"),
        (["1", CODES], "2", "has 2 columns"),
    ],
)
def test_defects_of_captions_and_rows(validate: Validate, cells: list[str], place: str, message: str) -> None:
    status, faults, _ = validate([row(0), cells])
    assert status == 1 and list(faults) == [place] and message in faults[place]


@pytest.mark.parametrize(
    ("image", "message"), [("", "image is empty"), ("none", "not a picture"), (PICTURE[:40], "not a picture")]
)
def test_a_picture_must_decode(validate: Validate, image: str, message: str) -> None:
    status, faults, _ = validate([with_picture(1), with_picture(2, image)], *WITH_PICTURE)
    assert status == 1 and list(faults) == ["2:1"] and message in faults["2:1"]


@pytest.mark.parametrize(
    ("rows", "flags"),
    [
        ([row(1), row(1, "a seven"), row(1)], []),
        ([["1", "a three"], ["1", "a seven"], ["1", "a three"]], ["--selected-cols", "0,1"]),
        ([with_picture(1), with_picture(1, caption="a seven"), with_picture(1)], WITH_PICTURE),
    ],
)
def test_a_picture_may_come_again_with_another_caption_only(
    validate: Validate, rows: list[list[str]], flags: list[str]
) -> None:
    status, faults, _ = validate(rows, *flags)
    assert (status, faults) == (1, {"3:0": "id '1' with the same caption is also in row 1: remove one of them"})


# ---- mistakes in the command


def test_other_numbers_of_columns_are_refused_with_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    error = mistake(capsys, "x.tsv", "--task", "image_gen", "--selected-cols", "0,1,2,3,4")
    assert "--selected-cols needs 2 or 3 or 4 columns for image_gen" in error
    assert "id, caption, codes" in error and "id, image, caption, codes" in error


@pytest.mark.parametrize(
    "arguments", [["--task", "caption"], ["--task", "image_gen", "--selected-cols", "0,1"]], ids=["caption", "no codes"]
)
@pytest.mark.parametrize("flag", ["--code-dict-size", "--code-image-size"])
def test_flags_of_codes_need_codes(capsys: pytest.CaptureFixture[str], arguments: list[str], flag: str) -> None:
    assert "are for columns with codes: leave them out" in mistake(capsys, "x.tsv", *arguments, flag, "64")


@pytest.mark.parametrize("side", ["0", "-8", "12"])
def test_the_side_must_be_one_that_codes_span(capsys: pytest.CaptureFixture[str], side: str) -> None:
    error = mistake(capsys, "x.tsv", "--task", "image_gen", "--code-image-size", side)
    assert f"--code-image-size {side} is no multiple of 8" in error


def test_there_must_be_codes_in_the_book(capsys: pytest.CaptureFixture[str]) -> None:
    error = mistake(capsys, "x.tsv", "--task", "image_gen", "--code-dict-size", "0")
    assert "--code-dict-size must be at least 1" in error


def test_missing_and_empty_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.tsv"
    empty.touch()
    assert f"{empty} is empty" in mistake(capsys, str(empty), "--task", "image_gen")
    assert "gone.tsv" in mistake(capsys, str(tmp_path / "gone.tsv"), "--task", "image_gen")


def test_help_names_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "validate", "--help"])
    text = capsys.readouterr().out
    assert "image_gen: id, caption, codes (usual --selected-cols: 0,2,1); or id, caption (usual" in text
