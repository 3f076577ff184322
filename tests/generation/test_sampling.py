"""Sampling: what is drawn how often, what is never drawn, and what the cache must not change."""

from __future__ import annotations

from typing import Any, Optional

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import DICTIONARY, search, tiny
from torch import Tensor

from unival_plugin.errors import ConfigError
from unival_plugin.generation.generator import Hypothesis, SequenceGenerator
from unival_plugin.generation.options import GenerationOptions, parse_eval_args
from unival_plugin.generation.sampling import draw
from unival_plugin.modules.trie import AnswerTrie
from unival_plugin.unival.model.network import UnIVALNetwork

EOS, PAD = 2, 1
SOURCE = torch.tensor([[0, 5, 6, 2]])
DRAWS = 10_000
NEG_INF = float("-inf")


def sample(net: UnIVALNetwork, source: Tensor = SOURCE, *more: Any, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return search(net, source, *more, sampling=True, **options)


def tokens_of(hypotheses: list[Hypothesis]) -> list[list[int]]:
    return [hypothesis["tokens"].tolist() for hypothesis in hypotheses]


def logits_of(net: UnIVALNetwork, source: Tensor, tokens: list[int], codes: bool = False) -> Tensor:
    """The scores behind the start symbol and all tokens but the last, read at once and without a cache."""
    masks = torch.tensor([True]) if codes else None
    with torch.no_grad():
        return net(source[None], None, torch.tensor([[0, *tokens[:-1]]]), code_masks=masks)[0][0]


def check_scores(
    net: UnIVALNetwork,
    source: Tensor,
    hypothesis: Hypothesis,
    possible: Optional[list[int]] = None,
    temperature: float = 1.0,
    codes: bool = False,
) -> None:
    """Compares with the log-probabilities of teacher forcing, among the possible symbols."""
    tokens = hypothesis["tokens"].tolist()
    logits = logits_of(net, source, tokens, codes) / temperature
    if possible is not None:
        kept = torch.full_like(logits, NEG_INF)
        kept[:, possible] = logits[:, possible]
        logits = kept
    true = logits.log_softmax(1)[torch.arange(len(tokens)), torch.tensor(tokens)]
    torch.testing.assert_close(hypothesis["positional_scores"], true, atol=1e-4, rtol=1e-4)
    assert float(hypothesis["score"]) == pytest.approx(float(true.mean()), abs=1e-4)


def shares(columns: Tensor, width: int) -> Tensor:
    return columns.flatten().bincount(minlength=width) / columns.numel()


class TestDraws:
    SCORES = torch.tensor([[1.0, NEG_INF, 0.5, 2.0, -1.0, 0.0]])

    @pytest.mark.parametrize(
        "options, kept",
        [
            ({}, [0, 2, 3, 4, 5]),
            ({"topk": 2}, [0, 3]),
            ({"topk": 50}, [0, 2, 3, 4, 5]),
            ({"topp": 0.75}, [0, 3]),  # 0.56, 0.21, 0.13, 0.08, 0.03
            ({"topp": 0.8}, [0, 2, 3]),
            ({"topp": 0.5}, [3]),
            ({"topp": 1.0}, [0, 2, 3, 4, 5]),
        ],
    )
    def test_have_the_probabilities_of_the_softmax_over_what_is_kept(self, options: Any, kept: list[int]) -> None:
        torch.manual_seed(1)
        wanted = torch.zeros(6)
        wanted[kept] = self.SCORES[0, kept].softmax(0)
        one_by_one = draw(self.SCORES.expand(DRAWS, -1), **options)
        at_once = draw(self.SCORES, DRAWS, **options)
        assert at_once.shape == (1, DRAWS) and one_by_one.shape == (DRAWS, 1)
        for columns in (one_by_one, at_once):
            found = shares(columns, 6)
            assert set(found.nonzero().flatten().tolist()) == set(kept)
            torch.testing.assert_close(found, wanted, atol=0.015, rtol=0)

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000), topp=st.floats(0.01, 1.0))
    def test_the_nucleus_is_the_smallest_set_of_its_probability(self, seed: int, topp: float) -> None:
        torch.manual_seed(seed)
        scores = 3 * torch.randn(1, 7)
        probabilities = scores[0].softmax(0)
        drawn = shares(draw(scores, 300, topp=topp), 7).nonzero().flatten()
        more_likely = [float(probabilities[probabilities > probabilities[column]].sum()) for column in drawn]
        assert max(more_likely) < topp + 1e-6

    def test_a_row_without_possible_columns_hurts_no_other_row(self) -> None:
        scores = torch.tensor([[NEG_INF] * 3, [NEG_INF, 0.0, NEG_INF]])
        for options in ({}, {"topk": 2}, {"topp": 0.5}):
            assert draw(scores, 4, **options)[1].tolist() == [1] * 4

    def test_vanishing_probabilities_are_no_ties(self) -> None:
        assert draw(torch.tensor([[-500.0, -300.0, -400.0]]), 50).unique().tolist() == [1]


