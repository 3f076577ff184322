"""``unival data validate`` finds every kind of defect, planted anywhere in files of a thousand rows."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
from PIL import Image

from unival_cli.data_report import DEFECTS
from unival_cli.data_schemas import FILE_COLUMNS, SCHEMAS
from unival_cli.main import main

ROWS = 1000

Row = list[bytes]
Change = Callable[[Row], None]
Place = tuple[int, Optional[int]]


def jpeg(side: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (200, 10, 10)).save(buffer, "JPEG")
    return buffer.getvalue()


def bomb(side: int) -> bytes:
    """A PNG whose header promises many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(99)), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


PICTURE = base64.b64encode(jpeg())


@dataclass(frozen=True)
class Defect:
    """Of ``kind``, found in column ``column`` (None: in the row as a whole) of a row that ``change`` damaged."""

    kind: str
    column: int | None
    change: Change


def cell(kind: str, column: int, content: bytes) -> Defect:
    """A cell with this content."""

    def change(row: Row) -> None:
        row[column] = content

    return Defect(kind, column, change)


def text_defects(column: int, needs_a_word: bool = True) -> list[Defect]:
    """What can be wrong with any text."""
    defects = [
        cell("empty cell", column, b""),
        cell("empty cell", column, b"  "),
        cell("not UTF-8", column, b"caf\xe9"),
        cell("mangled text", column, "a caf\ufffd".encode()),
        cell("mangled text", column, "a cafÃ©".encode()),
        cell("mangled text", column, "a donâ€™t".encode()),
        cell("mangled text", column, b"\xef\xbb\xbfthe next file"),
        cell("control character", column, b"a\0word"),
        cell("control character", column, b"a word\x1b[0m"),
        cell("control character", column, b"two\rlines"),
    ]
    if needs_a_word:
        defects += [
            cell("no word", column, b" ...!"),
            cell("overlong text", column, b"a word " * 1000),
            cell("overlong text", column, b"x" * 600),
        ]
    return defects


ROW_DEFECTS = [
    Defect("blank row", None, lambda row: row.__setitem__(slice(None), [b""])),
    Defect("blank row", None, lambda row: row.__setitem__(slice(None), [b"  "])),
    Defect("too few columns", None, lambda row: row.__delitem__(1)),
    Defect("too many columns", None, lambda row: row.insert(1, b"stray")),
    cell("empty cell", 0, b""),
    cell("not UTF-8", 0, b"\xff"),
    cell("control character", 0, b"1\x07"),
    cell("repeated id", 0, b"5"),
]


