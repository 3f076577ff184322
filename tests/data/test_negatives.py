"""Wrong captions and answers: drawn as the original draws them, never right by accident."""

from __future__ import annotations

import json
import pickle
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unival_plugin.data.negatives import GeneratorDraws, LineFile, NegativeSamples
from unival_plugin.data.text import pre_caption
from unival_plugin.errors import ConfigError, DataError

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "unival_tasks" / "pretraining_rows.json").read_text(encoding="utf-8")
)
MEDIA = ("picture", "film", "sound")
KINDS = {"color": ["red", "blue", "green"], "how many": ["0", "1", "2", "3"], "other": ["alpha", "beta", "gamma"]}
seeds = st.integers(0, 2**32)


def negatives(captions: list[str] | None = None, objects: list[str] | None = None) -> NegativeSamples:
    captions = ["one dog", "two cats"] if captions is None else captions
    objects = ["cat", "dog", "tree"] if objects is None else objects
    return NegativeSamples(objects, dict.fromkeys(MEDIA, captions), KINDS)


def draws(seed: int) -> GeneratorDraws:
    return GeneratorDraws(np.random.default_rng(seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "all_captions.txt").write_text("A dog!\n\n two cats\nün hund\n", encoding="utf-8")
    (tmp_path / "object.txt").write_text("cat\n\n dog \n", encoding="utf-8")
    (tmp_path / "type2ans.json").write_text(json.dumps(KINDS), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("golden", GOLDEN["negatives"], ids=lambda golden: str(golden["seed"]))
def test_draws_are_those_of_the_original(golden):
    drawn = NegativeSamples(GOLDEN["objects"], dict.fromkeys(MEDIA, GOLDEN["captions"]), GOLDEN["type2ans"])
    caption, objects = GOLDEN["negatives_of"]["caption"]
    got = drawn.caption("picture", caption, objects.split("&&"), str, random.Random(golden["seed"]))
    assert got == golden["caption"]
    for name in ("ans_red", "ans_2", "ans_unknown"):
        answer, confidence = GOLDEN["negatives_of"][name]
        assert drawn.answer([answer], answer, confidence, random.Random(golden["seed"])) == golden[name]


texts = st.sampled_from(["a cat", "A cat", "a dog", "a  cat", "", "~", "a cat and a dog"])


@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, max_size=2), texts, seeds)
def test_a_wrong_caption_never_reads_like_the_right_one(captions, objects, caption, seed):
    wrong = negatives(captions, ["cat", "dog"]).caption("film", caption, objects, pre_caption, draws(seed))
    assert wrong not in ("", pre_caption(caption))
    if wrong is None:
        assert {pre_caption(text) for text in captions} <= {"", pre_caption(caption)}


def test_the_object_that_is_replaced_may_lie_behind_the_cut():
    short = partial(pre_caption, max_words=2)
    wrong = {negatives().caption("picture", "a big cat", ["cat"], short, draws(seed)) for seed in range(50)}
    assert wrong == {"one dog", "two cats"}


def test_two_in_five_wrong_captions_have_an_object_replaced():
    wrong = [negatives().caption("picture", "a bird", ["bird"], pre_caption, draws(seed)) for seed in range(3000)]
    replaced = [text for text in wrong if text.startswith("a ")]
    assert set(replaced) == {"a cat", "a dog"} and len(replaced) / len(wrong) == pytest.approx(0.4, abs=0.03)


def test_without_objects_the_caption_of_another_row_is_taken():
    unnamed = {negatives().caption("picture", "a bird", [], str, draws(seed)) for seed in range(20)}
    unknown = {negatives(objects=[]).caption("picture", "a bird", ["bird"], str, draws(seed)) for seed in range(20)}
    assert unnamed == unknown == {"one dog", "two cats"}


def test_each_medium_has_its_own_captions():
    drawn = NegativeSamples(["cat"], {"picture": ["p"], "film": ["f"], "sound": ["s"]}, KINDS)
    assert [drawn.caption(medium, "x", [], str, draws(0)) for medium in MEDIA] == ["p", "f", "s"]


@given(st.lists(st.sampled_from(["red", "Blue", "1", "2", "alpha", "x"]), min_size=1), st.floats(0, 1.5), seeds)
def test_a_wrong_answer_is_none_of_the_answers_of_the_row(right, confidence, seed):
    wrong = negatives().answer(right, right[0], confidence, draws(seed))
    assert wrong is not None and wrong.casefold() not in {answer.casefold() for answer in right}


