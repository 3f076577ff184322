"""Beam search against the reference's hypotheses, and its own promises."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import DICTIONARY, search, tiny

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unival"))
from full_size import CASES, drawn, golden, network

from unival_plugin.errors import ConfigError
from unival_plugin.generation.generator import SequenceGenerator
from unival_plugin.generation.options import GenerationOptions, parse_eval_args
from unival_plugin.modules.trie import AnswerTrie

BEAM_CASES = [
    "beam_image", "beam_image_norepeat3", "beam_image_lenpen2", "beam_text_batch3", "beam_small_vocab",
    "beam_small_vocab_unnorm", "beam_eos_batch3", "beam_eos_batch4_lenpen", "beam_eos_greedy", "beam_refcoco",
    "beam_range_bins", "beam_trie", "beam_trie_normalized", "beam_trie_zero_shot", "beam_prefix", "beam_codes",
]  # fmt: skip


OTHER_BATCHES = [
    *(("beam_image_norepeat3", rows) for rows in ([1], [0, 1, 0])),
    *(("beam_text_batch3", rows) for rows in ([2], [1, 0])),
    *(("beam_small_vocab", rows) for rows in ([0], [2, 0, 1])),
    *(("beam_eos_batch4_lenpen", rows) for rows in ([3], [2, 0, 3])),
    *(("beam_range_bins", rows) for rows in ([0], [1, 1, 0])),
    *(("beam_trie", rows) for rows in ([1], [1, 0, 1])),
    *(("beam_trie_zero_shot", rows) for rows in ([0], [1, 0, 1])),
    *(("beam_codes", rows) for rows in ([1], [0, 0, 1])),
    ("beam_prefix", [1, 0, 0]),  # alone a row gets other scores: the original takes a minimum over the batch
]


@pytest.mark.parametrize("case", BEAM_CASES)
def test_hypotheses_and_scores_equal_the_reference(case: str) -> None:
    check(case, list(range(len(golden(case)["src_tokens"]))))


@pytest.mark.parametrize("case, rows", OTHER_BATCHES)
def test_they_do_so_in_batches_of_other_sizes(case: str, rows: list[int]) -> None:
    check(case, rows)


def check(case: str, rows: list[int]) -> None:
    """Compares the hypotheses of some rows of a case with the reference's."""
    arrays, description = golden(case), CASES[case]
    answers = [[token for token in answer if token >= 0] for answer in arrays.pop("trie_answers", np.empty(0)).tolist()]
    arrays = {name: array[rows] for name, array in arrays.items()}
    inputs = {"src_tokens": torch.from_numpy(arrays["src_tokens"])}
    if "inputs" in description:
        inputs |= {"patch_images": drawn(91, 2, 3, 224, 224)[rows], "patch_masks": torch.tensor([True] * len(rows))}
    prefix = torch.from_numpy(arrays["prefix_tokens"]) if "prefix_tokens" in arrays else None
    trie = AnswerTrie(answers) if answers else None
    options = description["gen_args"] | {"zero_shot": case.endswith("zero_shot")}
    end_row = network().encoder.embed_tokens.weight.data[2]
    factor = 5.0 if "weight_change" in description else 1.0
    end_row *= factor
    try:
        generator = SequenceGenerator([network()], DICTIONARY, **options)
        found = generator.generate(None, {"net_input": inputs}, prefix, trie)
    finally:
        end_row /= factor
    for sentence, hypotheses in enumerate(found):
        assert len(hypotheses) == int(np.isfinite(arrays["scores"][sentence]).sum())
        for rank, hypothesis in enumerate(hypotheses):
            tokens = arrays["tokens"][sentence, rank]
            length = int((tokens != -1).sum())
            assert hypothesis["tokens"].tolist() == tokens[:length].tolist()
            assert float(hypothesis["score"]) == pytest.approx(float(arrays["scores"][sentence, rank]), abs=1e-4)
            wanted = arrays["positional_scores"][sentence, rank, :length]
            np.testing.assert_allclose(hypothesis["positional_scores"], wanted, atol=1e-4, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), beam=st.integers(1, 5), rows=st.integers(1, 4))
