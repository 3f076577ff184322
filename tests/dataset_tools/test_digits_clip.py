"""Training a small CLIP: what is written, that it learns, which captions are wrong, and refusals."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import clip_training
import digits_clip
import pytest
import torch
from clip_training import Batches, Plan, Towers, varied
from digits_clip import CONFIG, MANIFEST, TOOL, WEIGHTS, main, read_rows
from digits_scenes import LAYOUTS, SceneMaker, describe, encoded_picture, load_source
from digits_wrong_captions import all_captions, exchanged, lead, rearranged
from tokenizer_training import drawings, scaled

from unival_cli.light import light

QUICK = ["--updates", "3", "--batch-size", "8", "--width", "4", "--text-width", "16", "--image-size", "32"]
SMALL = Plan(image_size=32, width=4, text_width=16, updates=3, batch_size=8)


@pytest.fixture(scope="module")
def open_clip() -> Any:
    return pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rows of captions with pictures."""
    maker = SceneMaker(load_source(seed=7), seed=7)
    scenes = [maker.make("train", 1, number) for number in range(40)]
    path = tmp_path_factory.mktemp("rows") / "train.tsv"
    lines = ["\t".join([str(scene.number), "", scene.caption, "", encoded_picture(scene)]) for scene in scenes]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "clip"


def run(rows: Path, output: Path, *flags: str) -> int:
    return main(["--rows", str(rows), "--output", str(output), *QUICK, *flags])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith(f"{TOOL}: error: ") and error.count("\n") == 1
    return error


