"""Caption cleaning and the metric shared by validation, generation and result files."""

import numpy as np
import pytest

from unival_plugin.data.text import strip_punctuation
from unival_plugin.metrics.captions import CaptionMetric, split_references
from unival_plugin.metrics.cider import CiderD, DocumentFrequency


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [(" A man, riding. ", "A man riding"), ("it's a t-shirt", "its a tshirt"), ("...", ""), ("«é»", "«é»")],
)
def test_cleaning_removes_ascii_punctuation_only(text, cleaned):
    assert strip_punctuation(text) == cleaned


def test_references_are_split_at_the_double_ampersand():
    assert split_references("a cat && two cats&&a & b") == ["a cat", "two cats", "a & b"]
    assert split_references("") == [""]


def test_scores_are_cider_of_cleaned_text_and_exact_match():
    hyps = ["a  cat.", "a dog", "A cat"]
    refs = [["a cat", "one cat"], ["two dogs!"], ["a cat"]]
    result = CaptionMetric().score(hyps, refs)
    groups = [["a cat", "one cat"], ["two dogs"], ["a cat"]]
    expected = CiderD(DocumentFrequency.from_references(groups)).scores(["a cat", "a dog", "A cat"], groups)
    np.testing.assert_allclose(result["cider"], expected)
    assert result["exact_match"].tolist() == [1.0, 0.0, 0.0]  # case counts
    assert result["exact_match"].dtype == np.float64


def test_given_frequencies_are_used():
    df = DocumentFrequency({("a",): 3}, 100.0)
    result = CaptionMetric(df).score(["a cat"], [["a cat"]])
    assert result["cider"][0] == pytest.approx(5.0)  # unigrams and bigrams agree, longer ones do not exist