def test_a_batch_gives_what_its_rows_give_alone(seed: int, beam: int, rows: int) -> None:
    net = tiny(seed)
    source = torch.randint(4, 12, (rows, 5), generator=torch.Generator().manual_seed(seed))
    together = search(net, source, beam_size=beam, max_len_b=7)
    for row in range(rows):
        (alone,) = search(net, source[row : row + 1], beam_size=beam, max_len_b=7)
        assert [h["tokens"].tolist() for h in alone] == [h["tokens"].tolist() for h in together[row]]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 3))
def test_no_ngram_occurs_twice(seed: int, size: int) -> None:
    for hypotheses in search(tiny(seed), torch.tensor([[0, 5, 2]]), max_len_b=9, no_repeat_ngram_size=size):
        for hypothesis in hypotheses:
            tokens = hypothesis["tokens"].tolist()
            grams = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
            assert len(grams) == len(set(grams))


def test_the_score_is_the_models_log_probability() -> None:
    net, source = tiny(3), torch.tensor([[0, 5, 6, 2]])
    for hypothesis in search(net, source, max_len_b=6, normalize_scores=False)[0]:
        tokens = hypothesis["tokens"][None]
        previous = torch.cat([torch.tensor([[0]]), tokens[:, :-1]], dim=1)
        with torch.no_grad():
            log_probs = net(source, None, previous)[0].log_softmax(-1).gather(2, tokens[..., None])[0, :, 0]
        torch.testing.assert_close(hypothesis["positional_scores"], log_probs, atol=1e-4, rtol=1e-4)
        assert float(hypothesis["score"]) == pytest.approx(float(log_probs.sum()), abs=1e-4)


def test_an_ensemble_of_one_model_twice_equals_the_model() -> None:
    net, source = tiny(4), torch.tensor([[0, 5, 2]])
    one = search(net, source, max_len_b=6)
    two = SequenceGenerator([net, net], DICTIONARY, max_len_b=6).generate(None, {"net_input": {"src_tokens": source}})
    assert [h["tokens"].tolist() for h in one[0]] == [h["tokens"].tolist() for h in two[0]]
    assert float(two[0][0]["score"]) == pytest.approx(float(one[0][0]["score"]), abs=1e-4)


@pytest.mark.parametrize("low, high", [(0, 3), (4, 4)])
def test_lengths_stay_within_limits(low: int, high: int) -> None:
    for hypothesis in search(tiny(5), torch.tensor([[0, 5, 2]]), min_len=low, max_len_b=high)[0]:
        assert low <= len(hypothesis["tokens"]) - 1 <= high


def test_only_the_ids_of_the_range_are_generated() -> None:
    for hypothesis in search(tiny(6), torch.tensor([[0, 5, 2]]), max_len_b=6, constraint_range="8,10")[0]:
        assert set(hypothesis["tokens"].tolist()) <= {0, 2, 3, 8, 9}


def test_a_model_that_gives_nan_is_reported() -> None:
    net = tiny(7)
    net.decoder.layer_norm.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="NaN"):
        search(net, torch.tensor([[0, 5, 2]]))


class TestOptions:
    def test_the_scripts_json_is_understood(self) -> None:
        options = parse_eval_args('{"beam":5,"stop_on_max_len":true,"max_len_b":22,"unnormalized":true,"lenpen":2.0}')
        assert (options.beam_size, options.max_len_b, options.normalize_scores, options.len_penalty) == (
            5,
            22,
            False,
            2.0,
        )

    @pytest.mark.parametrize(
        "text, message",
        [
            ("{beam: 5}", "not valid JSON"),
            ("[5]", "needs a JSON object"),
            ('{"beams": 5}', "unknown option 'beams'"),
            ('{"beam": 0}', "must be at least 1"),
            ('{"diverse_beam_groups": 2}', "only beam search and sampling"),
            ('{"constraint_range": "9"}', "two numbers"),
        ],
    )
    def test_mistakes_are_named(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            parse_eval_args(text)

    def test_flags_change_single_values(self) -> None:
        options = GenerationOptions(max_len_b=7).with_flags({"beam": 2, "quiet": True, "lenpen": None}, "flags")
        assert options == GenerationOptions(max_len_b=7, beam_size=2)