@pytest.fixture(scope="module")
def built(open_clip: Any, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the command; tests only read it."""
    output = tmp_path_factory.mktemp("built") / "clip"
    assert run(rows, output, "--measure", str(rows)) == 0
    return output


# ---- what is written


def test_the_folder_is_what_a_scorer_reads(built, rows):
    assert set(contents(built)) == {WEIGHTS, CONFIG, MANIFEST}
    scorer = light("metrics.pictures").ClipScorer(built / WEIGHTS)
    pictures, captions = read_rows([rows], (4, 2), 32)
    images = clip_training._images(pictures)
    assert scorer.similarity(images, captions).shape == (40,)
    manifest = json.loads((built / MANIFEST).read_text())
    assert manifest["settings"]["updates"] == 3
    texts = scorer.texts(list(all_captions()))
    assert manifest["measured"]["pictures"] == lead(scorer.images(images), texts, captions)
    assert set(manifest["measured"]["drawings"]) >= {"exchanged", "rearranged", "exchanged_gap", "cosine"}


def test_the_same_seed_gives_the_same_bytes_and_what_it_measured_is_shown(built, rows, output, capsys):
    assert run(rows, output, "--measure", str(rows)) == 0
    assert contents(output) == contents(built)
    assert "% of the pictures fit their caption better than all with one digit" in capsys.readouterr().out


def test_an_earlier_build_is_replaced_only_if_asked(built, rows, output, capsys):
    shutil.copytree(built, output)
    assert run(rows, output) == 2
    assert "add --overwrite" in error_of(capsys) and contents(output) == contents(built)
    assert run(rows, output, "--overwrite", "--seed", "8") == 0
    assert contents(output)[WEIGHTS] != contents(built)[WEIGHTS]
    assert "measured" not in json.loads((output / MANIFEST).read_text())


def test_other_folders_are_never_replaced(open_clip, rows, output, capsys):
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    assert run(rows, output, "--overwrite") == 2
    assert "no earlier build" in error_of(capsys) and set(contents(output)) == {"thesis.txt"}


def test_a_failure_leaves_nothing_behind(open_clip, rows, output, monkeypatch):
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(digits_clip, "train", lambda *_: None)
    monkeypatch.setattr(digits_clip, "write_clip", fail)
    assert run(rows, output) == 2
    assert list(output.parent.iterdir()) == []


# ---- training


def test_the_norms_of_the_training_become_part_of_the_layers(open_clip):
    towers = Towers(open_clip, SMALL)
    draws = torch.Generator().manual_seed(0)
    pictures = torch.rand(8, 3, 32, 32, generator=draws)
    captions = list(all_captions())[:8]
    for _ in range(5):
        towers.pictures(pictures), towers.texts(captions)
    towers.eval()
    with torch.no_grad():
        wanted = towers.pictures(pictures), towers.texts(captions)
        network = towers.finished()
        tokens = open_clip.SimpleTokenizer(context_length=network.context_length)(captions)
        found = network.encode_image(pictures, normalize=True), network.encode_text(tokens, normalize=True)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_it_learns_which_picture_has_which_caption(open_clip, rows):
    """Eight pictures again and again: most end nearest to their own captions."""
    pictures, captions = read_rows([rows], (4, 2), 32)
    first = [captions.index(caption) for caption in dict.fromkeys(captions) if caption.count(" ") == 1][:8]
    pictures, captions = pictures[first], [captions[row] for row in first]
    plan = Plan(image_size=32, width=8, text_width=16, updates=50, batch_size=8, lr=5e-3)
    network = clip_training.train(open_clip, pictures.repeat(4, 1, 1, 1), captions * 4, plan)
    tokens = open_clip.SimpleTokenizer(context_length=network.context_length)(captions)
    with torch.no_grad():
        shown = network.encode_image(drawings(scaled(pictures))[0], normalize=True)
        scores = shown @ network.encode_text(tokens, normalize=True).T
    assert (scores.argmax(1) == torch.arange(len(captions))).float().mean() > 0.6


def test_equal_captions_are_no_wrong_answers_for_each_other(open_clip):
    towers = Towers(open_clip, SMALL).eval()
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert float(clip_training._loss(towers, pictures, ["a two", "a two"], ["a two"])) == 0


def test_digits_are_added_one_by_one_and_texts_begin_with_the_captions():
    captions = [describe(name, [1, 2, 3][: LAYOUTS[name].count]) for name in LAYOUTS] * 4
    batches = Batches(captions, Plan(updates=100, batch_size=4), torch.Generator().manual_seed(0))
    most = []
    for rows, texts in batches:
        shown = [captions[row] for row in rows.tolist()]
        assert len(rows) == 4 and texts[: len(set(shown))] == list(dict.fromkeys(shown))
        assert len(set(texts)) == len(texts)
        most.append(max(len(all_captions()[caption][1]) for caption in shown))
        assert set(exchanged("a two")) <= set(texts)
    assert max(most[:8]) == 1 and max(most[8:28]) == 2 and max(most[28:]) == 3


def test_drawn_pictures_are_drawings():
    draws = torch.Generator().manual_seed(0)
    pictures = torch.rand(6, 3, 32, 32, generator=draws) * 2 - 1
    shown = varied(pictures, draws, 1.0)
    unblurred = [row for row in range(6) if torch.equal(shown[row], drawings(pictures)[0][row])]
    assert 1 <= len(unblurred) <= 5
    assert any(torch.equal(row, picture) for row, picture in zip(varied(pictures, draws, 0.0), pictures, strict=True))


# ---- wrong captions


def test_wrong_captions_of_a_pair():
    wrong = exchanged("a three above a seven")
    assert len(set(wrong)) == 18 and "a three above an eight" in wrong and "a three above a seven" not in wrong
    assert set(rearranged("a three above a seven")) == {
        "a seven above a three",
        "a three left of a seven",
        "a seven left of a three",
    }
    assert rearranged("a three") == () and len(exchanged("a three")) == 9


def test_captions_are_counted_as_right_if_they_beat_all_wrong_ones():
    places = {caption: place for place, caption in enumerate(all_captions())}
    texts = torch.eye(len(places))
    pictures = torch.zeros(3, len(places))
    pictures[0, places["a two"]] = 1.0
    pictures[1, places["a three above a seven"]] = 1.0
    pictures[2, places["a seven above a three"]] = 1.0
    found = lead(pictures, texts, ["a two", "a three above a seven", "a three above a seven"])
    assert found["exchanged"] == pytest.approx(2 / 3, abs=1e-3) and found["rearranged"] == 0.5
    assert found["exchanged_gap"] == pytest.approx(2 / 3, abs=1e-3) and found["rearranged_gap"] == 0


# ---- refusals


def refused(flags: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["--rows", "x", "--output", "y", *flags])
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--image-size", "40"], "multiple of 32"),
        (["--text-width", "8"], "multiple of 16"),
        (["--width", "3"], "even"),
        (["--updates", "0"], "--updates must be at least 1"),
        (["--batch-size", "1"], "--batch-size at least 2"),
        (["--lr", "0"], "--lr must be above 0"),
        (["--selected-cols", "0,4"], "three column numbers"),
    ],
)
def test_settings_that_make_no_sense_are_refused(flags, message, capsys):
    assert message in refused(flags, capsys)


def test_captions_of_other_data_are_named(open_clip, tmp_path, output, capsys):
    (tmp_path / "dogs.tsv").write_text("1\t\ta dog\t\tAAAA\n")
    assert run(tmp_path / "dogs.tsv", output) == 2
    assert "dogs.tsv:row 1, column 2: 'a dog' is no caption of digits.py" in error_of(capsys)


def test_a_bad_table_to_measure_is_found_before_the_training(open_clip, rows, output, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(digits_clip, "train", lambda *_: pytest.fail("trained first"))
    assert run(rows, output, "--measure", str(tmp_path / "none.tsv")) == 2
    assert "none.tsv" in error_of(capsys)


def test_too_few_pictures_are_refused(open_clip, rows, output, capsys):
    assert run(rows, output, "--batch-size", "64") == 2
    assert "40 pictures are too few for a batch of 64" in error_of(capsys)


def test_missing_open_clip_is_one_line(rows, output, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert run(rows, output) == 2
    assert "pip install 'unival-plugin[images]'" in error_of(capsys)
