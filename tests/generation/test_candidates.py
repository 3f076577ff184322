"""Scores of all answers of a set against scoring every answer alone, the original and the beam search."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import search, tiny
from torch import Tensor, nn

from unival_plugin.errors import ConfigError, DataError
from unival_plugin.generation.candidates import CandidateScorer
from unival_plugin.modules.trie import AnswerTrie
from unival_plugin.unival.model.network import UnIVALNetwork

EOS, PAD = 2, 1
GOLDEN = Path(__file__).parents[1] / "golden" / "unival_tasks" / "vqa_allcand.json"
ANSWERS = st.lists(st.lists(st.integers(4, 7), min_size=1, max_size=4), min_size=1, max_size=12)
PROMPTS = st.lists(st.lists(st.integers(2, 11), max_size=4), min_size=1, max_size=4)
FREE_OF_EOS = st.lists(st.lists(st.integers(4, 11), max_size=4), min_size=1, max_size=4)  # a beam ends there
BEGINNING_ALIKE = [[5], [5, 6], [5, 6, 7], [5, 8], [9, 4], [9]]


def padded(prompts: list[list[int]]) -> Tensor:
    longest = max(map(len, prompts))
    return torch.tensor([prompt + [PAD] * (longest - len(prompt)) for prompt in prompts], dtype=torch.int64)


def sources(rows: int, seed: int = 0) -> Tensor:
    """Texts of different lengths."""
    tokens = torch.randint(4, 12, (rows, 5), generator=torch.Generator().manual_seed(seed))
    lengths = 3 + torch.arange(rows) % 3
    return tokens.masked_fill(torch.arange(5) >= lengths[:, None], PAD)


def batch(source: Tensor) -> dict[str, Any]:
    return {"net_input": {"src_tokens": source}}


def continuations(answers: list[list[int]], path: list[int]) -> list[int]:
    """What may follow ``path``, found the slow way."""
    ended = [[*answer, EOS] for answer in answers]
    return sorted({each[len(path)] for each in ended if each[: len(path)] == path and each != path})


@torch.no_grad()
def true_log_probs(
    nets: list[UnIVALNetwork], source: Tensor, prompt: list[int], answer: list[int], answers: list[list[int]]
) -> Tensor:
    """Log-probability of every token of an answer and its end, with teacher forcing and the masks of the set."""
    symbols = [*answer, EOS]
    target = torch.tensor([[0, *prompt, *answer]])
    models = []
    for net in nets:
        logits = net(source, None, target)[0][0, len(prompt) :]
        for place, row in enumerate(logits):
            possible = continuations(answers, answer[:place])
            row[[token for token in range(len(row)) if token not in possible]] = float("-inf")
        models.append(logits.log_softmax(1)[torch.arange(len(symbols)), torch.tensor(symbols)])
    return torch.stack(models).logsumexp(0) - math.log(len(nets))


def true_scores(
    nets: list[UnIVALNetwork], source: Tensor, prompts: list[list[int]], answers: list[list[int]]
) -> Tensor:
    """B x A, one forward pass for each; a row's text without its padding."""
    return torch.tensor(
        [
            [float(true_log_probs(nets, row[row != PAD][None], prompt, each, answers).sum()) for each in answers]
            for row, prompt in zip(source, prompts, strict=True)
        ]
    )