def picture_defects(column: int) -> list[Defect]:
    """What can be wrong with a picture in its cell."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    damaged = {"damaged picture": jpeg(64)[:-80], "not a picture": eps, "oversized picture": bomb(100_000)}
    return [
        *(cell(kind, column, base64.b64encode(data)) for kind, data in damaged.items()),
        cell("not a picture", column, base64.urlsafe_b64encode(b"<html>404</html>")),
        cell("not a picture", column, base64.b64encode(bomb(0))),
        cell("oversized picture", column, base64.b64encode(bomb(14_000))),
        cell("empty cell", column, b""),
        cell("not base64", column, PICTURE[:-1]),
        cell("not base64", column, "bild-ä".encode()),
        cell("not UTF-8", column, b"\x89PNG\xff"),
    ]


def file_defects(column: int) -> list[Defect]:
    """What can be wrong with a path."""
    return [
        cell("missing file", column, b"gone.jpg"),
        cell("missing file", column, b"."),
        cell("bad path", column, b"../outside.jpg"),
        cell("bad path", column, b"/etc/hostname"),
        cell("control character", column, b"a.jpg\0"),
        cell("empty cell", column, b""),
    ]


ANSWERS = [
    ("empty cell", b""),
    ("no answer", b"yes"),
    ("no answer", b"1.0|!+yes&&"),
    ("no answer", b"1.0|!+"),
    ("bad confidence", b"1.5|!+yes"),
    ("bad confidence", b"0|!+yes"),
    ("bad confidence", b"high|!+yes"),
    ("repeated answer", b"1.0|!+yes&&0.3|!+yes"),
    ("answer outside the set", b"1.0|!+perhaps"),
]
BOXES = [
    ("empty cell", b""),
    ("not a box", b"1,2,3"),
    ("not a box", b"1,2,x,4"),
    ("not a box", b"1,2,inf,4"),
    ("reversed box", b"9,2,1,10"),
    ("reversed box", b"1,10,9,2"),
    ("box without area", b"4,2,4,10"),
    ("box outside the picture", b"1,2,17,10"),
    ("box outside the picture", b"-1,2,9,10"),
]
LABELS = [("empty cell", b""), ("unknown label", b"yes"), ("unknown label", b"-")]
CODES = [
    ("empty cell", b""),
    ("bad code", b"1 2 3 x"),
    ("bad code", b"1 2 3 8192"),
    ("bad code", b"1 2 3 -4"),
    ("codes of no square", b"1 2 3"),
    ("wrong number of codes", b" ".join([b"7"] * 9)),
]


@dataclass(frozen=True)
class File:
    """A good row of a task, what can be wrong in its rows, and flags."""

    row: dict[str, bytes]
    defects: Sequence[Defect]
    flags: Sequence[str] = ()
    task: str = ""
    extra_rows: Sequence[Row] = field(default_factory=list)


FILES = {
    "caption": File(
        {"caption": b"a red square", "image": PICTURE},
        [*text_defects(2), cell("empty caption", 2, b"one&&&&three"), *picture_defects(4)],
    ),
    "caption of paths": File(
        {"caption": b"a red square&&a square", "image": b"good.jpg"},
        [*file_defects(4), cell("damaged picture", 4, b"cut.jpg"), cell("not a picture", 4, b"text.jpg")],
        ("--read-from-img-path", "--image-dir", "."),
        "caption",
    ),
    "vqa_gen": File(
        {"question": b"what is it?", "answers": b"1.0|!+yes&&0.3|!+no", "image": PICTURE},
        [*text_defects(2), *(cell(kind, 3, text) for kind, text in ANSWERS), *picture_defects(5)],
        ("--answers", "answers.txt"),
    ),
    "refcoco": File(
        {"expression": b"the box", "box": b"1.5,2,9,10.25", "image": PICTURE},
        [*text_defects(2), *(cell(kind, 3, text) for kind, text in BOXES), *picture_defects(4)],
    ),
    "snli_ve": File(
        {"hypothesis": b"it is red", "label": b"neutral", "image": PICTURE},
        [*text_defects(3), *(cell(kind, 5, text) for kind, text in LABELS), *picture_defects(2)],
    ),
    "image_gen": File(
        {"caption": b"a three", "codes": b"1 2 3 8191"},
        [*text_defects(2), *(cell(kind, 1, text) for kind, text in CODES)],
        ("--code-image-size", "16"),
    ),
}


def good_rows(name: str) -> list[Row]:
    file = FILES[name]
    columns = FILE_COLUMNS[file.task or name]
    return [[str(number).encode(), *(file.row.get(column, b"") for column in columns[1:])] for number in range(ROWS)]


def plant(name: str) -> tuple[bytes, dict[Place, str]]:
    """A file with all defects, each in a row of its own; where they are, in the order of the rows."""
    rows, planted = good_rows(name), {}
    defects = [*ROW_DEFECTS, *FILES[name].defects]
    # From row 10 on: the rows before tell how many columns are usual, and one has the id that is repeated.
    for row, defect in zip(random.Random(name).sample(range(10, ROWS - 1), len(defects)), defects, strict=True):
        defect.change(rows[row])
        planted[row + 1, defect.column] = defect.kind
    planted[ROWS, None] = "cut-off row"
    return b"\n".join(map(b"\t".join, [*rows[:-1], rows[-1][:-1]])), planted


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder with the files that rows and flags name."""
    monkeypatch.chdir(tmp_path)
    Path("good.jpg").write_bytes(jpeg())
    Path("cut.jpg").write_bytes(jpeg(64)[:-80])
    Path("text.jpg").write_text("<html>404</html>")
    Path("answers.txt").write_text("yes\nno\n")
    return tmp_path


