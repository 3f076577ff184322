"""Sets of answers, prefixes and picture codes: what a search may and may not give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import DICTIONARY, search, tiny
from torch import Tensor

from unival_plugin.errors import ConfigError, DataError
from unival_plugin.generation.constraints import block_repeated_ngrams
from unival_plugin.generation.generator import SequenceGenerator
from unival_plugin.modules.trie import AnswerTrie
from unival_plugin.unival.model.network import UnIVALNetwork

EOS, PAD = 2, 1
SOURCE = torch.tensor([[0, 5, 6, 2]])
VOCABULARIES = st.sampled_from([12, 60])  # all columns are scored, or only those that may occur
ANSWERS = st.lists(st.lists(st.integers(4, 9), min_size=1, max_size=3), min_size=1, max_size=8)
PREFIXES = st.lists(st.lists(st.integers(4, 11), min_size=1, max_size=4), min_size=1, max_size=3)


def padded(prefixes: list[list[int]]) -> Tensor:
    longest = max(map(len, prefixes))
    return torch.tensor([prefix + [PAD] * (longest - len(prefix)) for prefix in prefixes])


def sources(rows: int, seed: int) -> Tensor:
    return torch.randint(4, 12, (rows, 5), generator=torch.Generator().manual_seed(seed))


def tokens_of(hypotheses: list[dict[str, Any]]) -> list[list[int]]:
    return [hypothesis["tokens"].tolist() for hypothesis in hypotheses]


def continuations(answers: list[list[int]], path: list[int]) -> set[int]:
    """What may follow ``path``, found the slow way."""
    ended = [[*answer, EOS] for answer in answers]
    return {each[len(path)] for each in ended if each[: len(path)] == path and each != path} or {EOS}


def true_log_probs(
    net: UnIVALNetwork, source: Tensor, prefix: list[int], answer: list[int], answers: list[list[int]], zero_shot: bool
) -> Tensor:
    """Log-probability of every token of prefix, answer and end, with teacher forcing."""
    wanted = [*prefix, *answer, EOS]
    with torch.no_grad():
        logits = net(source, None, torch.tensor([[0, *wanted[:-1]]]))[0][0]
    for position in range(len(prefix), len(wanted)):
        if not zero_shot:
            impossible = torch.ones(logits.shape[1], dtype=torch.bool)
            impossible[list(continuations(answers, answer[: position - len(prefix)]))] = False
            logits[position].masked_fill_(impossible, float("-inf"))
    return logits.log_softmax(1)[torch.arange(len(wanted)), torch.tensor(wanted)]


class TestAnswerTrie:
    @settings(max_examples=60, deadline=None)
    @given(answers=ANSWERS, paths=st.lists(st.lists(st.integers(2, 10), max_size=4), min_size=1, max_size=5))
    def test_every_path_has_the_continuations_of_the_answers(
        self, answers: list[list[int]], paths: list[list[int]]
    ) -> None:
        trie, paths = AnswerTrie(answers), [*paths, *answers, *([*answer, EOS] for answer in answers)]
        rows, edges = trie.edges_from(torch.cat([self.walk(trie, path) for path in paths]))
        for row, path in enumerate(paths):
            allowed = trie.tokens[edges[rows == row]].tolist()
            assert len(allowed) == len(set(allowed))
            assert set(allowed) == continuations(answers, path)

    @staticmethod
    def walk(trie: AnswerTrie, path: list[int]) -> Tensor:
        node = torch.tensor([0])
        for symbol in path:
            node = trie.follow(node, torch.tensor([symbol]))
        return node

    def test_repeated_answers_count_once(self) -> None:
        assert AnswerTrie([[5, 6], [5, 6]]).tokens.tolist() == AnswerTrie([[5, 6]]).tokens.tolist()

    @pytest.mark.parametrize(
        "answers, message", [([], "list of answers is empty"), ([[5], []], "answer 1"), ([[5, 2]], "control symbol")]
    )
    def test_useless_lists_are_refused(self, answers: list[list[int]], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            AnswerTrie(answers)


class TestAnswers:
    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 1000), beam=st.integers(1, 5), vocabulary=VOCABULARIES, answers=ANSWERS, prefixes=PREFIXES,
        forced=st.booleans(), ngram=st.integers(0, 2),
    )  # fmt: skip
    def test_hypotheses_never_leave_the_set(
        self, seed: int, beam: int, vocabulary: int, answers: Any, prefixes: Any, forced: bool, ngram: int
    ) -> None:
        found = search(
            tiny(seed, vocabulary), sources(len(prefixes), seed), padded(prefixes) if forced else None,
            AnswerTrie(answers), beam_size=beam, max_len_b=9, no_repeat_ngram_size=ngram,
        )  # fmt: skip
        for prefix, hypotheses in zip(prefixes, found, strict=True):
            start = prefix if forced else []
            assert all(tokens in [[*start, *answer, EOS] for answer in answers] for tokens in tokens_of(hypotheses))

    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 1000), vocabulary=VOCABULARIES, answers=ANSWERS, prefixes=PREFIXES,
        zero_shot=st.booleans(), normalize=st.booleans(),
    )  # fmt: skip
    def test_a_beam_as_wide_as_the_set_gives_all_answers_by_their_true_score(
        self, seed: int, vocabulary: int, answers: Any, prefixes: Any, zero_shot: bool, normalize: bool
    ) -> None:
        answers = [list(answer) for answer in {tuple(answer) for answer in answers}]
        if zero_shot:
            prefixes = [[] for _ in prefixes]
        net, source = tiny(seed, vocabulary), sources(len(prefixes), seed)
        found = search(
            net, source, None if zero_shot else padded(prefixes), AnswerTrie(answers),
            beam_size=len(answers), max_len_b=9, zero_shot=zero_shot, normalize_scores=normalize,
        )  # fmt: skip
        for row, (prefix, hypotheses) in enumerate(zip(prefixes, found, strict=True)):
            assert sorted(tokens_of(hypotheses)) == sorted([*prefix, *answer, EOS] for answer in answers)
            scores = [float(hypothesis["score"]) for hypothesis in hypotheses]
            assert scores == sorted(scores, reverse=True)
            for hypothesis in hypotheses:
                answer = hypothesis["tokens"][len(prefix) : -1].tolist()
                true = true_log_probs(net, source[row : row + 1], prefix, answer, answers, zero_shot)
                torch.testing.assert_close(hypothesis["positional_scores"], true, atol=1e-4, rtol=1e-4)
                total = true.mean() if normalize else true.sum()
                assert float(hypothesis["score"]) == pytest.approx(float(total), abs=1e-4)

    @settings(max_examples=15, deadline=None)
    @given(
        seed=st.integers(0, 1000), beam=st.integers(1, 4), vocabulary=VOCABULARIES, answers=ANSWERS, prefixes=PREFIXES
    )
    def test_a_batch_gives_what_its_rows_give_alone(
        self, seed: int, beam: int, vocabulary: int, answers: Any, prefixes: Any
    ) -> None:
        net, source, trie = tiny(seed, vocabulary), sources(len(prefixes), seed), AnswerTrie(answers)
        together = search(net, source, padded(prefixes), trie, beam_size=beam, max_len_b=9)
        for row, prefix in enumerate(prefixes):
            (alone,) = search(net, source[row : row + 1], padded([prefix]), trie, beam_size=beam, max_len_b=9)
            assert tokens_of(alone) == tokens_of(together[row])
            for mine, theirs in zip(alone, together[row], strict=True):
                assert float(mine["score"]) == pytest.approx(float(theirs["score"]), abs=1e-4)

    @pytest.mark.parametrize("prefix", [None, torch.tensor([[7, 8]])])
    def test_an_ensemble_of_one_model_twice_equals_the_model(self, prefix: Any) -> None:
        net, trie = tiny(4, 60), AnswerTrie([[5, 6], [5], [7, 8, 9]])
        (one,) = search(net, SOURCE, prefix, trie, max_len_b=6)
        sample = {"net_input": {"src_tokens": SOURCE}}
        (two,) = SequenceGenerator([net, net], DICTIONARY, max_len_b=6).generate(None, sample, prefix, trie)
        assert tokens_of(one) == tokens_of(two)
        for mine, theirs in zip(one, two, strict=True):
            torch.testing.assert_close(mine["positional_scores"], theirs["positional_scores"], atol=1e-4, rtol=1e-4)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    @pytest.mark.parametrize("vocabulary", [12, 60])
    def test_a_gpu_gives_the_same(self, vocabulary: int) -> None:
        net, source, trie = tiny(4, vocabulary), sources(2, 0), AnswerTrie([[5, 6], [5], [7, 8, 9]])
        prefix = torch.tensor([[7, 8], [6, PAD]])
        on_cpu = search(net, source, prefix, trie, max_len_b=6)
        on_gpu = search(net.cuda(), source.cuda(), prefix.cuda(), trie, max_len_b=6)
        assert [tokens_of(hypotheses) for hypotheses in on_gpu] == [tokens_of(hypotheses) for hypotheses in on_cpu]

    def test_zero_shot_compares_answers_with_the_prefix_included(self) -> None:
        trie = AnswerTrie([[7, 8, 5], [7, 8, 6, 9], [5, 5]])
        (found,) = search(tiny(5), SOURCE, torch.tensor([[7, 8]]), trie, max_len_b=6, zero_shot=True)
        assert sorted(tokens_of(found)) == [[7, 8, 5, EOS], [7, 8, 6, 9, EOS]]

    def test_the_search_ends_when_no_answer_is_left(self) -> None:
        net, lengths = tiny(6), []
        step = net.decoder.forward
        net.decoder.forward = lambda tokens, **rest: lengths.append(tokens.shape[1]) or step(tokens, **rest)
        (found,) = search(net, SOURCE, None, AnswerTrie([[5], [6, 7]]), beam_size=5, max_len_b=50)
        assert (len(found), max(lengths)) == (2, 3)

    @pytest.mark.parametrize(
        "answers, prefix, options, message",
        [
            ([[5]], None, {"constraint_range": "4,9"}, "exclude each other"),
            ([[5, 99]], None, {}, "token 99, the model's vocabulary ends at 11"),
            ([[5]], [[6, 6, 6]], {"max_len_b": 3}, "leaves no room"),
        ],
    )
    def test_constraints_that_do_not_fit_are_refused(
        self, answers: Any, prefix: Any, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            search(tiny(), SOURCE, None if prefix is None else torch.tensor(prefix), AnswerTrie(answers), **options)


class TestPrefix:
    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 1000), prefixes=PREFIXES)
    def test_a_greedy_batch_gives_what_its_rows_give_alone(self, seed: int, prefixes: list[list[int]]) -> None:
        net, source = tiny(seed), sources(len(prefixes), seed)
        together = search(net, source, padded(prefixes), beam_size=1, max_len_b=7)
        for row, prefix in enumerate(prefixes):
            (alone,) = search(net, source[row : row + 1], padded([prefix]), beam_size=1, max_len_b=7)
            assert tokens_of(alone) == tokens_of(together[row])
            assert tokens_of(alone)[0][: len(prefix)] == prefix

    @pytest.mark.parametrize("trie", [None, AnswerTrie([[8], [9]])])
    def test_a_prefix_may_repeat_ngrams(self, trie: Any) -> None:
        prefix = [6, 7, 6, 7]
        (found,) = search(tiny(1), SOURCE, torch.tensor([prefix]), trie, max_len_b=6, no_repeat_ngram_size=2)
        assert tokens_of(found)[0][:4] == prefix

    def test_short_prefixes_leave_the_smallest_length_in_force(self) -> None:
        prefix = torch.tensor([[6, PAD, PAD, PAD], [6, 7, 8, 9]])
        for seed in range(5):
            found = search(tiny(seed), sources(2, seed), prefix, max_len_b=7, min_len=4)
            assert all(len(tokens) > 4 for tokens in tokens_of(found[0]))

    def test_padding_alone_is_no_prefix(self) -> None:
        assert tokens_of(search(tiny(2), SOURCE, torch.tensor([[PAD, PAD]]))[0]) == tokens_of(
            search(tiny(2), SOURCE)[0]
        )

    def test_a_prefix_outside_the_range_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="prefix token 5 lies outside the constraint range 8,10"):
            search(tiny(), SOURCE, torch.tensor([[8, 5]]), constraint_range="8,10")

    def test_a_prefix_of_another_batch_is_refused(self) -> None:
        with pytest.raises(DataError, match="needs 1 rows"):
            search(tiny(), SOURCE, torch.tensor([[5], [6]]))


class TestCodes:
    @pytest.mark.parametrize("vocabulary", [12, 60])
    def test_special_symbols_come_only_at_the_end(self, vocabulary: int) -> None:
        (found,) = search(tiny(3, vocabulary), SOURCE, max_len_b=6, gen_code=True, constraint_range="8,11")
        assert found
        for tokens in tokens_of(found):
            assert len(tokens) == 7
            assert set(tokens[:-1]) <= {8, 9, 10}

    def test_the_score_is_that_of_a_target_of_codes(self) -> None:
        net = tiny(4)
        (found,) = search(net, SOURCE, max_len_b=5, gen_code=True, zero_shot=True, constraint_range="8,11")
        tokens = found[0]["tokens"]
        with torch.no_grad():
            previous = torch.cat([torch.tensor([0]), tokens[:-1]])[None]
            logits = net(SOURCE, None, previous, code_masks=torch.tensor([True]))[0][0]
        true = logits.log_softmax(1)[torch.arange(len(tokens)), tokens]
        torch.testing.assert_close(found[0]["positional_scores"], true, atol=1e-4, rtol=1e-4)


def test_blocking_follows_the_last_tokens_not_the_padding() -> None:
    scores = torch.zeros(1, 9)
    block_repeated_ngrams(scores, torch.tensor([[0, 4, 5, 6, 4, 5]]), 3)
    assert scores[0].isinf().nonzero().flatten().tolist() == [6]


def test_blocking_knows_which_ids_the_columns_are_of() -> None:
    scores, tokens = torch.zeros(2, 6), torch.tensor([[0, 7, 9, 7], [0, 7, 8, 7]])
    block_repeated_ngrams(scores, tokens, 2, columns=torch.tensor([0, 1, 2, 3, 7, 9]))
    assert scores.isinf().nonzero().tolist() == [[0, 5]]
