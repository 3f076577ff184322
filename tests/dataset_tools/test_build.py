"""The command that builds public data sets: what it writes, says and refuses; COCO and NoCaps."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import build as build_tool
import pytest
from build import main
from hypothesis import given
from hypothesis import strategies as st
from public import BUILDERS
from public.parts import joined, sentence
from raw_pictures import cells_of, coco_name, karpathy, nocaps

from unival_cli import row_writer
from unival_cli.data_schemas import FILE_COLUMNS, SCHEMAS
from unival_cli.main import main as unival

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., int]

PICTURES = [
    ("train", "train2014", 9, ["A cat\tsits\non a mat.", "Salt && pepper.", "  "]),
    ("restval", "val2014", 42, ["Two  dogs."]),
    ("val", "val2014", 7, ["A red bus.", "The bus&&the stop.", "A street."]),
    ("test", "val2014", 11, ["A bird."]),
    ("train", "train2014", 30, ["\n"]),
]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    karpathy(folder, PICTURES)
    return folder


@pytest.fixture
def run(raw: Path, tmp_path: Path) -> Run:
    def call(name: str, *flags: str) -> int:
        return main([name, "--raw", str(raw), "--output", str(tmp_path / "out"), *flags])

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def valid(path: Path, task: str, *flags: str) -> bool:
    """Whether ``unival data validate`` finds every row good."""
    return unival(["data", "validate", str(path), "--task", task, *flags]) == 0


# ---- COCO


def test_stage_1_has_a_row_a_caption_of_train_and_restval(run, raw, tmp_path):
    assert run("coco-captions") == 0
    first, second, third = cells_of(tmp_path / "out" / "caption_stage1_train.tsv")
    assert [first[:4], second[:4], third[:4]] == [
        ["0", "9", "A cat sits on a mat.", ""],
        ["1", "9", "Salt & pepper.", ""],
        ["2", "42", "Two dogs.", ""],
    ]
    assert base64.b64decode(first[4]) == (raw / "train2014" / coco_name("train2014", 9)).read_bytes()
    assert base64.b64decode(third[4]) == (raw / "val2014" / coco_name("val2014", 42)).read_bytes()


def test_stage_2_validation_and_test_have_a_row_a_picture_with_its_captions_joined(run, tmp_path):
    assert run("coco-captions") == 0
    out = tmp_path / "out"
    assert [cells[:3] for cells in cells_of(out / "caption_stage2_train.tsv")] == [
        ["0", "9", "A cat sits on a mat.&&Salt & pepper."],
        ["1", "42", "Two dogs."],
    ]
    assert [cells[:3] for cells in cells_of(out / "caption_val.tsv")] == [
        ["0", "7", "A red bus.&&The bus&the stop.&&A street."]
    ]
    assert [cells[1] for cells in cells_of(out / "caption_test.tsv")] == ["11"]
    assert all(valid(path, "caption") for path in out.glob("*.tsv"))


def test_predictions_by_picture_id_match_the_captions_in_coco_format(run, tmp_path):
    assert run("coco-captions") == 0
    document = json.loads((tmp_path / "out" / "test_caption_coco_format.json").read_text())
    ids = [cells[1] for cells in cells_of(tmp_path / "out" / "caption_test.tsv")]
    assert [str(image["id"]) for image in document["images"]] == ids
    assert [(entry["image_id"], entry["caption"]) for entry in document["annotations"]] == [(11, "A bird.")]


def test_it_says_what_was_written_left_out_and_what_is_published(run, capsys, tmp_path):
    assert run("coco-captions", "--splits", "caption_stage2_train,test_caption_coco_format") == 0
    lines = capsys.readouterr().out.splitlines()
    out = tmp_path / "out"
    assert lines[0].startswith(f"{out}/caption_stage2_train.tsv: 2 rows, 2 pictures, ") and lines[0].endswith("B")
    assert lines[1] == "  left out: 1 pictures without a caption"
    assert lines[2].startswith("  note: 2 of 113287 expected rows: ")
    assert lines[3] == f"{out}/test_caption_coco_format.json: 1 pictures, 1 captions" and len(lines) == 4


def test_paths_start_in_the_raw_folder(run, raw, tmp_path):
    assert run("coco-captions", "--paths") == 0
    assert [cells[4] for cells in cells_of(tmp_path / "out" / "caption_stage2_train.tsv")] == [
        "train2014/COCO_train2014_000000000009.jpg",
        "val2014/COCO_val2014_000000000042.jpg",
    ]
    flags = ["--read-from-img-path", "--image-dir", str(raw)]
    assert valid(tmp_path / "out" / "caption_stage1_train.tsv", "caption", *flags)


def test_paths_may_start_in_a_folder_that_several_data_sets_share(run, raw, tmp_path):
    assert run("coco-captions", "--splits", "caption_test", "--paths", "--image-dir", str(tmp_path)) == 0
    assert cells_of(tmp_path / "out" / "caption_test.tsv")[0][4] == "raw/val2014/COCO_val2014_000000000011.jpg"
    flags = ["--read-from-img-path", "--image-dir", str(tmp_path)]
    assert valid(tmp_path / "out" / "caption_test.tsv", "caption", *flags)


def test_paths_that_start_in_the_raw_folder_itself_are_the_usual_ones(run, raw, tmp_path):
    assert run("coco-captions", "--splits", "caption_test", "--paths", "--image-dir", str(raw / ".." / "raw")) == 0
    assert cells_of(tmp_path / "out" / "caption_test.tsv")[0][4] == "val2014/COCO_val2014_000000000011.jpg"


def test_a_raw_folder_outside_of_where_paths_start_is_refused(run, raw, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "link").symlink_to(raw)
    assert run("coco-captions", "--paths", "--image-dir", str(tmp_path / "other")) == 2
    assert f"--image-dir {tmp_path}/other does not hold --raw {raw}" in error_of(capsys)
    assert (
        main(
            ["coco-captions", "--raw", str(tmp_path / "other" / "link"), "--output", str(tmp_path / "out"), "--paths"]
            + ["--image-dir", str(tmp_path / "other")]
        )
        == 2
    )
    assert f"--raw {tmp_path}/other/link (really {raw})" in error_of(capsys)
    assert run("coco-captions", "--image-dir", str(tmp_path)) == 2
    assert "add --paths" in error_of(capsys) and not (tmp_path / "out").exists()


def test_folders_linked_to_somewhere_else_in_the_shared_folder_are_read(run, raw, tmp_path):
    (raw / "val2014").rename(tmp_path / "elsewhere")
    (raw / "val2014").symlink_to(tmp_path / "elsewhere")
    assert run("coco-captions", "--splits", "caption_test", "--paths", "--image-dir", str(tmp_path)) == 0
    flags = ["--read-from-img-path", "--image-dir", str(tmp_path)]
    assert valid(tmp_path / "out" / "caption_test.tsv", "caption", *flags)


def test_paths_into_a_linked_folder_are_refused_because_no_task_would_read_them(run, raw, tmp_path, capsys):
    (raw / "val2014").rename(tmp_path / "elsewhere")
    (raw / "val2014").symlink_to(tmp_path / "elsewhere")
    assert run("coco-captions", "--paths") == 2
    assert f"--paths: {raw}/val2014 is a link to {tmp_path}/elsewhere" in error_of(capsys)
    assert run("coco-captions") == 0


texts = st.lists(st.text(st.sampled_from("ab& \t\u00a0"), max_size=7), max_size=6)


@given(texts)
def test_joined_texts_split_back_to_the_same_texts(given_texts):
    kept = [text for text in map(sentence, given_texts) if text]
    cell = joined(given_texts)
    assert (cell.split("&&") if cell else []) == kept
    assert [text.replace("&", "").split() for text in kept] == [
        words for text in given_texts if (words := text.replace("&", "").split())
    ]


# ---- NoCaps


def test_nocaps_is_written_whole_and_by_domain(run, raw, tmp_path):
    nocaps(raw, ["near-domain", "in-domain", "out-domain", "near-domain"])
    assert run("nocaps") == 0
    out = tmp_path / "out"
    rows = cells_of(out / "nocaps_val.tsv")
    assert [cells[:3] for cells in rows[:2]] == [
        ["0", "0", "Caption 1 of 0.&&Caption 0 of 0."],
        ["1", "1", "Caption 1 of 1.&&Caption 0 of 1."],
    ]
    ids = {
        name: [cells[1] for cells in cells_of(out / f"nocaps_{name}_val.tsv")] for name in ("indomain", "neardomain")
    }
    assert ids == {"indomain": ["1"], "neardomain": ["0", "3"]}
    assert all(valid(path, "caption") for path in out.glob("*.tsv"))
    document = json.loads((out / "nocaps_val_caption_coco_format.json").read_text())
    assert len(document["images"]) == 4 and len(document["annotations"]) == 8


def test_captions_of_another_format_are_named(run, raw, tmp_path, capsys):
    (raw / "nocaps_val_4500_captions.json").write_text('{"images": []}')
    assert run("nocaps", "--splits", "nocaps_val_caption_coco_format") == 2
    assert "has no list 'annotations'" in error_of(capsys) and contents(tmp_path / "out") == {}


# ---- missing and damaged


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("build.py: error: ") and error.count("\n") == 1
    return error


def test_missing_pictures_are_counted_before_anything_is_written(run, raw, tmp_path, capsys):
    (raw / "train2014" / coco_name("train2014", 9)).unlink()
    assert run("coco-captions", "--splits", "caption_stage1_train") == 2
    assert "1 of 2 pictures are missing, e.g. " in error_of(capsys) and contents(tmp_path / "out") == {}
    assert run("coco-captions", "--splits", "caption_stage1_train", "--on-missing", "skip") == 0
    shown = capsys.readouterr()
    assert "left out: 2 whose pictures are missing or cannot be used" in shown.out
    assert len(cells_of(tmp_path / "out" / "caption_stage1_train.tsv")) == 1


def test_missing_raw_files_are_named_with_where_to_get_them(run, raw, capsys):
    (raw / "dataset_coco.json").unlink()
    assert run("coco-captions") == 2
    error = error_of(capsys)
    assert f"{raw} lacks dataset_coco.json: get them from karpathy-splits (https://" in error
    assert "build.py coco-captions --help" in error


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"images": [', "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[]", "is no object"),
        (b'{"images": 3}', "has no list 'images'"),
        (b'{"images": [3]}', "picture 1 is no object"),
        (b'{"images": [{"split": "val", "sentences": [{"raw": 3}]}]}', "picture 1: caption 1 has no text 'raw'"),
        (b'{"images": [{"split": "val", "cocoid": 1.5, "sentences": [{"raw": "a"}]}]}', "no whole number 'cocoid'"),
    ],
)
def test_raw_files_of_another_format_are_named(run, raw, capsys, content, complaint):
    (raw / "dataset_coco.json").write_bytes(content)
    assert run("coco-captions", "--splits", "caption_val") == 2
    error = error_of(capsys)
    assert str(raw / "dataset_coco.json") in error and complaint in error


def test_a_picture_that_is_none_stops_with_its_place(run, raw, capsys):
    (raw / "val2014" / coco_name("val2014", 42)).write_bytes(b"<html>not found</html>")
    assert run("coco-captions", "--splits", "caption_stage2_train") == 2
    assert "dataset_coco.json: picture 2: " in error_of(capsys)


# ---- going on


def test_a_stopped_build_goes_on_with_equal_bytes_and_leaves_complete_tables_alone(run, tmp_path, monkeypatch, capsys):
    assert run("coco-captions", "--workers", "3") == 0
    whole = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "first")
    original, left = row_writer._Writer._write, 4

    def write(self, line, handle, state):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        original(self, line, handle, state)

    monkeypatch.setattr(row_writer._Writer, "_write", write)
    rounds = 0
    capsys.readouterr()
    while True:
        left, rounds = 4, rounds + 1
        try:
            assert run("coco-captions") == 0
            break
        except KeyboardInterrupt:
            assert rounds < 6
    assert rounds > 1 and "exists, left as it is" in capsys.readouterr().out
    assert contents(tmp_path / "out") == whole


def test_another_raw_file_starts_anew(run, raw, tmp_path, monkeypatch, capsys):
    def refuse(self, *_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build_tool, "write_document", refuse)
        with pytest.raises(KeyboardInterrupt):
            run("coco-captions", "--splits", "caption_val,test_caption_coco_format")
    assert run("coco-captions", "--splits", "caption_val,test_caption_coco_format", "--overwrite") == 0
    assert "exists" not in capsys.readouterr().out
    karpathy(raw, [("val", "val2014", 7, ["Another one."])])
    assert run("coco-captions", "--splits", "caption_val", "--overwrite") == 0
    assert [cells[2] for cells in cells_of(tmp_path / "out" / "caption_val.tsv")] == ["Another one."]


# ---- the command


def test_the_command_as_a_process(raw, tmp_path):
    command = [sys.executable, str(ROOT / "dataset_tools" / "build.py"), "coco-captions", "--raw", str(raw)]
    done = subprocess.run([*command, "--output", str(tmp_path / "out")], capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.count(" rows, ") == 4


def test_the_list_has_every_builder_with_its_task(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, builder.task] for name, builder in BUILDERS.items()]


def test_help_behind_a_name_shows_the_layout_of_the_raw_folder(capsys):
    with pytest.raises(SystemExit) as left:
        main(["refcoco", "--help"])
    shown = capsys.readouterr().out
    assert left.value.code == 0 and "--raw" in shown
    assert "refcoco/refs(unc).p" in shown and "refcoco_testA.tsv: 5,657" in shown and "https://" in shown


def test_the_markdown_tells_of_every_output(capsys):
    assert main(["--markdown"]) == 0
    text = capsys.readouterr().out
    for builder in BUILDERS.values():
        assert f"(`{builder.name}`)" in text and f"--output {builder.folder}" in text and builder.licence in text
        assert all(f"`{part.output}`" in text for part in builder.outputs)


@pytest.mark.parametrize("arguments", [[], ["coco"], ["nocaps", "--raw", "x"], ["nocaps", "--output", "x"]])
def test_incomplete_commands_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2 and "build.py: error: " in capsys.readouterr().err


def test_unknown_splits_are_named_with_the_known_ones(run, capsys):
    assert run("nocaps", "--splits", "nocaps_test") == 2
    error = error_of(capsys)
    assert "'nocaps_test'" in error and "nocaps_indomain_val" in error


@pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS.keys())
def test_every_builder_is_described_and_its_rows_have_a_task(builder):
    assert builder.task in SCHEMAS and builder.task in FILE_COLUMNS
    assert builder.layout and builder.licence and builder.links and builder.folder.startswith("data/")
    assert len({part.output for part in builder.outputs}) == len(builder.outputs)
    assert any(part.usual for part in builder.splits)


def test_tables_of_two_builders_for_one_folder_have_different_names_or_are_the_same_tables():
    outputs: dict[tuple[str, str], str] = {}
    for builder in BUILDERS.values():
        for part in builder.outputs:
            other = outputs.setdefault((builder.folder, part.output), builder.name)
            assert other.partition("-")[0] == builder.name.partition("-")[0]


NAMED_BY_RUN_SCRIPTS = {
    "caption_data": "caption_stage1_train caption_stage2_train caption_val caption_test nocaps_val nocaps_indomain_val "
    "nocaps_neardomain_val nocaps_outdomain_val nocaps_val_caption_coco_format",
    "vqa_data": "vqa_train vqa_val vqa_fullval vqa_test trainval_ans2label okvqa_acc_val okvqa_trainval_ans2label "
    "vizwiz_acc_val vizwiz_trainval_ans2label",
    "refcoco_data": "refcoco_train refcoco_val refcoco_testA refcoco_testB",
    "refcocoplus_data": "refcocoplus_train refcocoplus_val refcocoplus_testA refcocoplus_testB",
    "refcocog_data": "refcocog_train refcocog_val refcocog_test",
    "snli_ve_data": "snli_ve_train snli_ve_dev snli_ve_test",
}


@pytest.mark.parametrize("folder", NAMED_BY_RUN_SCRIPTS)
def test_what_the_run_scripts_read_is_built_without_naming_it(folder):
    made = {
        part.name
        for builder in BUILDERS.values()
        if builder.folder == f"data/ofa/{folder}"
        for part in builder.outputs
        if part.usual
    }
    assert set(NAMED_BY_RUN_SCRIPTS[folder].split()) <= made
