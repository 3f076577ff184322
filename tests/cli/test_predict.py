"""``unival predict`` for tasks with texts: rows from flags and files, boxes drawn, what is refused."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from commands import PLUGIN, program, succeed
from made_films import write_film
from made_models import COLOURS, make_checkpoint
from PIL import Image, ImageChops

from unival_cli.main import main

QUESTION = "what colour is the 7?"


@pytest.fixture(scope="module")
def made(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained models; the one for boxes gives nothing but boxes."""
    folder = tmp_path_factory.mktemp("models")
    return {task: make_checkpoint(digits, folder, task) for task in ("caption", "vqa_gen", "snli_ve", "refcoco")}


@pytest.fixture(scope="module")
def pictures(digits: Path) -> list[Path]:
    return sorted((digits / "pictures").glob("*.png"))


def predict(task: str, checkpoint: Path, *arguments: object) -> int:
    words = ["predict", "--task", task, "--path", checkpoint, "--device", "cpu", *arguments]
    return main([str(word) for word in words])


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.mark.parametrize(("task", "stored"), [("vqa", "vqa_gen"), ("vqa_gen", "vqa_gen"), ("snli_ve", "snli_ve")])
def test_one_text_for_all_pictures(
    made: dict[str, Path], pictures: list[Path], capsys: pytest.CaptureFixture[str], task: str, stored: str
) -> None:
    assert predict(task, made[stored], "--text", QUESTION, pictures[0].parent) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["image"], line["text"]) for line in lines] == [(str(path), QUESTION) for path in pictures]
    assert all(set(line) == {"image", "text", "answer", "score"} for line in lines)
    assert {line["answer"] for line in lines} <= {*COLOURS, "yes", "no", "maybe"}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_rows_of_a_file_with_paths_relative_to_it(
    made: dict[str, Path], pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(pictures[0].read_bytes())
    rows = [{"image": "photos/one.png", "text": text} for text in (QUESTION, "what, where?", "")]
    file = write_rows(tmp_path / f"rows{suffix}", [*rows, {"image": "gone.png", "text": "x"}])
    assert predict("vqa", made["vqa_gen"], "--input", file) == 1
    streams = capsys.readouterr()
    lines = [json.loads(line) for line in streams.out.splitlines()]
    assert ["answer" in line for line in lines] == [True, True, False, False]
    assert lines[0]["image"] == "photos/one.png" and lines[1]["text"] == "what, where?"
    assert "question is empty" in lines[2]["error"] and "gone.png" in lines[3]["error"]
    assert "2 of 4 rows could not be answered" in streams.err


def test_bad_lines_of_a_file_are_errors_of_their_rows(
    made: dict[str, Path], pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = json.dumps({"image": str(pictures[0]), "text": QUESTION})
    (tmp_path / "rows.jsonl").write_text(f'{{"image": \n{good}\n[1]\n\n{{"image": 3, "text": "x"}}\n')
    assert predict("vqa", made["vqa_gen"], "--input", tmp_path / "rows.jsonl") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["row 1: not valid JSON" in lines[0]["error"], "answer" in lines[1]] == [True, True]
    assert "row 3: needs texts" in lines[2]["error"] and "row 5: needs texts" in lines[3]["error"]


def test_an_interrupted_output_is_continued(made: dict[str, Path], pictures: list[Path], tmp_path: Path) -> None:
    texts = [QUESTION, "which digit?", QUESTION, "where?"]  # the same row twice is answered twice
    rows = [{"image": str(pictures[0]), "text": text} for text in texts]
    command = ["--input", write_rows(tmp_path / "rows.jsonl", rows), "--output", tmp_path / "out.jsonl"]
    assert predict("vqa", made["vqa_gen"], *command) == 0
    whole = (tmp_path / "out.jsonl").read_bytes()
    for kept in (4, 2):
        cut = b"".join(whole.splitlines(keepends=True)[:kept]) + b'{"ima'
        (tmp_path / "out.jsonl").write_bytes(cut)
        assert predict("vqa", made["vqa_gen"], *command) == 0
        assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_other_answers_do_not_continue_a_file(
    made: dict[str, Path], pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--text", QUESTION, pictures[0], "--output", tmp_path / "out.jsonl"]
    assert predict("vqa", made["vqa_gen"], *command) == 0
    (tmp_path / "answers.json").write_text('["one", "two"]')
    assert predict("vqa", made["vqa_gen"], *command, "--ans2label-file", tmp_path / "answers.json") == 2
    assert "other options" in capsys.readouterr().err


def test_a_box_is_drawn_on_a_copy(made: dict[str, Path], pictures: list[Path], tmp_path: Path) -> None:
    before = pictures[0].read_bytes()
    command = ["--text", "the red 7", "--draw", tmp_path / "drawn", "--output", tmp_path / "out.jsonl", pictures[0]]
    assert predict("refcoco", made["refcoco"], *command) == 0
    [line] = lines_of(tmp_path / "out.jsonl")
    assert set(line) == {"image", "text", "box", "score", "drawn"} and len(line["box"]) == 4
    original = Image.open(pictures[0]).convert("RGB")
    drawn = Image.open(line["drawn"])
    assert drawn.size == original.size and ImageChops.difference(drawn, original).getbbox()
    assert pictures[0].read_bytes() == before


def test_a_drawing_never_takes_the_place_of_a_picture(
    made: dict[str, Path], pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.png").write_bytes(pictures[0].read_bytes())
    command = ["--text", "the red 7", "--draw", tmp_path]
    assert predict("refcoco", made["refcoco"], *command, tmp_path / "one.png") == 0
    assert len(list(tmp_path.iterdir())) == 2
    assert predict("refcoco", made["refcoco"], *command, tmp_path) == 2
    assert "would overwrite" in capsys.readouterr().err


def test_n_best(made: dict[str, Path], pictures: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("vqa", made["vqa_gen"], "--text", QUESTION, "--n-best", 3, pictures[0]) == 0
    line = json.loads(capsys.readouterr().out)
    assert [{"answer": line["answer"], "score": line["score"]}, 3] == [line["n_best"][0], len(line["n_best"])]
    assert predict("vqa", made["vqa_gen"], "--text", QUESTION, "--n-best", 9, pictures[0]) == 2
    assert "larger beam" in capsys.readouterr().err


def test_a_checkpoint_of_another_task(
    made: dict[str, Path], pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--text", QUESTION, pictures[0]]
    assert predict("vqa", made["caption"], *command) == 2
    told = capsys.readouterr().err
    assert "--prompt-type" in told and "--ans2label-file" in told
    (tmp_path / "answers.txt").write_text("one\ntwo\n")
    more = ["--prompt-type", "prev_output", "--ans2label-file", tmp_path / "answers.txt"]
    assert predict("vqa", made["caption"], *command, *more) == 0
    assert json.loads(capsys.readouterr().out)["answer"] in ("one", "two")


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("vqa", ["{picture}"], "needs a text"),
        ("caption", ["{picture}", "--text", "x"], "takes no --text"),
        ("vqa", [], "either files or --input"),
        ("vqa", ["{picture}", "--input", "rows.csv"], "either files or --input"),
        ("vqa", ["--text", "x", "--input", "rows.csv"], "has its own texts"),
        ("vqa", ["{picture}", "--text", "x", "--draw", "drawn"], "--draw is for"),
        ("refcoco", ["{picture}", "--text", "x", "--prompt-type", "src"], "--prompt-type is for"),
        ("vqa", ["--input", "rows.tsv"], "needs a .jsonl file or a .csv file"),
        ("vqa", ["--input", "missing.csv"], "missing.csv"),
        ("vqa", ["--input", "{folder}/header.csv"], "name the columns"),
        ("vqa", ["--input", "{folder}/empty.jsonl"], "holds no rows"),
        ("vqa", ["--input", "{folder}/latin.csv"], "save it as UTF-8"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_model_is_read(
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    task: str,
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "header.csv").write_text("picture,text\na.png,x\n")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "latin.csv").write_bytes("image,text\na.png,caf\xe9\n".encode("latin-1"))
    words = [word.format(picture=pictures[0], folder=tmp_path) for word in arguments]
    assert predict(task, tmp_path / "no.pt", *words) == 2
    assert message in capsys.readouterr().err


COLUMNS = {
    "vqa_gen": ("text", "1.0|!+red", "objects"),
    "snli_ve": ("text", "context", "entailment"),
    "refcoco": ("text", "1,1,9,9"),
}
FLAGS = {
    "vqa_gen": ["--prompt-type", "prev_output", "--ans2label-dict", json.dumps({name: 0 for name in COLOURS})],
    "snli_ve": [
        "--prompt-type",
        "prev_output",
        "--add-caption",
        "--val-inference-type",
        "beamsearch",
        "--unnormalized",
    ],
    "refcoco": ["--max-image-size", "64", "--min-len", "4", "--max-len-b", "4", "--beam", "3"],
}


@pytest.mark.parametrize("task", COLUMNS)
def test_fairseq_generate_gives_the_same(
    made: dict[str, Path], pictures: list[Path], tmp_path: Path, task: str
) -> None:
    texts = ["what is red", "which colour has the 3", "where is 5"]
    rows = [
        {"image": str(path), "text": text, "context": f"a {text}"} for path in pictures[:4] for text in texts
    ]  # fmt: skip
    output = tmp_path / "out.jsonl"
    assert predict(task, made[task], "--input", write_rows(tmp_path / "r.jsonl", rows), "--output", output) == 0
    table = [
        [
            str(number),
            base64.b64encode(Path(row["image"]).read_bytes()).decode(),
            *(row.get(c, c) for c in COLUMNS[task]),
        ]
        for number, row in enumerate(rows)
    ]
    (tmp_path / "rows.tsv").write_text("".join("\t".join(cells) + "\n" for cells in table))
    columns = ",".join(str(number) for number in range(len(table[0])))
    sizes = "--patch-image-size 32 --code-dict-size 4 --num-bins 16 --max-source-positions 64 --max-target-positions 64"
    succeed(
        [
            *[program("fairseq-generate"), str(tmp_path / "rows.tsv"), "--user-dir", str(PLUGIN), "--task", task],
            *["--selected-cols", columns, "--bpe", "sentencepiece", *sizes.split(), *FLAGS[task]],
            *["--sentencepiece-model", str(made[task].parent / "digits.model"), "--path", str(made[task])],
            *["--gen-subset", "valid", "--batch-size", "5", "--num-workers", "0", "--results-path", str(tmp_path)],
        ]
    )
    generated = json.loads((tmp_path / "valid_predict.json").read_text())
    name = "box" if task == "refcoco" else "answer"
    assert len({str(row[name]) for row in generated}) > 1
    if task == "refcoco":
        assert [line["box"] for line in lines_of(output)] == [pytest.approx(row["box"], abs=0.01) for row in generated]
    else:
        assert [line["answer"] for line in lines_of(output)] == [row["answer"] for row in generated]


# ---- films and sounds


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two films, two sounds, and one of each that is none."""
    folder = tmp_path_factory.mktemp("recorded")
    for name in ("a.mp4", "b.gif"):
        write_film(folder / name, frames=8, **({"codec": "gif", "pixels": "rgb8"} if name.endswith("gif") else {}))
    for name in ("a.wav", "b.flac"):
        soundfile.write(folder / name, np.sin(np.arange(4800) / 9), 48_000)
    for name in ("c.mp4", "c.wav"):
        (folder / name).write_bytes(b"neither")
    return folder


@pytest.mark.parametrize(
    "task, medium, names",
    [("video_caption", "video", ["a.mp4", "b.gif", "c.mp4"]), ("audio_caption", "audio", ["a.wav", "b.flac", "c.wav"])],
)
def test_films_and_sounds_are_captioned(
    digits: Path, recorded: Path, tmp_path: Path, task: str, medium: str, names: list[str]
) -> None:
    checkpoint, output = make_checkpoint(digits, tmp_path, task), tmp_path / "out.jsonl"
    assert predict(task, checkpoint, recorded, "--output", output) == 1
    *good, bad = lines_of(output)
    assert [Path(line[medium]).name for line in (*good, bad)] == names
    assert all(set(line) == {medium, "caption", "score"} for line in good)
    assert names[-1] in bad["error"] and "\n" not in bad["error"]
    rows = write_rows(tmp_path / "rows.jsonl", [{medium: str(recorded / names[0])}])
    assert predict(task, checkpoint, "--input", rows, "--output", tmp_path / "again.jsonl") == 0
    assert lines_of(tmp_path / "again.jsonl")[0]["caption"] == good[0]["caption"]
    meta = json.loads((tmp_path / "out.jsonl.meta.json").read_text())
    assert meta["task"] == task and ("num_frames" in meta) == (medium == "video")
