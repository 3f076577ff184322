"""Beam search that shares one encoder copy among the hypotheses of a sentence.

Gives the hypotheses, scores and order of fairseq's generator (with a working n-gram blocker), from less work: keys and
values of the encoder are computed and kept once per sentence instead of once per hypothesis, positions are not
recomputed at every step, no normalised copy of the vocabulary scores is made, and CPUs use faster products.

Legend: B live sentences, K beam, R = B * K rows (the hypotheses of a sentence stand together), V vocabulary, t step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modules.cpu_kernels import fast_cpu_kernels, have_large_cpu_layers
from .constraints import NEG_INF, block_repeated_ngrams, only, restrict_to_range
from .options import GenerationOptions

Hypothesis = dict[str, Any]


@dataclass
class _Beams:
    """State of the search: ``tokens`` R x (max_len + 2), ``scores`` R x (max_len + 1) cumulative log-probabilities."""

    tokens: Tensor
    scores: Tensor
    ignore: Tensor  # B x K: dead hypotheses
    sentences: list[int]  # live sentence -> index in the batch


class SequenceGenerator(nn.Module):
    """Beam search for encoder-decoder models of this package.

    Args:
        models: the ensemble; probabilities are averaged.
        tgt_dict: gives the ids of the start, padding, end and unknown symbols.
        options: how to search; keyword arguments override single fields (names of :class:`GenerationOptions`).
    """

    def __init__(
        self, models: Sequence[nn.Module], tgt_dict: Any, options: Optional[GenerationOptions] = None, **overrides: Any
    ) -> None:
        super().__init__()
        self.models = list(models)
        self.options = (options or GenerationOptions()).with_flags(overrides, "generation")
        self.bos, self.pad, self.eos, self.unk = tgt_dict.bos(), tgt_dict.pad(), tgt_dict.eos(), tgt_dict.unk()
        self.symbols_to_strip_from_output = {self.bos, self.eos}

    @torch.no_grad()
    def generate(
        self, models: Optional[Sequence[nn.Module]], sample: dict[str, Any], **_: Any
    ) -> list[list[Hypothesis]]:
        """Hypotheses for every row of a batch.

        Args:
            models: used instead of those given at construction, unless None.
            sample: a batch; ``sample["net_input"]`` is handed to the encoders.

        Returns:
            For each row at most K hypotheses, best first: dicts with ``tokens`` (int64, end symbol included), ``score``
            (float tensor), ``positional_scores`` (log-probability of each token), ``attention`` and ``alignment``
            (empty).
        """
        ensemble = [_Stepper(model, self.options) for model in (models or self.models)]
        inputs = {k: v for k, v in sample["net_input"].items() if k not in ("prev_output_tokens", "code_masks")}
        source = inputs["src_tokens"]
        longest = int(self.options.max_len_a * source.shape[1] + self.options.max_len_b)
        longest = min(longest, *(stepper.max_target_positions() for stepper in ensemble))
        with fast_cpu_kernels(have_large_cpu_layers(stepper.model for stepper in ensemble)):
            for stepper in ensemble:
                stepper.start(inputs)
            finished = self._search(ensemble, len(source), longest, source.device)
        return [sorted(hypotheses, key=lambda h: float(h["score"]), reverse=True) for hypotheses in finished]

    def _search(
        self, ensemble: list[_Stepper], batch: int, longest: int, device: torch.device
    ) -> list[list[Hypothesis]]:
        beam = self.options.beam_size
        finished: list[list[Hypothesis]] = [[] for _ in range(batch)]
        tokens = torch.full((batch, longest + 2), self.pad, dtype=torch.int64, device=device)
        tokens[:, 0] = self.bos
        state = _Beams(
            tokens=tokens,
            scores=torch.zeros(batch, longest + 1, device=device),
            ignore=torch.zeros(batch, beam, dtype=torch.bool, device=device),
            sentences=list(range(batch)),
        )
        for step in range(longest + 1):
            scores, rows, symbols = self._candidates(ensemble, state, step, longest)
            ends = symbols.eq(self.eos) & scores.ne(NEG_INF)
            ends[:, :beam] &= ~state.ignore
            self._collect(state, finished, scores, rows, ends, step)
            keep = [
                i for i, sentence in enumerate(state.sentences) if len(finished[sentence]) < beam and step < longest
            ]
            if not keep:
                break
            self._advance(ensemble, state, keep, scores, rows, symbols, ends, step)
        return finished

    def _candidates(
        self, ensemble: list[_Stepper], state: _Beams, step: int, longest: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The 2K best continuations of each sentence: cumulative scores, row numbers and symbols, each B x 2K."""
        logits, normaliser = self._scores(ensemble, state.tokens[:, : step + 1])
        self._forbid(logits, state.tokens[:, : step + 1], step, longest)
        sentences = len(state.sentences)
        per_sentence = len(logits) // sentences  # 1 in the first step, K afterwards
        vocabulary = logits.shape[1]
        # the 2K best of a sentence are among the 2K best of each of its hypotheses
        wanted = min(2 * self.options.beam_size, vocabulary)
        best, symbols = logits.topk(wanted, dim=1)
        best = best - normaliser
        if step > 0:
            best = best + state.scores[:, step - 1, None]
        count = min(2 * self.options.beam_size, per_sentence * vocabulary - 1)
        best, index = best.view(sentences, -1).topk(min(count, per_sentence * wanted), dim=1)
        rows = index // wanted + torch.arange(sentences, device=index.device)[:, None] * per_sentence
        return best, rows, symbols.view(sentences, -1).gather(1, index)

    def _scores(self, ensemble: list[_Stepper], tokens: Tensor) -> tuple[Tensor, Tensor]:
        """R x V scores and the R x 1 amount to subtract from them to get log-probabilities."""
        logits = [stepper.logits(tokens) for stepper in ensemble]
        if len(logits) == 1:
            normaliser = logits[0].logsumexp(dim=1, keepdim=True)
            if bool(normaliser.isnan().any()):
                raise FloatingPointError(
                    "the model's scores are not numbers (NaN): the checkpoint or its precision is bad"
                )
            return logits[0], normaliser
        log_probs = torch.stack([F.log_softmax(each, dim=1) for each in logits])
        return log_probs.logsumexp(dim=0), torch.full_like(log_probs[0, :, :1], float(len(logits))).log()

    def _forbid(self, scores: Tensor, tokens: Tensor, step: int, longest: int) -> None:
        if step < min(self.options.min_len, longest):
            scores[:, self.eos] = NEG_INF
        scores[:, self.pad] = NEG_INF
        scores[:, self.unk] -= self.options.unk_penalty
        block_repeated_ngrams(scores, tokens, self.options.no_repeat_ngram_size)
        if step >= longest:
            only(scores, self.eos)

    def _collect(
        self, state: _Beams, finished: list[list[Hypothesis]], scores: Tensor, rows: Tensor, ends: Tensor, step: int
    ) -> None:
        """Stores the hypotheses that end in this step and are among the K best candidates."""
        beam = self.options.beam_size
        for index, rank in ends[:, :beam].nonzero().tolist():
            hypotheses = finished[state.sentences[index]]
            if len(hypotheses) == beam:
                continue
            row = rows[index, rank]
            total = scores[index, rank]
            cumulative = torch.cat([state.scores[row, :step], total[None]])
            length = step + 1
            hypotheses.append(
                {
                    "tokens": torch.cat([state.tokens[row, 1:length], rows.new_tensor([self.eos])]),
                    "score": total / length**self.options.len_penalty if self.options.normalize_scores else total,
                    "positional_scores": cumulative.diff(prepend=cumulative.new_zeros(1)),
                    "attention": torch.empty(0),
                    "alignment": torch.empty(0),
                }
            )

    def _advance(
        self,
        ensemble: list[_Stepper],
        state: _Beams,
        keep: list[int],
        scores: Tensor,
        rows: Tensor,
        symbols: Tensor,
        ends: Tensor,
        step: int,
    ) -> None:
        """Makes the K best unfinished candidates of every unfinished sentence the rows of the next step."""
        if len(keep) < len(state.sentences):
            kept = torch.tensor(keep, device=rows.device)
            for stepper in ensemble:
                stepper.keep_sentences(kept)
            scores, rows, symbols, ends = (x.index_select(0, kept) for x in (scores, rows, symbols, ends))
            state.ignore = state.ignore.index_select(0, kept)
            state.sentences = [state.sentences[i] for i in keep]
        beam, candidates = self.options.beam_size, scores.shape[1]
        dead = ends.clone()
        dead[:, :beam] |= state.ignore
        rank = dead * candidates + torch.arange(candidates, device=rows.device)
        rank, chosen = rank.topk(beam, dim=1, largest=False)
        state.ignore = rank >= candidates
        order = rows.gather(1, chosen).flatten()
        state.tokens = state.tokens.index_select(0, order)
        state.scores = state.scores.index_select(0, order)
        state.tokens[:, step + 1] = symbols.gather(1, chosen).flatten()
        state.scores[:, step] = scores.gather(1, chosen).flatten()
        for stepper in ensemble:
            stepper.reorder(order)