def test_trusted_answers_get_wrong_ones_of_their_kind():
    wrong = [negatives().answer(["red"], "red", 0.6, draws(seed)) for seed in range(2000)]
    assert np.mean([answer in KINDS["color"] for answer in wrong]) == pytest.approx(0.5, abs=0.03)
    assert all(answer in KINDS["color"] + KINDS["other"] for answer in wrong)


def test_numbers_are_one_off_and_never_below_zero():
    two = [negatives().answer(["2"], "2", 2.0, draws(seed)) for seed in range(200)]
    assert {"1", "3"} < set(two) <= {"0", "1", "3"}
    none = {negatives().answer(["0"], "0", 2.0, draws(seed)) for seed in range(200)}
    assert "1" in none and "-1" not in none


def test_nothing_wrong_is_left_where_all_is_right():
    assert negatives(["a cat"]).caption("sound", "A cat", [], pre_caption, draws(0)) is None
    one = NegativeSamples([], dict.fromkeys(MEDIA, []), {"other": ["yes"]})
    assert one.answer(["yes"], "yes", 1.0, draws(0)) is None


def test_a_kind_with_one_answer_falls_back_on_others():
    few = NegativeSamples([], {}, {"color": ["red"], "other": ["alpha"]})
    assert {few.answer(["red"], "red", 2.0, draws(seed)) for seed in range(20)} == {"alpha"}


def test_nothing_to_draw_from_is_told():
    empty = NegativeSamples([], dict.fromkeys(MEDIA, []), {"other": []})
    with pytest.raises(ConfigError, match="no captions .* for a film; make the files of --neg-sample-dir"):
        empty.caption("film", "a", [], str, draws(0))
    with pytest.raises(ConfigError, match="no answers of the kind 'other'"):
        empty.answer(["a"], "a", 1.0, draws(0))


# ---- files


def test_files_are_read(folder: Path):
    drawn = NegativeSamples.read(folder)
    assert drawn.objects == ["cat", "dog"] and drawn.answers == KINDS
    assert list(drawn.captions["picture"]) == ["A dog!", "", "two cats", "ün hund"]
    assert drawn.captions["film"] is drawn.captions["sound"] is drawn.captions["picture"]
    assert drawn.kinds["3"] == "how many" and "alpha" not in drawn.kinds


def test_empty_lines_are_never_drawn(folder: Path):
    drawn = NegativeSamples.read(folder)
    found = {drawn.caption("picture", "a dog!", [], pre_caption, draws(seed)) for seed in range(60)}
    assert found == {"two cats", "ün hund"}


def test_films_and_sounds_can_have_files_of_their_own(folder: Path):
    for name in ("films.txt", "sounds.txt"):
        (folder / name).write_text(f"{name}\n")
    drawn = NegativeSamples.read(folder, folder / "films.txt", folder / "sounds.txt")
    assert drawn.captions["film"][0] == "films.txt" and drawn.captions["sound"][0] == "sounds.txt"


def test_lines_stay_in_the_file_when_pickled(folder: Path):
    (folder / "many.txt").write_text("a caption\n" * 10_000)
    lines = LineFile(folder / "many.txt")
    packed = pickle.dumps(lines)
    assert len(packed) < 1000 and pickle.loads(packed)[9999] == "a caption"
    assert lines[2:4] == ["a caption"] * 2


@pytest.mark.parametrize("name", ["all_captions.txt", "object.txt", "type2ans.json"])
def test_a_missing_file_is_named_with_its_maker(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"{name}.*dataset_tools/negative_samples.py, or correct --neg-sample-dir"):
        NegativeSamples.read(folder)


def test_a_missing_file_of_films_is_named_with_its_flag(folder: Path):
    with pytest.raises(ConfigError, match="films.txt does not exist.*or correct --neg-captions-video"):
        NegativeSamples.read(folder, folder / "films.txt")


@pytest.mark.parametrize("content", ["[]", '{"color": ["red"]}', '{"other": "red"}', '{"other": [1]}', "{", "{}"])
def test_damaged_answers_are_refused(folder: Path, content: str):
    (folder / "type2ans.json").write_text(content)
    with pytest.raises(ConfigError, match="type2ans.json: .*needs an object that gives every kind"):
        NegativeSamples.read(folder)


def test_objects_that_are_not_utf8_are_refused(folder: Path):
    (folder / "object.txt").write_bytes(b"a\xff\n")
    with pytest.raises(ConfigError, match=r"object.txt: not UTF-8 \(byte 1\)"):
        NegativeSamples.read(folder)


def test_a_caption_with_a_tab_is_named_with_its_row(folder: Path):
    (folder / "all_captions.txt").write_text("a\nb\tc\n")
    with pytest.raises(DataError, match="all_captions.txt:row 2 has 2 columns"):
        list(NegativeSamples.read(folder).captions["picture"])
