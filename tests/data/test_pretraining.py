"""What rows of pretraining mean: texts of every type, the second example of a row, bad rows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unival_plugin.data.boxes import BoxCodec
from unival_plugin.data.grounding_transform import GroundingTrainTransform
from unival_plugin.data.image import eval_transform
from unival_plugin.data.media import Pictures
from unival_plugin.data.negatives import Draws, GeneratorDraws, NegativeSamples
from unival_plugin.data.pretraining import (
    COLUMNS,
    PretrainingEncoder,
    PretrainingExample,
    PretrainingReader,
)
from unival_plugin.data.samples import Sample, collate
from unival_plugin.data.text import build_text_encoder
from unival_plugin.errors import DataError

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "unival_tasks" / "pretraining_rows.json").read_text(encoding="utf-8")
)
SIZE = 64


def negatives(objects: Sequence[str], captions: Sequence[str], answers: dict[str, list[str]]) -> NegativeSamples:
    return NegativeSamples(objects, dict.fromkeys(("picture", "film", "sound"), captions), answers)


ORIGINALS = negatives(GOLDEN["objects"], GOLDEN["captions"], GOLDEN["type2ans"])


def place(column: int | None) -> str:
    return f"rows.tsv:row 7, column {column}"


def row(kind: str, **cells: str) -> list[str]:
    usual = {"id": "7", "medium": "cell", "dataset": "coco", "type": kind}
    if kind.endswith("qa"):
        usual |= {"question": "What is-it?", "refs": "1.0|!+red"}
    else:
        usual |= {"caption": "A Cat!", "refs": "1,2,30,40" if kind == "visual_grounding" else ""}
    return [{**usual, **cells}.get(column, "") for column in COLUMNS]


class Nothing:
    """Draws where none is allowed."""

    def random(self) -> float:
        raise AssertionError("something was drawn")

    def choice(self, seq: Any, /) -> Any:
        raise AssertionError("something was drawn")


def read(kind: str, draws: Draws | None = None, training: bool = False, **cells: str) -> list[PretrainingExample]:
    reader = PretrainingReader(10, 5, ORIGINALS if training else None)
    return reader(row(kind, **cells), place, draws or Nothing())


def seeded(seed: int) -> GeneratorDraws:
    return GeneratorDraws(np.random.default_rng(seed))


# ---- the original's samples


def golden_examples(split: str) -> list[list[PretrainingExample]]:
    """Examples of the golden rows; boxes get the golden bins, as the picture's own draws are another module's."""
    draws = random.Random(0) if split == "train" else Nothing()
    reader = PretrainingReader(128, 30, ORIGINALS if split == "train" else None)
    found = []
    for cells, expected in zip(GOLDEN["rows"], GOLDEN[split], strict=True):
        examples = reader(cells, place, draws)
        if examples[0].box is not None:
            bins = tuple(number - 58457 for number in expected[0]["target"][:-1])
            examples = [replace(example, bins=bins) for example in examples]
            if split == "train":  # what the original draws here: the size of the picture, and a number without use
                draws.choice(range(SIZE, 481))
                draws.random()
        found.append(examples)
    return found


@pytest.mark.parametrize("split", ["train", "valid"])
def test_texts_are_those_of_the_original(split):
    for examples, expected in zip(golden_examples(split), GOLDEN[split], strict=True):
        assert len(examples) == len(expected)
        for example, golden in zip(examples, expected, strict=True):
            bins = " ".join(f"<bin_{number}>" for number in example.bins)
            source = f"{example.source} {bins}" if example.box_in_source else example.source
            target = bins if example.symbols else example.target
            assert {"source": source, "target": target} == golden["text"]
            assert example.id == golden["id"] and example.extras["conf"].tolist() == golden["conf"]
            assert example.unlearned == golden["target"].count(1)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_tokens_are_those_of_the_original(split, gpt2_bpe_dir):
    encoder = encoder_with(build_text_encoder("gpt2", gpt2_bpe_dir))
    for examples, expected in zip(golden_examples(split), GOLDEN[split], strict=True):
        for example, golden in zip(examples, expected, strict=True):
            sample = encoder.texts(example)
            names = ("source", "target", "prev_output_tokens")
            assert {name: sample[name].tolist() for name in names} == {name: golden[name] for name in names}
            assert [encoder.media[example.medium].kind] == golden["patch_type"]


# ---- meaning of a row


@pytest.mark.parametrize(
    "kind, medium, source, target, asked",
    [
        ("caption", "picture", " what does the image describe?", " a cat!", ' does the image describe " a cat! "?'),
        ("video_caption", "film", " what does the video describe?", " a cat!", ' does the video describe " a cat! "?'),
        ("audio_caption", "sound", " what does the audio describe?", " a cat!", ' does the audio describe " a cat! "?'),
        ("qa", "picture", " what is it?", " red", ' what is the answer to question " what is it? ". is " red "?'),
        ("video_qa", "film", " what is it?", " red", ' what is the answer to question " what is it? ". is " red "?'),
    ],
)
def test_a_row_is_asked_for_and_in_training_asked_about(kind, medium, source, target, asked):
    (only,) = read(kind)
    assert (only.id, only.source, only.target, only.media) == ("7", source, target, "cell")
    assert (only.where, only.medium) == (place(1), medium)
    pairs = [read(kind, seeded(seed), training=True) for seed in range(30)]
    assert all((first.source, first.target) == (source, target) for first, _ in pairs)
    right = [second for _, second in pairs if second.target == " yes"]
    assert 0 < len(right) < len(pairs) and {second.source for second in right} == {asked}
    assert {second.target for _, second in pairs} == {" yes", " no"}
    assert {second.medium for _, second in pairs} == {medium}


def test_a_region_is_found_and_described_in_every_split():
    for training in (False, True):
        find, describe = read("visual_grounding", training=training)
        assert find.source == ' which region does the text " a cat! " describe?' and find.symbols
        assert describe.source == "  what does the region describe? region:" and describe.target == " a cat!"
        assert (find.box_in_source, describe.box_in_source) == (False, True)
        assert find.box.tolist() == describe.box.tolist() == [1, 2, 30, 40]
        assert find.extras["conf"].tolist() == describe.extras["conf"].tolist() == [1]


def test_sources_and_targets_have_their_own_limits_of_words():
    words = "one two three four five six seven eight nine ten eleven"
    pairs = [read("caption", seeded(seed), training=True, caption=words) for seed in range(20)]
    assert {first.target for first, _ in pairs} == {" one two three four five"}
    (asked,) = {second.source for _, second in pairs if second.target == " yes"}
    assert asked == ' does the image describe " one two three four five six seven eight nine ten "?'
    assert read("qa", question=words)[0].source == " one two three four five six seven eight nine ten"


def test_the_first_of_the_most_trusted_answers_is_right_and_its_confidence_kept():
    for training in (False, True):
        examples = read("qa", seeded(0), training, refs="0.3|!+one&&0.6|!+two&&0.6|!+three")
        assert examples[0].target == " two"
        assert [example.extras["conf"].item() for example in examples] == [pytest.approx(0.6)] * len(examples)
        assert all(example.extras["conf"].dtype == torch.float32 for example in examples)


@pytest.mark.parametrize(
    "kind, dataset, unlearned", [("caption", "cc12m", 2), ("caption", "coco", 0), ("video_caption", "cc12m", 0)]
)
def test_only_captions_of_cc12m_have_a_beginning_that_is_not_learned(kind, dataset, unlearned):
    first, second = read(kind, seeded(0), training=True, dataset=dataset)
    assert (first.unlearned, second.unlearned) == (unlearned, 0)


# ---- right and wrong


def verdicts(kind: str, **cells: str) -> np.ndarray:
    return np.array([read(kind, seeded(seed), training=True, **cells)[1].target == " yes" for seed in range(3000)])


@pytest.mark.parametrize("kind", ["caption", "video_caption", "audio_caption", "qa", "video_qa"])
def test_half_of_the_second_examples_are_right(kind):
    assert verdicts(kind, objects="Cat").mean() == pytest.approx(0.5, abs=0.03)


some = st.sampled_from(["a cat", "A  cat", "a dog", "A-dog", "tree", "a tree and a cat"])


names = st.sampled_from(["", "cat", "cat&&bird", "&&", " a "])


@given(some, st.lists(some, min_size=1, max_size=3), names, st.integers(0))
def test_wrong_is_never_what_is_right(caption, captions, objects, seed):
    reader = PretrainingReader(10, 5, negatives(["cat", "dog"], captions, {"other": ["x"]}))
    first, second = reader(row("caption", caption=caption, objects=objects), place, seeded(seed))
    said = second.source.removeprefix(' does the image describe "').removesuffix(' "?')
    assert (second.target == " yes") == (said == first.target)


def test_where_nothing_is_wrong_the_second_example_is_right():
    reader = PretrainingReader(10, 5, negatives([], ["A cat"], {"other": ["red"]}))
    for seed in range(20):
        assert reader(row("caption", caption="a cat"), place, seeded(seed))[1].target == " yes"
        assert reader(row("qa"), place, seeded(seed))[1].target == " yes"


def test_the_same_draws_give_the_same_examples():
    texts = [[(e.source, e.target) for e in read("caption", seeded(5), True, objects="Cat")] for _ in range(2)]
    assert texts[0] == texts[1]


# ---- bad rows


@pytest.mark.parametrize(
    "kind, cells, column, words",
    [
        ("detection", {}, 7, "the type 'detection' is not known; needs one of caption, qa, "),
        ("", {}, 7, "the type '' is not known"),
        ("caption", {"caption": "~"}, 2, "the caption is empty; fill it in or delete the row"),
        ("video_caption", {"caption": ""}, 2, "the caption is empty"),
        ("audio_caption", {"caption": ""}, 2, "the caption is empty"),
        ("visual_grounding", {"caption": ""}, 2, "the caption is empty"),
        ("qa", {"question": "??"}, 3, "the question is empty; fill it in or delete the row"),
        ("qa", {"refs": ""}, 4, "'' is no answer"),
        ("qa", {"refs": "0.5|!+red&&nan|!+blue"}, 4, "has a confidence that is no number from 0 on"),
        ("qa", {"refs": "-1|!+red"}, 4, "has a confidence that is no number from 0 on"),
        ("video_qa", {"refs": "red"}, 4, "'red' is no answer; needs confidence"),
        ("visual_grounding", {"refs": ""}, 4, "'' is no box; needs four numbers"),
        ("visual_grounding", {"refs": "1,2,3"}, 4, "'1,2,3' is no box"),
        ("visual_grounding", {"refs": "5,2,5,4"}, 4, "the box 5,2,5,4 is empty"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_bad_row_is_named_with_its_column(kind, cells, column, words, training):
    with pytest.raises(DataError, match=f"^{place(column)}: ") as caught:
        read(kind, seeded(0), training, **cells)
    assert words in str(caught.value)


# ---- samples


class Words:
    """A tokenizer of words: every word gets a number behind the specials, bins get theirs from 1000 on."""

    class dictionary:  # noqa: N801
        bos, pad, eos = staticmethod(lambda: 0), staticmethod(lambda: 1), staticmethod(lambda: 2)

    def __init__(self) -> None:
        self.words: dict[str, int] = {}

    def encode(self, text: str, bos: bool = False) -> torch.Tensor:
        return torch.tensor([0] * bos + [self.words.setdefault(word, 4 + len(self.words)) for word in text.split()])

    def encode_symbols(self, symbols: str) -> torch.Tensor:
        return torch.tensor([1000 + int(symbol[5:-1]) for symbol in symbols.split()], dtype=torch.int64)


def encoder_with(text: Any) -> PretrainingEncoder:
    pictures = Pictures(eval_transform(SIZE))
    return PretrainingEncoder(text, {"picture": pictures}, GroundingTrainTransform(SIZE), BoxCodec(1000, 512, SIZE))


def samples_of(kind: str, **cells: str) -> list[Sample]:
    gradient = Image.linear_gradient("L").resize((120, 90)).convert("RGB")
    examples = [replace(e, media=gradient) for e in read(kind, seeded(3), True, **cells)]
    return encoder_with(Words()).row(examples, lambda: np.random.default_rng(0))


def test_the_samples_of_a_row_share_one_view():
    for kind in ("caption", "qa", "visual_grounding"):
        first, second = samples_of(kind)
        assert first["patch_image"] is second["patch_image"] and first["patch_image"].shape == (3, SIZE, SIZE)
        assert first["patch_type"].tolist() == [0] and first["patch_mask"].tolist() == [True]
        batch = collate([first, second], pad=1)
        assert batch["net_input"]["patch_images"].shape == (2, 3, SIZE, SIZE)
        assert batch["net_input"]["patch_first"].tolist() == [0, 0]
        others = collate([*samples_of(kind), first, second], pad=1)["net_input"]["patch_first"]
        assert others.tolist() == [0, 0, 2, 2]
    assert "patch_first" not in collate([first], pad=1)["net_input"]


def test_a_region_has_the_same_bins_in_target_and_source():
    find, describe = samples_of("visual_grounding", refs="0,0,120,90")
    bins = find["target"][:-1]
    limits = [1000, 1000, 1000 + round(SIZE / 512 * 999), 1000 + round(SIZE / 512 * 999)]
    assert bins.tolist() == limits and describe["source"][-5:].tolist() == [*bins.tolist(), 2]
    assert find["prev_output_tokens"].tolist() == [0, *bins.tolist()]


@pytest.mark.parametrize("caption, padded", [("one two three", 2), ("one two", 2), ("one", 1)])
def test_what_is_not_learned_is_padding_but_stays_in_the_input_of_the_decoder(caption, padded):
    first, second = samples_of("caption", caption=caption, dataset="cc12m")
    words = len(caption.split())
    assert (first["target"] == 1).tolist() == [k < padded for k in range(words + 1)]
    assert first["target"][-1] == 2 and not (first["prev_output_tokens"] == 1).any()
    assert not (second["target"] == 1).any()


def test_a_box_outside_the_picture_is_a_bad_row():
    with pytest.raises(DataError, match="^rows.tsv:row 7, column 1: the box .* shows nothing of the picture"):
        samples_of("visual_grounding", refs="500,500,600,600")


def test_one_example_alone_becomes_the_same_sample():
    gradient = Image.linear_gradient("L").resize((120, 90)).convert("RGB")
    (example,) = (replace(e, media=gradient) for e in read("caption"))
    make: Callable[[], np.random.Generator] = np.random.default_rng
    encoder = encoder_with(Words())
    alone, row_of_one = encoder(example, make), encoder.row([example], make)[0]
    assert alone.keys() == row_of_one.keys() and alone["source"].equal(row_of_one["source"])
    assert {"id", "source", "target", "prev_output_tokens", "conf", "patch_image"} <= alone.keys()