class TestHypotheses:
    @pytest.mark.parametrize("options", [{}, {"sampling_topk": 4}, {"temperature": 2.0}])
    def test_sequences_come_as_often_as_their_probability_says(self, options: Any) -> None:
        net, count = tiny(11), 3000
        (found,) = sample(net, max_len_b=2, beam_size=count, **options)
        temperature, kept = options.get("temperature", 1.0), options.get("sampling_topk", 12)
        logits = logits_of(net, SOURCE[0], [0]) / temperature
        first = self.narrowed(logits[0], kept, [PAD, EOS])
        wanted = torch.zeros(12, 12)
        for token in first.nonzero().flatten().tolist():
            second = logits_of(net, SOURCE[0], [token, 0])[1] / temperature
            wanted[token] = first[token] * self.narrowed(second, kept, [PAD])
        pairs = torch.tensor([tokens[:2] for tokens in tokens_of(found)])
        got = (pairs[:, 0] * 12 + pairs[:, 1]).bincount(minlength=144).view(12, 12) / count
        torch.testing.assert_close(got, wanted, atol=0.03, rtol=0)

    @staticmethod
    def narrowed(logits: Tensor, kept: int, forbidden: list[int]) -> Tensor:
        logits[forbidden] = NEG_INF
        smallest = logits.topk(kept).values[-1]
        return logits.masked_fill(logits < smallest, NEG_INF).softmax(0)

    def test_the_most_likely_token_alone_is_greedy_search(self) -> None:
        net, source = tiny(3), torch.randint(4, 12, (3, 5))
        greedy = search(net, source, beam_size=1, max_len_b=8)
        for drawn, (best,) in zip(sample(net, source, beam_size=2, max_len_b=8, sampling_topk=1), greedy, strict=True):
            assert tokens_of(drawn) == [best["tokens"].tolist()] * 2
            torch.testing.assert_close(drawn[0]["positional_scores"], best["positional_scores"], atol=1e-5, rtol=1e-5)

    def test_the_seed_decides(self) -> None:
        net = tiny(4)
        one, same, other = (
            [hypothesis["tokens"].tolist() for hypothesis in sample(net, max_len_b=9, beam_size=4, seed=seed)[0]]
            for seed in (5, 5, 6)
        )
        assert one == same != other

    @settings(max_examples=8, deadline=None)
    @given(seed=st.integers(0, 1000), beam=st.integers(1, 5), topp=st.sampled_from([-1.0, 0.8]))
    def test_scores_are_log_probabilities_of_all_tokens_best_first(self, seed: int, beam: int, topp: float) -> None:
        net, source = tiny(seed), torch.randint(4, 12, (3, 6), generator=torch.Generator().manual_seed(seed))
        source[0, 3:], source[1, 5:] = PAD, PAD
        options: dict[str, Any] = {"beam_size": beam, "max_len_b": 6, "min_len": 0, "sampling_topp": topp}
        found = sample(net, source, seed=seed, temperature=1.5, **options)
        for row, hypotheses in zip(source, found, strict=True):
            assert len(hypotheses) == beam
            scores = [float(hypothesis["score"]) for hypothesis in hypotheses]
            assert scores == sorted(scores, reverse=True)
            for hypothesis in hypotheses:
                tokens = hypothesis["tokens"].tolist()
                assert tokens.index(EOS) == len(tokens) - 1 and PAD not in tokens
                check_scores(net, row[row != PAD], hypothesis, temperature=1.5)

    def test_those_that_end_early_leave_the_others_alone(self) -> None:
        net = tiny(5)
        (found,) = sample(net, beam_size=40, max_len_b=12)
        lengths = {len(tokens) for tokens in tokens_of(found)}
        assert len(found) == 40 and len(lengths) > 3 and max(lengths) <= 13

    def test_an_ensemble_of_one_model_twice_draws_like_the_model(self) -> None:
        net = tiny(4)
        (one,) = sample(net, max_len_b=6)
        torch.manual_seed(0)
        generator = SequenceGenerator([net, net], DICTIONARY, max_len_b=6, sampling=True)
        (two,) = generator.generate(None, {"net_input": {"src_tokens": SOURCE}})
        assert tokens_of(one) == tokens_of(two)


