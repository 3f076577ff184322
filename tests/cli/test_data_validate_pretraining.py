"""``unival data validate`` for rows of multitask pretraining, whose type says which cells they need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from commands import ROOT

from unival_cli.data_schemas import ROW_TYPES, SCHEMAS
from unival_cli.main import main
from unival_plugin.data.pretraining import COLUMNS, MEDIUM_OF_TYPE

pytest.importorskip("av")
pytest.importorskip("soundfile")

SIZES = {"train-rows": 3, "films": 2, "sounds": 2, "val-rows": 1, "test-rows": 1}
FILES = {"caption": 3, "image_text": 3, "qa": 3, "ground": 3, "video": 2, "audio": 2}
"""Names of the files of rows, and of how many pictures, films or sounds the rows are."""
KINDS = {"picture": "image", "film": "film", "sound": "sound"}

Rows = list[list[str]]
Outcome = tuple[int, dict[str, str], str]
Validate = Callable[..., Outcome]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of digits of all types."""
    output = tmp_path_factory.mktemp("pretraining") / "digits"
    sizes = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
    tasks = ",".join(f"pretrain_{name}" for name in FILES)
    command = [sys.executable, str(ROOT / "dataset_tools" / "digits.py"), "--output", str(output), "--tasks", tasks]
    subprocess.run([*command, *sizes], check=True, capture_output=True)
    return output


@pytest.fixture(scope="module")
def rows(folder: Path) -> Rows:
    """The rows of all training files."""
    paths = [folder / f"pretrain_{name}_train_1.tsv" for name in FILES]
    return [line.split("\t") for path in paths for line in path.read_text().splitlines()]