def validate(name: str, *flags: str) -> int:
    file = FILES[name]
    return main(["data", "validate", "rows.tsv", "--task", file.task or name, *file.flags, *flags])


@pytest.mark.parametrize("name", FILES)
def test_every_planted_defect_is_found_and_nothing_else(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, planted = plant(name)
    assert len(planted) >= 16
    Path("rows.tsv").write_bytes(content)
    assert validate(name, "--report", "bad.jsonl", "--workers", "2" if name == "caption" else "1") == 1
    records = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    found = {(record["row"], record["column"]): record["kind"] for record in records}
    assert found == planted and len(records) == len(planted)
    assert {record["file"] for record in records} == {"rows.tsv"}
    lines = capsys.readouterr().out.splitlines()
    for record in records:
        place = f"{record['row']}" + (f":{record['column']}" if record["column"] is not None else "")
        assert f"rows.tsv:{place}: {record['reason']}" in lines
        what, _, remedy = record["reason"].rpartition(": ")
        assert what and remedy, f"no remedy in: {record['reason']}"
    assert f"rows.tsv: {ROWS} rows checked, {len(planted)} bad" in lines
    for kind in set(planted.values()):
        rows = [row for (row, _), its_kind in planted.items() if its_kind == kind]
        assert any(line.split() == [*f"{kind}: {len(rows)}, first in row {min(rows)}".split()] for line in lines)


@pytest.mark.parametrize("name", FILES)
def test_a_good_file_passes_with_statistics(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.tsv").write_bytes(b"".join(b"\t".join(row) + b"\n" for row in good_rows(name)[:200]))
    assert validate(name, "--report", "bad.jsonl") == 0
    text = capsys.readouterr().out
    assert "rows.tsv: 200 rows checked, 0 bad" in text and "median" in text and "first in row" not in text
    assert Path("bad.jsonl").read_bytes() == b""


def test_all_kinds_of_defects_are_planted_somewhere() -> None:
    planted = {kind for name in FILES for kind in plant(name)[1].values()}
    in_films_and_sounds = {"unreadable film", "unreadable sound", "unknown type"}
    assert planted | in_films_and_sounds == set(DEFECTS)


def test_films_sounds_and_types_have_kinds_too() -> None:
    pytest.importorskip("av")
    soundfile = pytest.importorskip("soundfile")
    soundfile.write("good.wav", np.zeros(4800), 48_000)
    rows = [
        [str(number), medium, "a text", "", "", "", "set", kind]
        for number, (medium, kind) in enumerate(
            [
                ("good.wav", "audio_caption"),
                ("text.jpg", "audio_caption"),
                ("gone.wav", "audio_caption"),
                ("text.jpg", "video_caption"),
                ("../film.mp4", "video_caption"),
                ("good.jpg", "sound"),
            ]
        )
    ]
    Path("rows.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    flags = ["--task", "unify_task", "--image-dir", ".", "--report", "bad.jsonl"]
    assert main(["data", "validate", "rows.tsv", *flags]) == 1
    found = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert [(record["row"], record["column"], record["kind"]) for record in found] == [
        (2, 1, "unreadable sound"),
        (3, 1, "missing file"),
        (4, 1, "unreadable film"),
        (5, 1, "bad path"),
        (6, 7, "unknown type"),
    ]


def test_file_columns_are_those_that_the_usual_selection_finds() -> None:
    for task, names in FILE_COLUMNS.items():
        schema = SCHEMAS[task]
        selected = [names[int(column)] for column in schema.selected_cols.split(",")]
        assert selected == [name for name, _ in schema.columns]
