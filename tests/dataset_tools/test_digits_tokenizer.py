"""Training a small image tokenizer: what is written, that it learns, repeats itself and refuses bad input."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

import digits_tokenizer
import pytest
import torch
from digits_scenes import SceneMaker, encoded_picture, load_source
from digits_tokenizer import CONFIG, MANIFEST, TOOL, WEIGHTS, main, read_pictures
from PIL import Image
from tokenizer_training import PAPER, SHADE, CodeBook, Plan, drawings, inked, measure, scaled, train

from unival_cli.light import light

QUICK = ["--updates", "3", "--batch-size", "4", "--held-out", "4", "--channels", "4", "--image-size", "32"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty rows of captions with pictures."""
    maker = SceneMaker(load_source(seed=7), seed=7)
    scenes = [maker.make("train", 1, number) for number in range(60)]
    path = tmp_path_factory.mktemp("rows") / "train.tsv"
    lines = ["\t".join([str(scene.number), "", scene.caption, "", encoded_picture(scene)]) for scene in scenes]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "tokenizer"


def run(rows: Path, output: Path, *flags: str) -> int:
    return main(["--rows", str(rows), "--selected-cols", "0,4", "--output", str(output), *QUICK, *flags])


def read(folder: Path):
    return light("checkpoints.image_tokenizer").read_image_tokenizer(folder / WEIGHTS, folder / CONFIG)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith(f"{TOOL}: error: ") and error.count("\n") == 1
    return error


# ---- what is written


def test_the_folder_holds_a_tokenizer_of_codes_for_8_pixels(rows, output, capsys):
    assert run(rows, output, "--code-dict-size", "64") == 0
    assert set(contents(output)) == {WEIGHTS, CONFIG, MANIFEST}
    tokenizer = read(output)
    assert (tokenizer.codes, tokenizer.factor) == (64, 8)
    codes = tokenizer.encode(torch.zeros(2, 3, 32, 32))
    assert codes.shape == (2, 4, 4) and codes.min() >= 0 and codes.max() < 64
    assert tokenizer.decode(codes).shape == (2, 3, 32, 32)
    shown = capsys.readouterr().out
    assert "4 held-out pictures" in shown and "of 64 codes" in shown


def test_the_manifest_tells_settings_and_how_good_it_is(rows, output):
    assert run(rows, output, "--code-dict-size", "16") == 0
    manifest = json.loads((output / MANIFEST).read_text())
    assert manifest["settings"]["code_dict_size"] == 16 and manifest["settings"]["updates"] == 3
    found = measure(read(output), read_pictures([rows], 4, 32)[-4:])
    assert manifest["held_out"] == found and 1 <= found["codes_used"] <= 16


def test_same_seed_same_bytes(rows, output):
    assert run(rows, output) == 0
    first = contents(output)
    assert run(rows, output, "--overwrite") == 0
    assert contents(output) == first


def test_another_seed_other_weights(rows, output):
    assert run(rows, output) == 0
    first = contents(output)
    assert run(rows, output, "--overwrite", "--seed", "8") == 0
    assert contents(output)[WEIGHTS] != first[WEIGHTS]


def test_training_leaves_the_caller_its_random_numbers(rows):
    pictures = read_pictures([rows], 4, 32)
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    train(pictures, Plan(image_size=32, channels=4, updates=1, batch_size=4))
    assert torch.rand(1) == wanted


# ---- that it learns


def test_training_lowers_the_error_and_uses_many_codes(rows):
    pictures = read_pictures([rows], 4, 32)
    settings = {"image_size": 32, "batch_size": 8, "channels": 4, "code_dict_size": 32, "lr": 1e-2}
    early, late = (measure(train(pictures, Plan(updates=n, **settings)), pictures) for n in (1, 40))
    assert late["error"] < 0.6 * early["error"]
    assert late["codes_used"] > 16


def test_drawings_are_dark_on_light_without_noise_and_tint(rows):
    wanted, ink = drawings(scaled(read_pictures([rows], 4, 64)))
    assert wanted.shape == (60, 3, 64, 64) and ink.shape == (60, 1, 64, 64)
    assert (wanted[:, :1] == wanted).all() and (wanted.flatten(1).median(1).values == SHADE).all()
    shares = (wanted == SHADE).float().mean((1, 2, 3))
    assert (shares > 0.6).all() and (shares < 0.98).all()
    assert (wanted.amin((1, 2, 3)) == -SHADE).all()


