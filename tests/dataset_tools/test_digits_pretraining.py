"""Rows for pretraining: they mean what the rows of the other tasks say of the same pictures, films and sounds."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("soundfile")

import digits
import negative_samples
from digits_film_questions import QUESTIONS
from digits_rows import ROW_KINDS
from digits_scenes import SceneMaker, load_source
from PIL import Image
from scene_reading import at

from unival_plugin.data.negatives import GeneratorDraws, NegativeSamples
from unival_plugin.data.pretraining import COLUMNS, MEDIUM_OF_TYPE, PretrainingReader
from unival_plugin.data.text import pre_question

OLD = ("caption", "vqa_gen", "refcoco", "video_caption", "video_vqa_gen", "audio_caption")
TYPES = {
    "pretrain_caption": ["caption"],
    "pretrain_image_text": ["caption"],
    "pretrain_qa": ["qa"],
    "pretrain_ground": ["visual_grounding"],
    "pretrain_video": ["video_caption"] + QUESTIONS * ["video_qa"],
    "pretrain_audio": ["audio_caption"],
}
"""The types of the rows of one picture, film or sound."""
STEMS = ("train_1", "train_2", "val", "test")
SIZES = {"train_rows": 40, "films": 3, "sounds": 4, "val_rows": 2, "test_rows": 3, "epoch_files": 2, "easy_files": 1}


def build(folder, tasks):
    digits.build(folder, digits.BuildPlan(tasks=tuple(tasks), **SIZES))
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("pretrain") / "data", (*OLD, *TYPES))


def rows(folder, task, stem):
    path = folder / digits.file_name(task, stem)
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def place(column):
    return f"column {column}"


def read(cells, negatives=None, draws=None):
    """The examples of a row; without negatives nothing may be drawn."""
    return PretrainingReader(40, 40, negatives)(cells, place, draws)


def everything(folder):
    """(task, cells) of all rows for pretraining."""
    return [(task, cells) for task in TYPES for stem in STEMS for cells in rows(folder, task, stem)]


# ---- what rows mean


def test_the_reader_takes_every_row(built):
    for task, cells in everything(built):
        assert len(cells) == len(COLUMNS)
        examples = read(cells)
        assert len(examples) == (2 if task == "pretrain_ground" else 1)
        assert examples[0].medium == MEDIUM_OF_TYPE[cells[7]] == ROW_KINDS[task].medium


@pytest.mark.parametrize("task", TYPES)
@pytest.mark.parametrize("stem", STEMS)
def test_every_picture_film_and_sound_gives_rows_of_these_types(built, task, stem):
    table = rows(built, task, stem)
    sizes = {"picture": SIZES["train_rows"], "film": SIZES["films"], "sound": SIZES["sounds"]}
    number = sizes[ROW_KINDS[task].medium] if "train" in stem else SIZES[f"{stem}_rows"]
    assert [cells[7] for cells in table] == TYPES[task] * number
    assert len({cells[0] for cells in table}) == len(table)


def test_the_medium_is_a_picture_or_a_file_of_the_build(built):
    for task, cells in everything(built):
        if ROW_KINDS[task].medium == "picture":
            with Image.open(io.BytesIO(base64.b64decode(cells[1], validate=True))) as picture:
                assert picture.size == (64, 64)
        else:
            assert (built / cells[1]).stat().st_size > 0


@pytest.mark.parametrize("stem", STEMS)
def test_captions_of_pictures(built, stem):
    named = zip(rows(built, "pretrain_caption", stem), rows(built, "caption", stem), strict=True)
    for cells, (number, _, caption, objects, picture) in named:
        assert cells == [number, picture, caption, "", "", objects, "digits", "caption"]
        assert read(cells)[0].target == f" {caption}" and read(cells)[0].unlearned == 0


def test_captions_of_the_web_have_no_objects_and_their_beginnings_are_not_learned(built):
    for cells, usual in zip(
        rows(built, "pretrain_image_text", "test"), rows(built, "pretrain_caption", "test"), strict=True
    ):
        assert cells == [*usual[:5], "", "cc12m", "caption"]
        assert read(cells)[0].unlearned == 2


@pytest.mark.parametrize("stem", STEMS)
def test_questions_about_pictures(built, stem):
    for cells, (number, _, question, answers, _, picture) in zip(
        rows(built, "pretrain_qa", stem), rows(built, "vqa_gen", stem), strict=True
    ):
        assert cells == [number, picture, "", question, answers, "", "digits", "qa"]
        best = max((part.split("|!+") for part in answers.split("&&")), key=lambda part: float(part[0]))
        (example,) = read(cells)
        assert example.source == f" {pre_question(question, 40)}"
        assert example.target == f" {best[1]}" and example.extras["conf"].item() == pytest.approx(float(best[0]))


@pytest.mark.parametrize("stem", STEMS)
def test_expressions_and_boxes(built, stem):
    for cells, (number, _, expression, box, picture) in zip(
        rows(built, "pretrain_ground", stem), rows(built, "refcoco", stem), strict=True
    ):
        assert cells == [number, picture, expression, "", box, "", "digits", "visual_grounding"]
        find, describe = read(cells)
        assert f'" {expression} "' in find.source and describe.target == f" {expression}"


def test_the_box_is_that_of_the_digit_that_the_expression_names(built):
    maker = SceneMaker(load_source(seed=7), seed=7)
    checked = 0
    for row, cells in enumerate(rows(built, "pretrain_ground", "train_2")):
        scene = maker.make("train", 2, row)
        boxes = [digit.box for digit in scene.digits]
        words = cells[2].split()
        digit = boxes.index(tuple(int(edge) for edge in read(cells)[0].box.tolist()))
        side = next((side for side in ("left", "right", "top", "bottom", "upper", "lower") if side in words), None)
        if side and len(boxes) == 2 and "of" not in words:
            assert at(scene, side) == digit
            checked += 1
    assert checked > 3


@pytest.mark.parametrize("stem", STEMS)
def test_a_film_has_its_caption_and_then_its_questions(built, stem):
    table = rows(built, "pretrain_video", stem)
    captions, questions = rows(built, "video_caption", stem), rows(built, "video_vqa_gen", stem)
    for k, (_, _, caption, _, path) in enumerate(captions):
        first, *others = table[k * (1 + QUESTIONS) : (k + 1) * (1 + QUESTIONS)]
        assert first[1:] == [path, caption, "", "", "", "digits", "video_caption"]
        about = questions[k * QUESTIONS : (k + 1) * QUESTIONS]
        for cells, (_, _, question, answers, _, same_path) in zip(others, about, strict=True):
            assert path == same_path
            assert cells[1:] == [path, "", question, answers, "", "digits", "video_qa"]
            assert read(cells)[0].target == f" {answers.removeprefix('1.0|!+')}"


def test_captions_of_sounds(built):
    for cells, (number, _, caption, _, path) in zip(
        rows(built, "pretrain_audio", "train_2"), rows(built, "audio_caption", "train_2"), strict=True
    ):
        assert cells == [number, path, caption, "", "", "", "digits", "audio_caption"]


# ---- builds


def test_the_files_of_other_tasks_stay_as_they_are(built, tmp_path):
    together, alone = contents(built), contents(build(tmp_path / "alone", OLD))
    described = {"manifest.json", "README.txt"}
    assert {name: together[name] for name in alone.keys() - described} == {
        name: alone[name] for name in alone.keys() - described
    }
    new = together.keys() - alone.keys()
    assert new == {digits.file_name(task, stem) for task in TYPES for stem in STEMS}
    assert b"pretrain" not in alone["README.txt"] + alone["manifest.json"]


def test_the_rows_do_not_depend_on_the_other_tasks(built, tmp_path):
    tasks = ("pretrain_ground", "pretrain_video")
    alone = contents(build(tmp_path / "alone", tasks))
    for name in (digits.file_name(task, stem) for task in tasks for stem in STEMS):
        assert alone[name] == contents(built)[name]
    assert not [name for name in alone if "answers" in name]


def test_readme_and_manifest_tell_of_the_rows(built):
    manifest, text = json.loads((built / "manifest.json").read_text()), (built / "README.txt").read_text()
    assert manifest["tasks"] == [*OLD, *TYPES]
    assert manifest["rows"]["pretrain_video_train_1.tsv"] == SIZES["films"] * (1 + QUESTIONS)
    for task in TYPES:
        assert f"Columns of the {task} rows: id, " in text
    assert text.count("read with --selected-cols 0,1,2,3,4,5,6,7.") == len(TYPES)


def test_an_unknown_task_is_answered_with_the_known_ones(tmp_path, capsys):
    with pytest.raises(SystemExit):
        digits.main(["--output", str(tmp_path / "data"), "--tasks", "pretrain_film"])
    error = capsys.readouterr().err
    assert "unknown task 'pretrain_film'" in error
    assert all(task in error for task in TYPES)


# ---- wrong captions and answers


def test_wrong_captions_and_answers_can_be_drawn_from_the_rows(built, tmp_path):
    files = [str(built / digits.file_name(task, f"train_{k}")) for task in TYPES for k in (1, 2)]
    folder = tmp_path / "negative_sample"
    assert negative_samples.main(["--output", str(folder), "--task", "unify_task", *files, "--min-count", "2"]) == 0
    assert json.loads((folder / "manifest.json").read_text())["lines"].keys() == {
        "all_captions.txt",
        "all_captions_video.txt",
        "all_captions_audio.txt",
        "object.txt",
    }
    films, sounds = folder / "all_captions_video.txt", folder / "all_captions_audio.txt"
    negatives = NegativeSamples.read(folder, films, sounds)
    draws = GeneratorDraws(np.random.default_rng(0))
    verdicts = set()
    for task, cells in everything(built):
        examples = read(cells, negatives, draws)
        assert len(examples) == 2
        if task == "pretrain_ground":
            continue
        told = f'" {examples[0].target.strip()} "' in examples[1].source
        assert examples[1].target == (" yes" if told else " no")
        verdicts.add((cells[7], examples[1].target))
    assert len(verdicts) == 2 * (len(MEDIUM_OF_TYPE) - 1)