class _Stepper:
    """One model of the ensemble during one search: its encoder output and its cache."""

    def __init__(self, model: nn.Module, options: GenerationOptions) -> None:
        self.model: Any = model
        self.temperature = options.temperature
        self.id_range = options.id_range()

    def start(self, inputs: dict[str, Any]) -> None:
        self.encoder_out = self.model.encoder(**inputs)
        self.cache: dict[str, dict[str, Any]] = {}

    def max_target_positions(self) -> int:
        return self.model.decoder.max_positions()

    def logits(self, tokens: Tensor) -> Tensor:
        """R x V fp32 scores after ``tokens`` (R x t)."""
        features, _ = self.model.decoder(
            tokens, encoder_out=self.encoder_out, incremental_state=self.cache, features_only=True
        )
        logits = self.model.decoder.output_layer(features[:, -1]).float()
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if self.id_range is not None:
            restrict_to_range(logits, *self.id_range)
        return logits

    def keep_sentences(self, kept: Tensor) -> None:
        self.encoder_out = self.model.encoder.reorder_encoder_out(self.encoder_out, kept)
        self.model.decoder.select_sentences(self.cache, kept)

    def reorder(self, order: Tensor) -> None:
        self.model.decoder.reorder_incremental_state(self.cache, order, encoder_shared=True)