def test_a_picture_and_its_negative_have_the_same_drawing(rows):
    pictures = scaled(read_pictures([rows], 4, 32))
    assert (drawings(pictures)[0] - drawings(-pictures)[0]).abs().mean() < 0.01


def test_places_with_ink_around_them_are_inked():
    ink = torch.zeros(1, 1, 32, 32)
    ink[0, 0, 17, 11] = 1.0
    places = inked(ink).reshape(4, 4)
    assert places.nonzero().tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]


def test_a_book_keeps_paper_at_zero_and_follows_what_it_is_used_for():
    draws = torch.Generator().manual_seed(0)
    centres = torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, 0.0]])
    vectors = centres.repeat(50, 1) + 0.1 * torch.randn(150, 2, generator=draws)
    book = CodeBook(vectors, 4, draws)
    for _ in range(60):
        book.follow(vectors, book.nearest(vectors))
    assert (book.vectors[PAPER] == 0).all()
    assert (torch.cdist(centres, book.vectors).min(1).values < 0.3).all()
    assert (book.nearest(torch.zeros(1, 2)) == PAPER).all()


def test_a_perfect_tokenizer_has_no_error_and_counts_its_codes():
    class Perfect(torch.nn.Module):
        codes = 8

        def encode(self, pictures):
            return torch.arange(4).reshape(1, 2, 2).expand(len(pictures), 2, 2)

        def decode(self, codes):
            return torch.full((len(codes), 3, 16, 16), SHADE)

    found = measure(Perfect(), torch.zeros(4, 3, 16, 16, dtype=torch.uint8))
    assert found == {"error": 0.0, "codes_used": 4, "perplexity": 4.0}


# ---- bad input


def table(folder: Path, cells: Sequence[str]) -> Path:
    path = folder / "rows.tsv"
    path.write_text("".join(f"id\t\t\t\t{cell}\n" for cell in cells))
    return path


@pytest.mark.parametrize(
    ("cell", "reason"),
    [("?", ""), ("", "empty"), (base64.b64encode(b"text").decode(), "not a picture")],
)
def test_a_bad_picture_is_named(rows, tmp_path, output, capsys, cell, reason):
    good = rows.read_text().split("\n")[0].split("\t")[4]
    path = table(tmp_path, [good, cell])
    assert run(path, output) == 2
    error = error_of(capsys)
    assert f"{path}:row 2, column 4" in error and reason in error and not output.exists()


def test_a_missing_column_is_named(rows, output, capsys):
    assert run(rows, output, "--selected-cols", "0,9") == 2
    assert "column 9" in error_of(capsys)


def test_a_missing_table_is_named(tmp_path, output, capsys):
    assert run(tmp_path / "none.tsv", output) == 2
    assert "none.tsv does not exist" in error_of(capsys)


def test_an_empty_table_is_named(tmp_path, output, capsys):
    assert run(table(tmp_path, []), output) == 2
    assert "rows.tsv is empty" in error_of(capsys)


def test_empty_pictures_are_refused(tmp_path, output, capsys):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (9, 80, 200)).save(buffer, "PNG")
    assert run(table(tmp_path, [base64.b64encode(buffer.getvalue()).decode()] * 12), output) == 2
    assert "the pictures are empty" in error_of(capsys)


def test_too_few_pictures_are_refused(rows, output, capsys):
    assert run(rows, output, "--held-out", "57") == 2
    assert "60 pictures are too few" in error_of(capsys)


@pytest.mark.parametrize(
    "flags",
    [
        ["--image-size", "20"],
        ["--code-dict-size", "1"],
        ["--updates", "0"],
        ["--channels", "0"],
        ["--lr", "0"],
        ["--lr", "nan"],
        ["--seed", "-1"],
        ["--selected-cols", "4"],
        ["--selected-cols", "0,x"],
    ],
)
def test_flags_out_of_range_are_refused(rows, output, capsys, flags):
    with pytest.raises(SystemExit):
        run(rows, output, *flags)
    assert flags[0] in capsys.readouterr().err and not output.exists()


# ---- the folder


def test_a_folder_is_not_replaced_unasked(rows, output, capsys):
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    assert run(rows, output) == 2
    assert "add --overwrite" in error_of(capsys)
    assert run(rows, output, "--overwrite") == 2
    assert "is no earlier build" in error_of(capsys) and (output / "mine.txt").exists()


def test_a_stopped_training_leaves_nothing(rows, output, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(digits_tokenizer, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        run(rows, output)
    assert list(output.parent.iterdir()) == []