@pytest.fixture
def validate(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Validate:
    """Checks rows; gives exit status, reasons by "row:column" and all that was printed."""

    def run(rows: Sequence[Sequence[str]], *flags: str) -> Outcome:
        path = tmp_path / "rows.tsv"
        path.write_text("".join("\t".join(row) + "\n" for row in rows))
        status = main(["data", "validate", str(path), "--task", "unify_task", "--image-dir", str(folder), *flags])
        text = capsys.readouterr().out
        found = [line.removeprefix(f"{path}:") for line in text.splitlines() if line.startswith(f"{path}:")]
        return status, dict(line.split(": ", 1) for line in found if not line.startswith(" ")), text

    return run


def row_of(rows: Rows, kind: str, **cells: str) -> list[str]:
    """The first row of this type, with other cells."""
    row = next(row for row in rows if row[-1] == kind)
    return [cells.get(column, cell) for column, cell in zip(COLUMNS, row, strict=True)]


# ---- good rows


def test_the_types_and_cells_are_those_that_training_reads() -> None:
    assert {kind: KINDS[medium] for kind, medium in MEDIUM_OF_TYPE.items()} == {
        kind: columns[1][1] for kind, columns in ROW_TYPES.items()
    }
    columns = SCHEMAS["unify_task"].columns
    assert tuple(name for name, _ in columns) == COLUMNS
    assert SCHEMAS["unify_task"].selected_cols == ",".join(map(str, range(len(COLUMNS))))
    assert all(len(columns) == len(COLUMNS) for columns in ROW_TYPES.values())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_good_rows_of_all_types_pass(rows: Rows, validate: Validate, workers: str) -> None:
    status, faults, text = validate(rows, "--workers", workers)
    assert (status, faults) == (0, {})
    counts = [f"{kind} {sum(row[-1] == kind for row in rows)}" for kind in MEDIUM_OF_TYPE]
    (line,) = [line for line in text.splitlines() if line.startswith("  types: ")]
    assert sorted(line.removeprefix("  types: ").split(", ")) == sorted(counts)
    for name in ("words a caption", "words a question", "answers a row", "picture width", "film width", "sound length"):
        assert f"  {name}" in text


@pytest.mark.parametrize("kind", MEDIUM_OF_TYPE)
def test_cells_that_a_type_does_not_use_may_hold_anything(rows: Rows, validate: Validate, kind: str) -> None:
    unused = {name: "?" for name, (_, needed) in zip(COLUMNS, ROW_TYPES[kind], strict=True) if needed == "any"}
    assert {"objects", "dataset"} < set(unused)
    assert validate([row_of(rows, kind, **unused)])[:2] == (0, {})
    assert validate([row_of(rows, kind, **dict.fromkeys(unused, ""))])[:2] == (0, {})


def test_columns_may_stand_in_another_order(rows: Rows, validate: Validate) -> None:
    turned = [row[::-1] for row in rows]
    turned[0][-3] = ""
    status, faults, _ = validate(turned, "--selected-cols", "7,6,5,4,3,2,1,0")
    assert (status, faults) == (1, {"1:5": "caption is empty: fill in the cell or remove the row"})


# ---- defects


@pytest.mark.parametrize(
    ("kind", "cells", "column", "message"),
    [
        *[(kind, {"caption": ""}, 2, "caption is empty") for kind in MEDIUM_OF_TYPE if not kind.endswith("qa")],
        ("caption", {"caption": "..."}, 2, "has no word"),
        ("caption", {"medium": ""}, 1, "image is empty"),
        ("caption", {"medium": "no picture"}, 1, "not base64"),
        ("caption", {"id": ""}, 0, "id is empty"),
        ("qa", {"question": ""}, 3, "question is empty"),
        ("qa", {"question": "?"}, 3, "has no word"),
        ("qa", {"refs": ""}, 4, "answers is empty"),
        ("qa", {"refs": "yes"}, 4, "'yes' is no answer with its confidence"),
        ("qa", {"refs": "1.0|!+yes&&no"}, 4, "'no' is no answer with its confidence"),
        ("qa", {"refs": "nan|!+yes"}, 4, "confidence 'nan'"),
        ("qa", {"refs": "1.0|!+yes&&0.3|!+yes"}, 4, "stands twice"),
        ("visual_grounding", {"refs": ""}, 4, "box is empty"),
        ("visual_grounding", {"refs": "1.0|!+yes"}, 4, "is not four numbers"),
        ("visual_grounding", {"refs": "1,2,900,40"}, 4, "reaches outside the picture of 64 x 64"),
        ("visual_grounding", {"refs": "30,2,1,40"}, 4, "x0 30 not below x1 1"),
        ("visual_grounding", {"refs": "1,40,30,2"}, 4, "y0 40 not below y1 2"),
        ("visual_grounding", {"medium": "none", "refs": "1,2,900,40"}, 1, "not a picture"),
        ("video_caption", {"medium": ""}, 1, "film is empty"),
        ("video_caption", {"medium": "gone.mp4"}, 1, "gone.mp4"),
        ("video_caption", {"medium": "../gone.mp4"}, 1, "leaves the folder"),
        ("video_qa", {"medium": "gone.mp4"}, 1, "gone.mp4"),
        ("video_qa", {"question": ""}, 3, "question is empty"),
        ("video_qa", {"refs": "seven"}, 4, "'seven' is no answer with its confidence"),
        ("audio_caption", {"medium": ""}, 1, "sound is empty"),
        ("audio_caption", {"medium": "gone.flac"}, 1, "gone.flac"),
    ],
)
def test_defects_are_named(
    rows: Rows, validate: Validate, kind: str, cells: dict[str, str], column: int, message: str
) -> None:
    status, faults, text = validate([row_of(rows, kind, id="first"), row_of(rows, kind, **cells)])
    assert status == 1 and list(faults) == [f"2:{column}"]
    assert message in faults[f"2:{column}"] and "2 rows checked, 1 bad" in text


@pytest.mark.parametrize("kind", ["caption", "qa", "visual_grounding"])
def test_a_damaged_picture_is_named(rows: Rows, validate: Validate, kind: str) -> None:
    picture = row_of(rows, kind)[1]
    status, faults, _ = validate([row_of(rows, kind, medium=picture[: len(picture) // 8 * 4])])
    assert status == 1 and list(faults) == ["1:1"]


def test_damaged_films_and_sounds_are_named(rows: Rows, validate: Validate, folder: Path) -> None:
    (folder / "damaged.bin").write_bytes(b"neither film nor sound")
    kinds = ["video_caption", "video_qa", "audio_caption"]
    status, faults, _ = validate([row_of(rows, kind, medium="damaged.bin") for kind in kinds])
    assert status == 1 and list(faults) == ["1:1", "2:1", "3:1"]


@pytest.mark.parametrize("kind", ["", "vqa", "Caption", "caption ", "image_text"])
def test_an_unknown_type_is_named_with_the_known_ones(rows: Rows, validate: Validate, kind: str) -> None:
    status, faults, text = validate([row_of(rows, "qa"), row_of(rows, "caption", type=kind, caption="", medium="")])
    assert status == 1 and list(faults) == ["2:7"]
    assert repr(kind) in faults["2:7"] and ", ".join(MEDIUM_OF_TYPE) in faults["2:7"]
    assert "types: qa 1\n" in text


def test_a_type_that_is_no_text_is_named(
    rows: Rows, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes("\t".join(row_of(rows, "caption", type="")).encode() + b"\xff\n")
    assert main(["data", "validate", str(path), "--task", "unify_task"]) == 1
    assert f"{path}:1:7: type is not UTF-8" in capsys.readouterr().out


def test_an_id_may_come_again_in_another_type_or_data_set_only(rows: Rows, validate: Validate) -> None:
    same = [row_of(rows, kind, id="1") for kind in MEDIUM_OF_TYPE]
    same += [row_of(rows, "caption", id="1", dataset="other"), row_of(rows, "caption", id="1", caption="another")]
    status, faults, _ = validate(same)
    assert status == 1 and list(faults) == ["8:0"]
    assert faults["8:0"].startswith("id '1' with the same dataset and type is also in row 1: remove")


def test_an_answer_set_is_for_the_questions_of_all_media(rows: Rows, validate: Validate, tmp_path: Path) -> None:
    (tmp_path / "answers.txt").write_text("yes\nno\n")
    kinds = ["caption", "visual_grounding", "qa", "video_qa"]
    asked = [row_of(rows, kind, **({"refs": "1.0|!+maybe"} if kind.endswith("qa") else {})) for kind in kinds]
    status, faults, _ = validate(asked, "--answers", str(tmp_path / "answers.txt"))
    assert status == 1 and list(faults) == ["3:4", "4:4"]
    assert all(reason.startswith("not in the answer set: 'maybe'") for reason in faults.values())


def test_help_names_the_columns_and_types(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "validate", "--help"])
    text = capsys.readouterr().out
    assert f"unify_task: {', '.join(COLUMNS)} (usual --selected-cols: 0,1,2,3,4,5,6,7)" in text
    assert ", ".join(MEDIUM_OF_TYPE) in text
