"""``unival predict --task image_gen``: files, the sheet, lines, what a seed decides, resuming, what is refused."""

from __future__ import annotations

import csv
import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_drawers import SIDE, Brightness, make_drawer
from PIL import Image

from unival_cli.main import main
from unival_cli.predict_pictures import CELL, SHEET_CAPTIONS, contact_sheet
from unival_plugin import hub
from unival_plugin.unival.tasks.drawing import Drawer

CAPTION = "a three above a seven"


@pytest.fixture(scope="module")
def drawer(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_drawer(digits, tmp_path_factory.mktemp("drawer"))


@pytest.fixture(scope="module")
def load() -> Any:
    """Reads a model only once, for many commands."""
    return functools.cache(hub.from_pretrained)


@pytest.fixture(autouse=True)
def elsewhere(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures go to a folder below this one unless a test says otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "from_pretrained", load)


def draw(checkpoint: Path, *arguments: object) -> int:
    words = ["predict", "--task", "image_gen", "--path", checkpoint, "--device", "cpu", *arguments]
    return main([str(word) for word in words])


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pixels(name: str | Path) -> bytes:
    with Image.open(name) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (SIDE, SIDE))
        return picture.tobytes()


def write_captions(path: Path, captions: Sequence[str]) -> Path:
    if path.suffix == ".txt":
        path.write_text("".join(f"{caption}\n" for caption in captions), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["id", "text"], *(["1", caption] for caption in captions)])
    else:
        path.write_text("".join(json.dumps({"text": caption}) + "\n" for caption in captions), encoding="utf-8")
    return path


# ---- files and lines


