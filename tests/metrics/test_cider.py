"""CIDEr-D against the reference's and pycocoevalcap's numbers, and the files of document frequencies."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unival_plugin.errors import ConfigError, DataError
from unival_plugin.metrics.cider import CiderD, DocumentFrequency

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "unival_tasks" / "ciderd.json").read_text())
REFERENCES = list(GOLDEN["references"].values())

words = st.sampled_from(["a", "the", "cat", "dog", "red", "Red", "sits", "runs", "on", "été"])
captions = st.lists(words, max_size=9).map(" ".join)
full_captions = st.lists(words, min_size=1, max_size=9).map(" ".join)
pictures = st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=4)), min_size=1, max_size=8)


def corpus_scores(hypotheses, references):
    return CiderD(DocumentFrequency.from_references(references)).scores(hypotheses, references)


def plain_cider(hypothesis, group, df, n=4, sigma=6.0):
    """The formula, word for word and slowly."""

    def vectors(text):
        split, found = text.split(), []
        for order in range(1, n + 1):
            grams = [tuple(split[i : i + order]) for i in range(len(split) - order + 1)]
            idf = {g: math.log(df.ref_len) - math.log(max(1.0, df.counts.get(g, 0))) for g in grams}
            found.append({g: grams.count(g) * idf[g] for g in grams})
        return found, max(len(split) - 1, 0)

    theirs, length = vectors(hypothesis)
    total = 0.0
    for reference in group:
        ours, other = vectors(reference)
        for a, b in zip(theirs, ours, strict=True):
            scale = math.sqrt(sum(v * v for v in a.values())) * math.sqrt(sum(v * v for v in b.values()))
            dot = sum(min(a[g], b[g]) * b[g] for g in a.keys() & b.keys())
            total += (dot / scale if scale else 0.0) * math.exp(-((length - other) ** 2) / (2 * sigma**2)) / n
    return 10 * total / len(group)


def test_numbers_of_the_reference():
    df = DocumentFrequency.from_references(REFERENCES)
    assert df.ref_len == GOLDEN["cached_df"]["ref_len"]
    scores = CiderD(df).scores(GOLDEN["hypotheses"], REFERENCES)
    np.testing.assert_allclose(scores, GOLDEN["cached_scores"], atol=1e-6)
    np.testing.assert_allclose(scores, GOLDEN["corpus_scores"], atol=1e-6)
    identical = corpus_scores([group[0] for group in REFERENCES], REFERENCES)
    np.testing.assert_allclose(identical, GOLDEN["identical_hyp_corpus"][1], atol=1e-6)


@settings(deadline=None)
@given(pictures)
def test_equals_the_plain_formula(rows):
    hypotheses, references = [row[0] for row in rows], [row[1] for row in rows]
    df = DocumentFrequency.from_references(references)
    expected = [plain_cider(h, group, df) for h, group in zip(hypotheses, references, strict=True)]
    np.testing.assert_allclose(CiderD(df).scores(hypotheses, references), expected, atol=1e-9)


def test_equals_pycocoevalcap():
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    rng = random.Random(3)
    vocabulary = [f"w{i}" for i in range(60)]

    def caption():
        return " ".join(rng.choices(vocabulary, weights=range(1, 61), k=rng.randint(1, 12)))

    references = [[caption() for _ in range(rng.randint(1, 5))] for _ in range(60)]
    hypotheses = [rng.choice([group[0], caption(), ""]) for group in references]
    _, expected = cider.Cider().compute_score(dict(enumerate(references)), {i: [h] for i, h in enumerate(hypotheses)})
    np.testing.assert_allclose(corpus_scores(hypotheses, references), expected, atol=1e-9)


@settings(deadline=None)
@given(st.lists(full_captions, min_size=2, max_size=8), full_captions)
def test_nothing_scores_higher_than_the_only_reference(references, other):
    df = DocumentFrequency.from_references([[text] for text in references])
    groups = [[references[0]], [references[0]]]
    same, different = CiderD(df).scores([references[0], other], groups)
    assert same >= different - 1e-9
    assert same <= 10 + 1e-9


@settings(deadline=None)
@given(pictures, st.randoms(use_true_random=False))
def test_order_of_pictures_and_references_does_not_matter(rows, rng):
    hypotheses, references = [row[0] for row in rows], [row[1] for row in rows]
    order = list(range(len(rows)))
    rng.shuffle(order)
    scores = corpus_scores(hypotheses, references)
    shuffled = corpus_scores([hypotheses[i] for i in order], [references[i][::-1] for i in order])
    np.testing.assert_allclose(shuffled, scores[order], atol=1e-9)


def test_scores_of_some_pictures_equal_those_of_all_with_the_same_frequencies():
    scorer = CiderD(DocumentFrequency.from_references(REFERENCES))
    both = scorer.scores(GOLDEN["hypotheses"], REFERENCES)
    np.testing.assert_allclose(scorer.scores(GOLDEN["hypotheses"][2:4], REFERENCES[2:4]), both[2:4], atol=1e-12)


def test_empty_captions_score_zero():
    assert corpus_scores(["", ""], [["a cat", ""], ["", ""]]).tolist() == [0.0, 0.0]


def test_no_pictures_give_no_scores():
    scores = CiderD(DocumentFrequency({}, 1.0)).scores([], [])
    assert scores.shape == (0,)
    assert scores.dtype == np.float64


def test_unequal_lengths_are_refused():
    with pytest.raises(DataError, match="2 captions but references of 1"):
        CiderD(DocumentFrequency({}, 5.0)).scores(["a", "b"], [["a"]])


def test_a_picture_without_references_is_named():
    with pytest.raises(DataError, match="picture 1"):
        CiderD(DocumentFrequency({}, 5.0)).scores(["a", "b"], [["a"], []])


def test_frequencies_count_pictures_not_captions():
    df = DocumentFrequency.from_references([["a cat", "a cat a"], ["a dog"]])
    assert df.counts[("a",)] == 2
    assert df.counts[("a", "cat")] == 1
    assert df.ref_len == 2


@settings(deadline=None)
@given(st.lists(st.lists(captions, min_size=1, max_size=3), min_size=1, max_size=5))
def test_saved_frequencies_come_back(tmp_path_factory, references):
    path = tmp_path_factory.mktemp("df") / "df.json"
    df = DocumentFrequency.from_references(references)
    df.save(path)
    assert DocumentFrequency.load(path) == df
    assert [file.name for file in path.parent.iterdir()] == ["df.json"]


def test_file_layout(tmp_path):
    DocumentFrequency.from_references([["a man"]]).save(tmp_path / "df.json")
    content = json.loads((tmp_path / "df.json").read_text())
    assert content == {
        "format": "unival-document-frequency",
        "version": 1,
        "ref_len": 1,
        "ngrams": {"a": 1, "man": 1, "a man": 1},
    }


def test_a_pickle_is_refused_and_the_converter_named(tmp_path):
    with pytest.raises(ConfigError, match=r"unival data convert-df coco-train-words\.p coco-train-words\.json"):
        DocumentFrequency.load(tmp_path / "coco-train-words.p")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.json: cannot read"):
        DocumentFrequency.load(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "other", "version": 1}',
        '{"format": "unival-document-frequency", "version": 2, "ref_len": 1, "ngrams": {}}',
        '{"format": "unival-document-frequency", "version": 1, "ref_len": 0, "ngrams": {}}',
        '{"format": "unival-document-frequency", "version": 1, "ref_len": "5", "ngrams": {}}',
        '{"format": "unival-document-frequency", "version": 1, "ref_len": 5, "ngrams": []}',
        '{"format": "unival-document-frequency", "version": 1, "ref_len": 5, "ngrams": {"a": -1}}',
        '{"format": "unival-document-frequency", "version": 1, "ref_len": 5, "ngrams": {"a": "3"}}',
    ],
)
def test_damaged_files_are_refused(tmp_path, text):
    path = tmp_path / "df.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"df\.json"):
        DocumentFrequency.load(path)