class TestScores:
    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000), answers=ANSWERS, prompts=PROMPTS, rows=st.integers(1, 30))
    def test_equal_scoring_every_answer_alone(self, seed: int, answers: Any, prompts: Any, rows: int) -> None:
        net, source = tiny(seed), sources(len(prompts), seed)
        scores = CandidateScorer(answers).score([net], batch(source), padded(prompts), rows=rows)
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, true_scores([net], source, prompts, answers), atol=1e-4, rtol=1e-4)

    def test_are_the_same_in_chunks_of_any_size(self) -> None:
        net, source, scorer = tiny(3), sources(3), CandidateScorer(BEGINNING_ALIKE)
        whole = scorer.score([net], batch(source))
        for rows in (1, 4, 7):
            torch.testing.assert_close(scorer.score([net], batch(source), rows=rows), whole, atol=1e-5, rtol=1e-5)

    def test_without_prompts_are_those_of_empty_prompts(self) -> None:
        net, source, scorer = tiny(1), sources(2), CandidateScorer(BEGINNING_ALIKE)
        empty = torch.full((2, 3), PAD)
        scores = scorer.score([net], batch(source))
        assert torch.equal(scorer.score([net], batch(source), empty), scores)
        assert torch.equal(scorer.score([net], batch(source), empty[:, :0]), scores)
        torch.testing.assert_close(scores, true_scores([net], source, [[], []], BEGINNING_ALIKE), atol=1e-4, rtol=1e-4)

    def test_of_an_ensemble_come_from_averaged_probabilities(self) -> None:
        nets, source, prompts = [tiny(1), tiny(2)], sources(2), [[4, 5], [6]]
        scores = CandidateScorer(BEGINNING_ALIKE).score(nets, batch(source), padded(prompts))
        torch.testing.assert_close(scores, true_scores(nets, source, prompts, BEGINNING_ALIKE), atol=1e-4, rtol=1e-4)

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 1000), answers=ANSWERS, prompts=PROMPTS)
    def test_of_a_batch_are_those_of_its_rows_alone(self, seed: int, answers: Any, prompts: Any) -> None:
        net, source, scorer = tiny(seed), sources(len(prompts), seed), CandidateScorer(answers)
        together = scorer.score([net], batch(source), padded(prompts))
        alone = [
            scorer.score([net], batch(source[row : row + 1]), padded([prompt])) for row, prompt in enumerate(prompts)
        ]
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 1000), answers=ANSWERS)
    def test_are_probabilities_of_the_whole_set(self, seed: int, answers: Any) -> None:
        answers = [list(answer) for answer in {tuple(answer) for answer in answers}]
        scores = CandidateScorer(answers).score([tiny(seed)], batch(sources(2, seed)))
        torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(2), atol=1e-4, rtol=1e-4)

    def test_repeated_answers_score_alike(self) -> None:
        scores = CandidateScorer([[5], [6, 7], [5]]).score([tiny()], batch(sources(1)))
        assert scores.shape == (1, 3)
        assert torch.equal(scores[:, 0], scores[:, 2])

    def test_a_single_answer_is_certain(self) -> None:
        assert CandidateScorer([[5, 6]]).score([tiny()], batch(sources(2))).tolist() == [[0.0], [0.0]]

    def test_positions_without_a_choice_are_not_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        net, read = tiny(), []
        forward = type(net.decoder).forward
        monkeypatch.setattr(
            type(net.decoder), "forward", lambda self, tokens, **k: read.append(tokens) or forward(self, tokens, **k)
        )
        CandidateScorer([[5, 6, 7], [5, 6, 8], [9, 10, 11, 4]]).score([net], batch(sources(2)))
        assert [tokens.tolist() for tokens in read] == [[[0]] * 2, [[0, 5]] * 2, [[0, 5, 6]] * 2]

    def test_scores_that_are_no_numbers_are_refused(self) -> None:
        net = tiny()
        net.decoder.output_projection.weight.data.fill_(float("nan"))
        with pytest.raises(FloatingPointError, match="NaN"):
            CandidateScorer([[5], [6]]).score([net], batch(sources(1)))

    @pytest.mark.parametrize("shape", [(1, 2), (2,)])
    def test_prompts_need_a_row_per_sentence(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(DataError, match="2 rows"):
            CandidateScorer([[5], [6]]).score([tiny()], batch(sources(2)), torch.full(shape, 5))

    def test_answers_outside_the_vocabulary_are_named(self) -> None:
        with pytest.raises(ConfigError, match="token 12, the model's vocabulary ends at 11"):
            CandidateScorer([[5], [12]]).score([tiny()], batch(sources(1)))

    def test_answers_too_long_for_the_decoder_are_named(self) -> None:
        net = tiny()
        room = net.decoder.max_positions()
        scorer = CandidateScorer([[5], [6, 7]])
        assert scorer.score([net], batch(sources(1)), torch.full((1, room - 2), 5)).isfinite().all()
        with pytest.raises(ConfigError, match="max-target-positions"):
            scorer.score([net], batch(sources(1)), torch.full((1, room - 1), 5))


class TestBest:
    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000), answers=ANSWERS, prompts=FREE_OF_EOS)
    def test_are_what_a_beam_as_wide_as_the_set_finds(self, seed: int, answers: Any, prompts: Any) -> None:
        answers = [list(answer) for answer in {tuple(answer) for answer in answers}]
        net, source, prefix = tiny(seed), sources(len(prompts), seed), padded(prompts)
        best = CandidateScorer(answers).best([net], batch(source), prefix, n=len(answers))
        found = search(
            net, source, prefix, AnswerTrie(answers),
            beam_size=len(answers), max_len_b=9, normalize_scores=False,
        )  # fmt: skip
        for prompt, mine, theirs in zip(prompts, best, found, strict=True):
            assert mine[0]["tokens"].tolist() == theirs[0]["tokens"][len(prompt) :].tolist()
            gap = theirs[0]["positional_scores"][: len(prompt)].sum()
            for one, other in zip(mine, theirs, strict=True):
                assert float(one["score"]) == pytest.approx(float(other["score"] - gap), abs=1e-3)

    def test_come_by_score_without_repetitions(self) -> None:
        answers = [*BEGINNING_ALIKE, [5, 6]]
        net, source, prefix, scorer = tiny(4), sources(2), padded([[4, 5], [6]]), CandidateScorer(answers)
        scores = scorer.score([net], batch(source), prefix)
        for row, hypotheses in enumerate(scorer.best([net], batch(source), prefix, n=99)):
            order = scores[row, :-1].argsort(descending=True).tolist()
            assert [h["tokens"].tolist() for h in hypotheses] == [[*answers[number], EOS] for number in order]
            for hypothesis, number in zip(hypotheses, order, strict=True):
                torch.testing.assert_close(hypothesis["score"], scores[row, number])

    def test_say_what_each_token_contributes(self) -> None:
        net, source, prompts = tiny(4), sources(2), [[4, 5], [6]]
        found = CandidateScorer(BEGINNING_ALIKE).best([net], batch(source), padded(prompts), n=3)
        for row, hypotheses in enumerate(found):
            assert len(hypotheses) == 3
            for hypothesis in hypotheses:
                answer, text = hypothesis["tokens"][:-1].tolist(), source[row][source[row] != PAD][None]
                true = true_log_probs([net], text, prompts[row], answer, BEGINNING_ALIKE)
                torch.testing.assert_close(hypothesis["positional_scores"], true, atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(hypothesis["score"], hypothesis["positional_scores"].sum())

    def test_ties_go_to_the_answer_named_first(self) -> None:
        net = tiny()
        net.decoder.output_projection.weight.data.fill_(0)
        (hypotheses,) = CandidateScorer([[9], [5], [7]]).best([net], batch(sources(1)), n=2)
        assert [h["tokens"].tolist() for h in hypotheses] == [[9, EOS], [5, EOS]]


# --------------------------------------------------------------------------------------- the original's scores


class WaveEncoder(nn.Module):
    """e_b = 0.01 * sum of the padded row."""

    def forward(self, src_tokens: Tensor) -> dict[str, list[Tensor]]:
        return {"encoder_out": [0.01 * src_tokens.double().sum(dim=1)]}

    def reorder_encoder_out(self, encoder_out: dict[str, list[Tensor]], order: Tensor) -> dict[str, list[Tensor]]:
        return {"encoder_out": [encoder_out["encoder_out"][0][order]]}


class WaveDecoder(nn.Module):
    """logits[b, t, v] = 3 sin(0.37 prev[b, t] + 0.11 v + e_b), by features and a projection: sin(x + y)."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        wave = 0.11 * torch.arange(vocabulary, dtype=torch.float64)
        self.output_projection = nn.Linear(2, vocabulary, bias=False)
        self.output_projection.weight = nn.Parameter(3 * torch.stack([wave.cos(), wave.sin()], dim=1))

    def forward(
        self, tokens: Tensor, encoder_out: dict[str, list[Tensor]], incremental_state: Optional[dict], **_: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        offset = encoder_out["encoder_out"][0]
        angle = 0.37 * tokens + offset.repeat_interleave(len(tokens) // len(offset))[:, None]
        return torch.stack([angle.sin(), angle.cos()], dim=2), {}

    def reorder_incremental_state(self, cache: dict, order: Tensor, encoder_shared: bool) -> None:
        assert encoder_shared

    def max_positions(self) -> int:
        return 1024


class WaveNetwork(nn.Module):
    """The network that the original's code was run with."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = WaveEncoder(), WaveDecoder(59457)


@pytest.mark.parametrize("prompt_type", ["none", "prev_output"])
def test_scores_of_the_original(prompt_type: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    wanted = golden[prompt_type]
    # GPT-2's tokens of the golden answers
    answers = [[117], [4420], [1275], [2933, 1275], [2933, 2440, 512], [132], [80, 604]]
    source = padded([[*prompt, EOS] for prompt in golden["prev_output"]["decoder_prompts"]])
    prefix = padded([prompt[1:] for prompt in wanted["decoder_prompts"]])
    scorer = CandidateScorer(answers)
    scores = scorer.score([WaveNetwork()], batch(source), prefix)
    torch.testing.assert_close(scores, torch.tensor(wanted["candidate_scores"]), atol=2e-5, rtol=2e-5)
    assert [golden["answers"][best] for best in scores.argmax(dim=1)] == wanted["predicted"]