def test_a_text_is_drawn_as_often_as_the_beam_says(drawer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(drawer, "--text", CAPTION, "--beam", 4) == 0
    streams = capsys.readouterr()
    line = json.loads(streams.out)
    assert set(line) == {"text", "pictures", "score", "scores"} and line["text"] == CAPTION
    assert len({*map(pixels, line["pictures"])}) > 1 and len(line["pictures"]) == 4
    assert line["scores"] == sorted(line["scores"], reverse=True) and line["score"] == line["scores"][0]
    assert {str(path) for path in Path("drawn").iterdir()} == {*line["pictures"], "drawn/contact_sheet.png"}
    assert "drawn/contact_sheet.png" in streams.err


def test_pictures_are_ranked_by_clip(
    drawer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(Drawer, "clip", Brightness())
    (tmp_path / "clip.pt").touch()
    assert draw(drawer, "--text", CAPTION, "--clip-model-path", "clip.pt") == 0
    line = json.loads(capsys.readouterr().out)
    light = [float(np.asarray(Image.open(name)).mean()) / 255 for name in line["pictures"]]
    assert line["scores"] == pytest.approx(light, abs=1e-4) and light == sorted(light, reverse=True)


def test_only_the_best_are_kept(drawer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(drawer, "--text", CAPTION, "--beam", 4) == 0
    every = json.loads(capsys.readouterr().out)
    assert draw(drawer, "--text", CAPTION, "--beam", 4, "--n-best", 2, "--draw", "best/of all") == 0
    best = json.loads(capsys.readouterr().out)
    assert best["scores"] == every["scores"][:2] and len(list(Path("best/of all").iterdir())) == 3


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt"])
def test_captions_of_a_file(drawer: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    captions = [CAPTION, "größer, als 3", "../../up \N{SNOWMAN}", CAPTION]
    assert draw(drawer, "--input", write_captions(Path(f"captions{suffix}"), captions), "--batch-size", 3) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == captions
    names = [name for line in lines for name in line["pictures"]]
    assert len(set(names)) == 12 and all(Path(name).parent == Path("drawn") for name in names)
    assert lines[0]["scores"] != lines[3]["scores"]  # the same row twice is drawn twice


def test_rows_that_cannot_be_used_keep_their_place(drawer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.jsonl").write_text('{"text": "one"}\n{"text": " "}\n{"caption": "two"}\n{"text": "three"}\n')
    assert draw(drawer, "--input", "rows.jsonl") == 1
    streams = capsys.readouterr()
    lines = [json.loads(line) for line in streams.out.splitlines()]
    assert ["pictures" in line for line in lines] == [True, False, False, True]
    assert 'rows.jsonl:row 2: needs texts, as in {"text": ' in lines[1]["error"] and "row 3" in lines[2]["error"]
    assert "2 of 4 captions could not be drawn" in streams.err


# ---- what decides


def test_the_same_seed_draws_the_same(drawer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = {}
    for name, seed in (("first", []), ("again", []), ("fixed", ["--seed", 1]), ("other", ["--seed", 2])):
        assert draw(drawer, "--text", CAPTION, "--beam", 8, "--draw", name, *seed) == 0
        line = json.loads(capsys.readouterr().out)
        drawn[name] = (line["scores"], [pixels(picture) for picture in line["pictures"]])
    assert drawn["first"] == drawn["again"] == drawn["fixed"] != drawn["other"]


def test_other_settings_leave_pictures_alone(drawer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: list[str] = []
    for more in ([], ["--seed", 2], ["--temperature", 3], ["--sampling-topk", 2], ["--text", "another"]):
        assert draw(drawer, "--text", CAPTION, *more) == 0
        names += json.loads(capsys.readouterr().out)["pictures"]
    assert len(set(names)) == len(names) == 15 and all(Path(name).is_file() for name in names)


def test_a_narrow_choice_is_always_the_same(drawer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for narrow in (["--sampling-topk", 1], ["--sampling-topp", 1e-6]):
        assert draw(drawer, "--text", CAPTION, *narrow) == 0
        assert len({*map(pixels, json.loads(capsys.readouterr().out)["pictures"])}) == 1


# ---- going on


def test_an_interrupted_output_is_continued(drawer: Path) -> None:
    captions = ["one", CAPTION, "one", "two", "three"]
    command = ["--input", write_captions(Path("captions.jsonl"), captions), "--output", "out.jsonl"]
    command += ["--batch-size", 2]
    assert draw(drawer, *command) == 0
    whole, files = Path("out.jsonl").read_bytes(), {path: path.read_bytes() for path in Path("drawn").iterdir()}
    assert [line["text"] for line in lines_of(Path("out.jsonl"))] == captions
    for kept in (5, 3, 2):
        cut = b"".join(whole.splitlines(keepends=True)[:kept]) + b'{"te'
        Path("out.jsonl").write_bytes(cut)
        Path("drawn/contact_sheet.png").unlink()
        assert draw(drawer, *command) == 0
        assert Path("out.jsonl").read_bytes() == whole
        assert {path: path.read_bytes() for path in Path("drawn").iterdir()} == files


def test_other_options_do_not_continue_a_file(drawer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--text", CAPTION, "--output", "out.jsonl"]
    assert draw(drawer, *command) == 0
    for more in (["--seed", 2], ["--n-best", 1], ["--sampling-topk", 2]):
        assert draw(drawer, *command, *more) == 2
        assert "other options" in capsys.readouterr().err
    assert draw(drawer, *command, "--seed", 2, "--overwrite") == 0
    meta = json.loads(Path("out.jsonl.meta.json").read_text())
    assert (meta["seed"], meta["code_image_size"], meta["clip_model_path"]) == (2, SIDE, None)
    assert meta["generation"]["sampling"] and len(meta["vqgan_model_path"]) == 64


# ---- the sheet


def test_the_sheet_has_a_row_a_caption(tmp_path: Path) -> None:
    for name in ("dark", "light"):
        Image.new("RGB", (SIDE, SIDE), (9, 9, 9) if name == "dark" else (250, 240, 9)).save(f"{name}.png")
    lines = [
        {"text": "two of them", "pictures": ["light.png", "dark.png"], "scores": [0.5, 0.25]},
        {"text": "very " * 200 + "long" * 100, "pictures": ["dark.png", "gone.png"], "scores": [0.5, 0.1]},
        {"text": "one", "pictures": ["light.png"], "scores": [0.5]},
    ]
    sheet, gone = contact_sheet(lines)
    colours = np.asarray(sheet)
    assert gone == 1
    for colour, squares in (((9, 9, 9), 2), ((250, 240, 9), 2)):
        assert int((colours == colour).all(axis=2).sum()) == squares * CELL**2
    narrow, _ = contact_sheet(lines[2:])
    assert sheet.width - narrow.width == CELL + 8 and sheet.height > 3 * CELL > narrow.height


def test_a_sheet_holds_the_first_captions(drawer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = [f"number {number}" for number in range(SHEET_CAPTIONS + 2)]
    command = ["--input", write_captions(Path("captions.txt"), captions), "--beam", 1, "--batch-size", 42]
    for output in ([], ["--output", "out.jsonl"]):
        assert draw(drawer, *command, *output) == 0
        assert f"the first {SHEET_CAPTIONS} of {len(captions)} captions" in capsys.readouterr().err
        Path("drawn/contact_sheet.png").rename(f"sheet{len(output)}.png")
    assert Path("sheet0.png").read_bytes() == Path("sheet2.png").read_bytes()
    Path(lines_of(Path("out.jsonl"))[0]["pictures"][0]).unlink()
    assert draw(drawer, *command, "--output", "out.jsonl") == 0
    assert "files that are gone: 1" in capsys.readouterr().err


# ---- what is refused


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("image_gen", [], "needs a caption"),
        ("image_gen", ["--text", " "], "needs a caption"),
        ("image_gen", ["--text", "a", "three"], "takes no files, such as three; put a text in quotes"),
        ("image_gen", ["--text", "a", "--input", "captions.txt"], "has its own texts"),
        ("image_gen", ["--input", "captions.tsv"], "or a .txt file with a text a line"),
        ("image_gen", ["--input", "header.csv"], "must name the columns: text"),
        ("image_gen", ["--text", "a", "--lenpen", "2"], "--lenpen is for answers in words"),
        ("image_gen", ["--text", "a", "--workers", "1"], "--workers is for files"),
        ("image_gen", ["--text", "a", "--prompt-type", "src"], "--prompt-type is for"),
        ("caption", ["a.png", "--seed", "0"], "--seed is for --task image_gen"),
        ("vqa", ["a.png", "--text", "a", "--clip-model-path", ""], "--clip-model-path is for --task image_gen"),
        ("caption", ["--input", "captions.txt"], "needs a .jsonl file or a .csv file"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_model_is_read(
    capsys: pytest.CaptureFixture[str], task: str, arguments: list[str], message: str
) -> None:
    write_captions(Path("captions.txt"), [CAPTION])
    Path("header.csv").write_text("caption\na\n")
    assert main(["predict", "--task", task, "--path", "no.pt", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not Path("drawn").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-best", 4], "--n-best 4: give 1 to 3"),
        (["--n-best", 0], "--n-best 0: give 1 to 3"),
        (["--batch-size", 0], "--batch-size 0: must be at least 1"),
        (["--beam", 0], "at least 1"),
        (["--temperature", 0], "must be positive"),
        (["--sampling-topk", 2, "--sampling-topp", 0.5], "exclude each other"),
        (["--vqgan-model-path", ""], "give --vqgan-model-path and --vqgan-config-path"),
        (["--clip-model-path", "gone.pt"], "its weights gone.pt do not exist; give --clip-model-path"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(
    drawer: Path, capsys: pytest.CaptureFixture[str], arguments: list[object], message: str
) -> None:
    assert draw(drawer, "--text", CAPTION, *arguments) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("unival: error:") and message in told and not Path("drawn").exists()


def test_a_folder_of_model_and_tokenizer_may_move(drawer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(drawer, weights_only=True)
    for name in ("vqgan_model_path", "vqgan_config_path"):
        state["cfg"]["task"][name] = f"elsewhere/{Path(state['cfg']['task'][name]).name}"
    state["cfg"]["task"]["clip_model_path"] = "elsewhere/clip.pt"
    torch.save(state, "moved.pt")
    for name in ("last.ckpt", "model.yaml"):
        shutil.copy(drawer.parent / name, ".")
    assert draw(Path("moved.pt"), "--text", CAPTION) == 2
    assert 'an empty one ("")' in capsys.readouterr().err
    assert draw(Path("moved.pt"), "--text", CAPTION, "--clip-model-path", "") == 0