class TestConstraints:
    @pytest.mark.parametrize("low, high", [(0, 3), (2, 5), (4, 4)])
    def test_lengths_stay_within_limits(self, low: int, high: int) -> None:
        (found,) = sample(tiny(5), beam_size=60, min_len=low, max_len_b=high, temperature=5.0)
        lengths = {len(tokens) - 1 for tokens in tokens_of(found)}
        assert lengths <= set(range(low, high + 1)) and {low, high} <= lengths

    @pytest.mark.parametrize("vocabulary", [12, 60])  # all columns are scored, or only those that may occur
    def test_only_codes_are_drawn_where_codes_are_wanted(self, vocabulary: int) -> None:
        net = tiny(6, vocabulary)
        (found,) = sample(
            net, beam_size=20, min_len=5, max_len_b=5, constraint_range="8,11", gen_code=True, sampling_topk=5
        )
        for hypothesis in found:
            tokens = hypothesis["tokens"].tolist()
            assert len(tokens) == 6 and set(tokens[:-1]) <= {8, 9, 10}
            check_scores(net, SOURCE[0], hypothesis, possible=[0, 1, 2, 3, 8, 9, 10], codes=True)

    def test_no_ngram_occurs_twice(self) -> None:
        (found,) = sample(tiny(2), beam_size=20, max_len_b=9, no_repeat_ngram_size=2)
        for tokens in tokens_of(found):
            pairs = list(zip(tokens, tokens[1:], strict=False))
            assert len(pairs) == len(set(pairs))

    def test_hypotheses_without_a_possible_token_are_left_out(self) -> None:
        (found,) = sample(tiny(2), beam_size=6, min_len=9, max_len_b=9, no_repeat_ngram_size=1, constraint_range="8,10")
        assert found == []

    def test_prefixes_of_different_lengths_are_taken(self) -> None:
        net, source = tiny(8), torch.randint(4, 12, (3, 5))
        prefix = torch.tensor([[7, 9, 4], [10, PAD, PAD], [PAD, PAD, PAD]])
        found = sample(net, source, prefix, beam_size=20, max_len_b=6, sampling_topk=3)
        for row, forced, hypotheses in zip(source, prefix, found, strict=True):
            wanted = forced[forced != PAD].tolist()
            assert len({tuple(tokens) for tokens in tokens_of(hypotheses)}) > 1
            for hypothesis in hypotheses:
                assert hypothesis["tokens"][: len(wanted)].tolist() == wanted
                check_scores(net, row, hypothesis)

    @settings(max_examples=12, deadline=None)
    @given(
        seed=st.integers(0, 1000), vocabulary=st.sampled_from([12, 60]), zero_shot=st.booleans(),
        answers=st.lists(st.lists(st.integers(4, 9), min_size=1, max_size=3), min_size=1, max_size=6),
        prefixes=st.lists(st.lists(st.integers(4, 11), min_size=1, max_size=3), min_size=1, max_size=3),
        narrowed=st.sampled_from([{}, {"sampling_topk": 3}, {"sampling_topp": 0.5}]), ngram=st.integers(0, 2),
    )  # fmt: skip
    def test_a_set_of_answers_is_never_left(
        self, seed: int, vocabulary: int, zero_shot: bool, answers: Any, prefixes: Any, narrowed: Any, ngram: int
    ) -> None:
        prefixes = [[] for _ in prefixes] if zero_shot else prefixes
        longest = max(map(len, prefixes))
        padded = torch.tensor([prefix + [PAD] * (longest - len(prefix)) for prefix in prefixes])
        source = torch.randint(4, 12, (len(prefixes), 5), generator=torch.Generator().manual_seed(seed))
        options: dict[str, Any] = {
            "beam_size": 4,
            "max_len_b": 8,
            "zero_shot": zero_shot,
            "no_repeat_ngram_size": ngram,
            **narrowed,
        }
        forced = None if zero_shot else padded
        found = sample(tiny(seed, vocabulary), source, forced, AnswerTrie(answers), seed=seed, **options)
        for prefix, hypotheses in zip(prefixes, found, strict=True):
            possible = [[*prefix, *answer, EOS] for answer in answers]
            assert all(tokens in possible for tokens in tokens_of(hypotheses))
            assert len(hypotheses) == 4 or ngram  # blocking may leave no way to an end

    def test_answers_come_as_often_as_their_score_says(self) -> None:
        answers = [[5, 6], [5], [7, 8, 9], [10]]
        (found,) = sample(tiny(9), SOURCE, None, AnswerTrie(answers), beam_size=2000, max_len_b=4)
        drawn = tokens_of(found)
        for answer in answers:
            (score, *_) = [h["positional_scores"].sum() for h in found if h["tokens"].tolist() == [*answer, EOS]]
            assert drawn.count([*answer, EOS]) / 2000 == pytest.approx(float(score.exp()), abs=0.03)


