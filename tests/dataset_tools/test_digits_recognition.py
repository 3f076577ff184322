"""Reading digits off pictures: what is found in real scenes, what agrees with a caption, and the command's report."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_reader import Found, Reader
from digits_recognition import TOOL, Rows, Tally, agrees, asked_by, main, redrawn
from digits_scenes import LAYOUTS, Scene, SceneMaker, describe, encoded_picture, load_source
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tokenizer_training import Plan, new_tokenizer

from unival_cli.light import light

TWO = ["--predictions", "a.json", "--pictures", "b", "--tokenizer", "c"]
LEFT, RIGHT, BELOW = (5, 5, 20, 25), (40, 5, 55, 25), (20, 40, 35, 60)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.trained(seed=7, copies=1)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Scenes of digits that the reader does not know."""
    maker = SceneMaker(load_source(seed=7), seed=7)
    return [maker.make("val", 1, number) for number in range(60)]


def picture(scene: Scene) -> Image.Image:
    return Image.open(io.BytesIO(scene.picture))


def found(*digits: tuple[int, tuple[int, int, int, int]]) -> list[Found]:
    return [Found(label, box, 1.0) for label, box in digits]


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith(f"{TOOL}: error: ") and error.count("\n") == 1
    return error


# ---- reading


def test_digits_of_unknown_scans_are_found_and_read(reader, scenes):
    right = sum(agrees(reader.read(picture(scene)), scene.caption).arrangement for scene in scenes)
    assert right >= 0.85 * len(scenes)


def test_there_are_as_many_digits_as_drawn_and_where_they_were_drawn(reader, scenes):
    for scene in scenes:
        boxes = np.array(sorted(digit.box for digit in reader.read(picture(scene))))
        assert np.abs(boxes - sorted(digit.box for digit in scene.digits)).max() <= 3


def test_the_size_of_a_picture_does_not_matter(reader, scenes):
    large = [picture(scene).resize((256, 256), Image.Resampling.BICUBIC) for scene in scenes[:10]]
    assert [len(reader.read(image)) for image in large] == [len(scene.digits) for scene in scenes[:10]]


def test_an_empty_picture_has_no_digits(reader):
    assert reader.read(Image.new("RGB", (64, 64), (200, 40, 90))) == []
    noise = np.random.default_rng(0).normal(120, 8, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    assert reader.read(Image.fromarray(noise)) == []


def test_a_break_in_a_digit_makes_it_no_two_digits(reader, scenes):
    scene = next(scene for scene in scenes if scene.layout == "single")
    (digit,) = reader.read(picture(scene))
    pixels = np.array(picture(scene).convert("RGB"))
    pixels[digit.box[1] + 6 : digit.box[1] + 8] = np.median(pixels, axis=(0, 1))
    assert len(reader.read(Image.fromarray(pixels))) == 1


def test_digits_that_touch_are_two(reader, scenes):
    ones = [scene for scene in scenes if scene.layout == "single"][:2]
    tiles = []
    for scene in ones:
        x0, y0, x1, y1 = scene.digits[0].box
        grey = np.asarray(picture(scene).convert("L"), dtype=np.float32)
        grey = np.abs(grey - np.median(grey))[y0:y1, x0:x1]
        tiles.append(grey * (255 / grey.max()))
    canvas = np.zeros((64, 64), np.uint8)
    top = 4
    for tile in tiles:
        canvas[top : top + tile.shape[0], 20 : 20 + tile.shape[1]] = tile
        top += tile.shape[0]
    assert len(reader.read(Image.fromarray(canvas))) == 2


def test_the_reader_repeats_itself(reader, scenes):
    image = picture(scenes[0])
    assert Reader.trained(seed=7, copies=1).read(image) == reader.read(image)


# ---- comparing with captions


@given(st.sampled_from(sorted(LAYOUTS)), st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_captions_tell_layout_and_digits(layout, labels):
    labels = labels[: LAYOUTS[layout].count]
    asked = asked_by(describe(layout, labels))
    assert (asked.layout, list(asked.labels)) == (layout, labels)


@pytest.mark.parametrize("caption", ["", "a dog", "two", "a two left of", "a two left of a ten", "an two"])
def test_other_captions_are_refused(caption):
    with pytest.raises(light("errors").DataError, match="none of those of digits.py"):
        asked_by(caption)


def test_digits_and_arrangement_are_compared_separately():
    both = found((2, LEFT), (8, RIGHT))
    assert agrees(both, "a two left of an eight").arrangement
    assert agrees(both, "an eight left of a two").digits and not agrees(both, "an eight left of a two").arrangement
    assert not agrees(both, "a two above an eight").arrangement
    assert not agrees(both, "a two left of a three").digits


def test_a_digit_too_many_or_too_few_does_not_agree():
    caption = "a two left of a two"
    assert not agrees(found((2, LEFT)), caption).digits
    assert agrees(found((2, RIGHT), (2, LEFT)), caption).arrangement
    assert not agrees(found((2, LEFT), (2, RIGHT), (2, BELOW)), caption).digits


def test_three_digits_are_compared_in_any_order():
    three = found((1, BELOW), (7, RIGHT), (4, LEFT))
    assert agrees(three, "a four and a seven above a one").arrangement
    assert not agrees(three, "a seven and a four above a one").arrangement


def test_the_report_counts_confusions():
    tally = Tally()
    tally.add(found((2, LEFT), (8, RIGHT)), "a two left of an eight")
    tally.add(found((2, LEFT), (3, RIGHT)), "a two left of an eight")
    tally.add(found((2, LEFT)), "a two left of a two")
    report = tally.report()
    assert report["pictures"] == 3 and report["right_digits"] == report["right_digits_and_arrangement"] == 0.3333
    assert report["right_number_of_digits"] == 0.6667
    assert report["each_digit"] == {
        "two": {"asked": 4, "found": 0.75, "taken_for": {}},
        "eight": {"asked": 2, "found": 0.5, "taken_for": {"three": 1}},
    }


# ---- the command


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, reader: Reader) -> None:
    monkeypatch.setattr(Reader, "trained", classmethod(lambda cls, seed: reader))


def test_rows_are_read(quick, scenes, tmp_path, capsys):
    path, output = tmp_path / "test.tsv", tmp_path / "found.json"
    rows = [[str(scene.number), "", scene.caption, "", encoded_picture(scene)] for scene in scenes[:20]]
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    assert main(["--tsv", str(path), "--selected-cols", "0,4,2", "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert report["pictures"] == 20 and report["right_digits"] >= 0.8
    assert capsys.readouterr().out.startswith("20 pictures: exactly the asked digits in ")


def test_rows_may_be_read_after_a_tokenizer_redrew_them(quick, scenes, tmp_path, capsys):
    tokenizer = new_tokenizer(Plan(channels=4)).eval()
    files = tmp_path / "last.ckpt", tmp_path / "model.yaml"
    light("checkpoints.image_tokenizer").write_image_tokenizer(tokenizer, *files)
    real = Rows([scene.caption for scene in scenes[:2]], lambda i: picture(scenes[i]).convert("RGB"))
    drawn = np.asarray(redrawn(real, tmp_path).picture(1))
    pixels = torch.from_numpy(np.array(real.picture(1))).permute(2, 0, 1)[None] / 127.5 - 1
    wanted = (tokenizer.decode(tokenizer.encode(pixels))[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(drawn - wanted).max() <= 0.51


def predictions(folder: Path, *entries: dict[str, str]) -> list[str]:
    (folder / "predict.json").write_text(json.dumps(entries))
    return ["--predictions", str(folder / "predict.json"), "--pictures", str(folder)]


def test_what_a_model_drew_is_read(quick, scenes, tmp_path, capsys):
    scene = scenes[0]
    picture(scene).save(tmp_path / "a_0.png")
    right, wrong = describe(scene.layout, [d.label for d in scene.digits]), describe("single", [5])
    entries = [{"id": "1", "caption": text, "picture": "a_0.png"} for text in (right, wrong)]
    assert main(predictions(tmp_path, *entries)) == 0
    assert "2 pictures: exactly the asked digits in 50.0%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"caption": "a two", "picture": "none.png"}, "entry 1"),
        ({"caption": "a two", "picture": "../none.png"}, "leaves the folder"),
        ({"caption": "a two"}, "no list of objects with caption and picture"),
    ],
)
def test_bad_predictions_are_named(quick, tmp_path, capsys, entry, reason):
    assert main(predictions(tmp_path, entry)) == 2
    assert reason in error_of(capsys)


def test_other_captions_are_named(quick, scenes, tmp_path, capsys):
    picture(scenes[0]).save(tmp_path / "a_0.png")
    assert main(predictions(tmp_path, {"caption": "a dog", "picture": "a_0.png"})) == 2
    assert "'a dog'" in error_of(capsys)


def test_no_predictions_are_refused(quick, tmp_path, capsys):
    assert main(predictions(tmp_path)) == 2
    assert "there are no pictures" in error_of(capsys)


def test_an_output_is_not_replaced_unasked(tmp_path, capsys):
    output = tmp_path / "found.json"
    output.write_text("mine")
    assert main(["--tsv", str(tmp_path / "none.tsv"), "--output", str(output)]) == 2
    assert "add --overwrite" in error_of(capsys) and output.read_text() == "mine"


@pytest.mark.parametrize("flags", [[], ["--predictions", "a.json"], ["--tsv", "a", "--pictures", "b"], TWO])
def test_flags_that_do_not_fit_are_refused(flags, capsys):
    with pytest.raises(SystemExit):
        main(flags)
    assert "--" in capsys.readouterr().err