class TestCache:
    OPTIONS: dict[str, Any] = {
        "beam_size": 3,
        "min_len": 70,
        "max_len_b": 70,
        "constraint_range": "8,40",
        "gen_code": True,
    }

    def test_scores_with_the_cache_equal_those_of_a_pass_without(self) -> None:
        net = tiny(1, 60)
        for hypothesis in sample(net, **self.OPTIONS)[0]:
            check_scores(net, SOURCE[0], hypothesis, possible=[0, 1, 2, 3, *range(8, 40)], codes=True)

    @pytest.mark.parametrize("sampling", [True, False])
    def test_every_step_reads_one_new_position(self, sampling: bool) -> None:
        net, read = tiny(1, 60), []
        for layer in net.decoder.layers:
            layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].shape[1]))
        torch.manual_seed(0)
        search(net, SOURCE, sampling=sampling, **self.OPTIONS)
        assert read == [1] * 71 * len(net.decoder.layers)

    def test_nothing_is_moved_where_every_row_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        net, orders = tiny(1, 60), []
        move = net.decoder.reorder_incremental_state

        def spy(state: Any, order: Tensor, **more: Any) -> None:
            orders.append(order.tolist())
            move(state, order, **more)

        monkeypatch.setattr(net.decoder, "reorder_incremental_state", spy)
        sample(net, **self.OPTIONS)
        assert orders == [[0, 0, 0]]  # one row becomes three after the first step


class TestOptions:
    @pytest.mark.parametrize(
        "values, message",
        [
            ({"sampling_topk": 0}, "sampling_topk is 0"),
            ({"sampling_topk": -5}, "sampling_topk is -5"),
            ({"sampling_topp": 0.0}, "sampling_topp is 0.0"),
            ({"sampling_topp": 1.5}, "sampling_topp is 1.5"),
            ({"sampling_topp": -0.5}, "sampling_topp is -0.5"),
            ({"sampling_topk": 5, "sampling_topp": 0.9}, "exclude each other"),
        ],
    )
    def test_mistakes_are_named(self, values: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            GenerationOptions(sampling=True, **values)

    @pytest.mark.parametrize("values", [{"sampling_topk": 5}, {"sampling_topp": 0.9}])
    def test_choosing_among_the_most_likely_needs_sampling(self, values: Any) -> None:
        with pytest.raises(ConfigError, match="--sampling"):
            SequenceGenerator([], DICTIONARY, **values)

    def test_json_may_leave_sampling_to_the_task(self) -> None:
        options = parse_eval_args('{"beam": 24, "sampling_topk": 256, "temperature": 1.0}')
        assert (options.beam_size, options.sampling, options.sampling_topk) == (24, False, 256)
        assert SequenceGenerator([], DICTIONARY, options, sampling=True).options.sampling

    @pytest.mark.parametrize(
        "flags, wanted",
        [
            ([], GenerationOptions()),
            (["--sampling"], GenerationOptions(sampling=True)),
            (["--sampling", "--sampling-topk", "256"], GenerationOptions(sampling=True, sampling_topk=256)),
            (["--sampling", "--sampling-topp", "0.9"], GenerationOptions(sampling=True, sampling_topp=0.9)),
        ],
    )
    def test_flags_of_fairseq_reach_the_options(self, flags: list[str], wanted: GenerationOptions) -> None:
        from fairseq import options

        parser = options.get_generation_parser()
        assert GenerationOptions().with_flags(vars(parser.parse_known_args(["data", *flags])[0]), "flags") == wanted
