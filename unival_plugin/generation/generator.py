"""Beam search and sampling that share one encoder copy among the hypotheses of a sentence.

The search gives the hypotheses, scores and order of fairseq's generator (with a working n-gram blocker), from less
work: keys and values of the encoder are computed and kept once per sentence instead of once per hypothesis, positions
are not recomputed at every step, no normalised copy of the vocabulary scores is made, tokens that no hypothesis may
have are not scored, what all hypotheses must begin with is read in one pass, the cache only moves where the order of
the rows changes, and CPUs use faster products. Sampling differs in one thing: the next tokens are drawn.

Legend: B live sentences, K beam, R = B * K rows (the hypotheses of a sentence stand together), V vocabulary, C the
columns of the vocabulary that are scored, t step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..modules.cpu_kernels import fast_cpu_kernels, have_large_cpu_layers
from ..modules.trie import SPECIAL
from .constraints import NEG_INF, SearchConstraints, block_repeated_ngrams, only
from .grammar import Grammar
from .options import GenerationOptions
from .sampling import draw

Hypothesis = dict[str, Any]


@dataclass
class _Beams:
    """State of the search: ``tokens`` R x (max_len + 2), ``scores`` R x (max_len + 1) cumulative log-probabilities."""

    tokens: Tensor
    scores: Tensor
    sentences: list[int]  # live sentence -> index in the batch
    constraints: SearchConstraints
    step: int = 0  # tokens that every row has, without the start symbol

    @property
    def longest(self) -> int:
        return self.scores.shape[1] - 1

    @property
    def so_far(self) -> Tensor:
        """R x (step + 1): what the rows consist of."""
        return self.tokens[:, : self.step + 1]

    @property
    def totals(self) -> Tensor:
        """R x 1: log-probabilities of the rows."""
        return self.scores[:, self.step - 1, None] if self.step else torch.zeros_like(self.scores[:, :1])

    def reorder(self, order: Tensor) -> None:
        """Goes on with the rows ``order``, int64."""
        self.tokens = self.tokens.index_select(0, order)
        self.scores = self.scores.index_select(0, order)


class SequenceGenerator(nn.Module):
    """Beam search, or sampling, for encoder-decoder models of this package.

    Sampling draws K hypotheses for each sentence, independently of each other, token by token from the probabilities
    that the search would compare: after the temperature, the range or trie and the other constraints, among the most
    likely tokens if the options say so. The numbers come from torch's global generator of the device, so the same seed
    and the same batches give the same. A hypothesis' score is made of the log-probabilities of its tokens before the
    choice was narrowed to the most likely, as in fairseq. Prefix tokens are never drawn but taken, and a hypothesis
    that finds itself without any possible token (n-gram blocking may do this) is left out.

    Args:
        models: the ensemble; probabilities are averaged.
        tgt_dict: gives the ids of the start, padding, end and unknown symbols.
        options: how to search; keyword arguments override single fields (names of :class:`GenerationOptions`).

    Raises:
        ConfigError: a bad value, or ``sampling_topk`` or ``sampling_topp`` without ``sampling``.
    """

    def __init__(
        self, models: Sequence[nn.Module], tgt_dict: Any, options: Optional[GenerationOptions] = None, **overrides: Any
    ) -> None:
        super().__init__()
        self.models = list(models)
        self.options = (options or GenerationOptions()).with_flags(overrides, "generation")
        if not self.options.sampling and (self.options.sampling_topk, self.options.sampling_topp) != (-1, -1):
            raise ConfigError("sampling_topk and sampling_topp are of no use in beam search: give --sampling as well")
        self.bos, self.pad, self.eos, self.unk = tgt_dict.bos(), tgt_dict.pad(), tgt_dict.eos(), tgt_dict.unk()
        self.symbols_to_strip_from_output = {self.bos, self.eos}

    @torch.no_grad()
    def generate(
        self,
        models: Optional[Sequence[nn.Module]],
        sample: dict[str, Any],
        prefix_tokens: Optional[Tensor] = None,
        trie: Optional[Grammar] = None,
        **_: Any,
    ) -> list[list[Hypothesis]]:
        """Hypotheses for every row of a batch.

        Args:
            models: used instead of those given at construction, unless None.
            sample: a batch; ``sample["net_input"]`` is handed to the encoders.
            prefix_tokens: B x P int64, what the hypotheses of each row begin with (after the start symbol), padded on
                the right. Without a trie it is only preferred to everything else, see :class:`SearchConstraints`.
            trie: the only sequences possible after the prefix: an answer trie, a box grammar.

        Returns:
            For each row at most K hypotheses, best first: dicts with ``tokens`` (int64, with prefix and end symbol),
            ``score`` (float tensor), ``positional_scores`` (log-probability of each token), ``attention`` and
            ``alignment`` (empty).

        Raises:
            ConfigError, DataError: constraints or a prefix that cannot be used.
        """
        ensemble = [_Stepper(model, self.options) for model in (models or self.models)]
        inputs = {k: v for k, v in sample["net_input"].items() if k not in ("prev_output_tokens", "code_masks")}
        source = inputs["src_tokens"]
        longest = int(self.options.max_len_a * source.shape[1] + self.options.max_len_b)
        longest = min(longest, *(stepper.max_target_positions() for stepper in ensemble))
        constraints = SearchConstraints(
            self.options,
            trie,
            prefix_tokens,
            batch=len(source),
            limit=longest,
            vocabulary=ensemble[0].vocabulary(),
            pad=self.pad,
            device=source.device,
        )
        with fast_cpu_kernels(have_large_cpu_layers(stepper.model for stepper in ensemble)):
            for stepper in ensemble:
                stepper.start(inputs)
            finished = self._search(ensemble, self._start(ensemble, constraints, len(source), longest, source.device))
        return [sorted(hypotheses, key=lambda h: float(h["score"]), reverse=True) for hypotheses in finished]

    def _start(
        self,
        ensemble: list[_Stepper],
        constraints: SearchConstraints,
        batch: int,
        longest: int,
        device: torch.device,
    ) -> _Beams:
        """One row per sentence: the start symbol and what all sentences have to go on with."""
        tokens = torch.full((batch, longest + 2), self.pad, dtype=torch.int64, device=device)
        tokens[:, 0] = self.bos
        state = _Beams(tokens, torch.zeros(batch, longest + 1, device=device), list(range(batch)), constraints)
        prefix = constraints.certain_prefix()
        if prefix is not None:
            whole = torch.cat([tokens[:, :1], prefix], dim=1)
            log_probs = torch.stack([stepper.score(whole) for stepper in ensemble])
            log_probs = log_probs.logsumexp(dim=0) - math.log(len(ensemble))
            state.step = constraints.start_behind(log_probs)
            tokens[:, : state.step + 1] = whole[:, : state.step + 1]
            state.scores[:, : state.step] = log_probs[:, : state.step].cumsum(dim=1)
        return state

    def _search(self, ensemble: list[_Stepper], state: _Beams) -> list[list[Hypothesis]]:
        beam = self.options.beam_size
        finished: list[list[Hypothesis]] = [[] for _ in state.sentences]
        while True:
            scores, rows, symbols = self._candidates(ensemble, state)
            ends = symbols.eq(self.eos) & scores.ne(NEG_INF)
            self._collect(state, finished, scores, rows, ends)
            can_go_on = (scores.ne(NEG_INF) & ~ends).any(dim=1).tolist()
            keep = [i for i, s in enumerate(state.sentences) if can_go_on[i] and len(finished[s]) < beam]
            if not keep or state.step == state.longest:
                return finished
            self._advance(ensemble, state, keep, scores, rows, symbols, ends)

    def _candidates(self, ensemble: list[_Stepper], state: _Beams) -> tuple[Tensor, Tensor, Tensor]:
        """The 2K best continuations of each sentence: cumulative scores, row numbers and symbols, each B x 2K.

        When sampling: K drawn ones, B x K.
        """
        scores, normaliser = self._scores(ensemble, state)
        forced = state.constraints.forced(state.step, len(scores))
        if self.options.sampling:
            best, rows, places = self._drawn(scores - normaliser, state, forced)
        elif forced is None:
            self._forbid(scores, state)
            best, rows, places = self._best(scores, state.totals - normaliser, len(state.sentences))
        else:
            scores = scores - normaliser
            self._force(scores, state, forced)
            best, rows, places = self._best_of_all(scores + state.totals, len(state.sentences))
        symbols = places if state.constraints.columns is None else state.constraints.columns[places]
        # impossible candidates may have to fill the beam: give them a symbol that does nothing
        return best, rows, symbols.masked_fill(best == NEG_INF, self.eos)

    def _drawn(self, log_probs: Tensor, state: _Beams, forced: Optional[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """K draws for each sentence: cumulative scores, row numbers and columns, each B x K."""
        sentences, beam, options = len(state.sentences), self.options.beam_size, self.options
        count = beam * sentences // len(log_probs)  # all of a sentence from its one row in the first step
        if forced is None:
            self._forbid(log_probs, state)
            places = draw(log_probs, count, options.sampling_topk, options.sampling_topp)
        else:
            taken = self._force(log_probs, state, forced)
            places = draw(log_probs, count, options.sampling_topk, options.sampling_topp)
            places = torch.where(forced.ne(self.pad)[:, None], taken, places)
        scores = log_probs.gather(1, places) + state.totals
        rows = torch.arange(len(scores), device=scores.device)[:, None].expand_as(scores)
        return scores.view(sentences, beam), rows.reshape(sentences, beam), places.view(sentences, beam)

    def _best(self, scores: Tensor, offsets: Tensor, sentences: int) -> tuple[Tensor, Tensor, Tensor]:
        """The 2K best of each sentence among R x C scores plus R x 1 offsets: scores, rows and columns, B x 2K."""
        # the 2K best of a sentence are among the 2K best of each of its hypotheses
        wanted = min(2 * self.options.beam_size, scores.shape[1])
        each, places = scores.topk(wanted, dim=1)
        best, rows, ranks = self._best_of_all(each + offsets, sentences)
        return best, rows, places[rows, ranks]

    def _best_of_all(self, scores: Tensor, sentences: int) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`_best`, from all scores of a sentence at once.

        A forced prefix makes many ties, which break as in the original only if nothing is selected before.
        """
        rows, width = scores.shape
        pool = scores.view(sentences, -1)
        missing = 2 * self.options.beam_size - pool.shape[1]
        best, index = F.pad(pool, (0, max(missing, 0)), value=NEG_INF).topk(2 * self.options.beam_size, dim=1)
        index.clamp_(max=pool.shape[1] - 1)
        first = torch.arange(0, rows, rows // sentences, device=index.device)[:, None]
        return best, index // width + first, index % width

    def _scores(self, ensemble: list[_Stepper], state: _Beams) -> tuple[Tensor, Tensor]:
        """R x C scores and the R x 1 amount to subtract from them to get log-probabilities."""
        logits = [stepper.logits(state.so_far, state.constraints.columns) for stepper in ensemble]
        if not self.options.zero_shot:
            for each in logits:
                state.constraints.mask(each)
        if len(logits) == 1:
            scores, normaliser = logits[0], logits[0].logsumexp(dim=1, keepdim=True)
            if bool(normaliser.isnan().any()):
                raise FloatingPointError(
                    "the model's scores are not numbers (NaN): the checkpoint or its precision is bad"
                )
        else:
            scores = torch.stack([F.log_softmax(each, dim=1) for each in logits]).logsumexp(dim=0)
            normaliser = torch.full_like(scores[:, :1], math.log(len(logits)))
        if self.options.zero_shot:
            state.constraints.mask(scores)
        return scores, normaliser

    def _force(self, log_probs: Tensor, state: _Beams, forced: Tensor) -> Tensor:
        """Puts, in place, the rest of R x C log-probabilities behind each row's forced token, if it has one.

        Returns:
            The columns of the forced tokens, R x 1.
        """
        places, kept = state.constraints.prefer(log_probs, forced, state.step)
        free = forced.eq(self.pad)
        self._forbid(log_probs, state, free)
        log_probs.scatter_(1, places, torch.where(free[:, None], log_probs.gather(1, places), kept))
        return places

    def _forbid(self, scores: Tensor, state: _Beams, free: Optional[Tensor] = None) -> None:
        """Makes, in place, tokens impossible in R x C scores; rows that are not ``free`` may end before ``min_len``."""
        step, longest = state.step, state.longest
        if step < min(self.options.min_len, longest):
            scores[slice(None) if free is None else free, self.eos] = NEG_INF
        scores[:, self.pad] = NEG_INF
        scores[:, self.unk] -= self.options.unk_penalty
        if self.options.gen_code and step < longest:
            scores[:, :SPECIAL] = NEG_INF
        size, columns = self.options.no_repeat_ngram_size, state.constraints.columns
        block_repeated_ngrams(scores, state.so_far, size, columns)
        if step >= longest:
            only(scores, self.eos)

    def _collect(
        self, state: _Beams, finished: list[list[Hypothesis]], scores: Tensor, rows: Tensor, ends: Tensor
    ) -> None:
        """Stores the hypotheses that end in this step and are among the K best candidates."""
        beam, length = self.options.beam_size, state.step + 1
        for index, rank in ends[:, :beam].nonzero().tolist():
            hypotheses = finished[state.sentences[index]]
            if len(hypotheses) == beam:
                continue
            row = rows[index, rank]
            total = scores[index, rank]
            cumulative = torch.cat([state.scores[row, : state.step], total[None]])
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
    ) -> None:
        """Makes the K best unfinished candidates of every unfinished sentence the rows of the next step.

        Where fewer are left, as when drawn ones have ended, rows without a chance fill their places.
        """
        if len(keep) < len(state.sentences):
            kept = torch.tensor(keep, device=rows.device)
            state.constraints.keep_sentences(kept)
            for stepper in ensemble:
                stepper.keep_sentences(kept)
            scores, rows, symbols, ends = (x.index_select(0, kept) for x in (scores, rows, symbols, ends))
            state.sentences = [state.sentences[i] for i in keep]
        scores = scores.masked_fill(ends, NEG_INF)
        # at most K of 2K candidates end, because a row ends in one way only
        rank = ends * ends.shape[1] + torch.arange(ends.shape[1], device=rows.device)
        chosen = rank.topk(self.options.beam_size, dim=1, largest=False).indices
        order, symbols = rows.gather(1, chosen).flatten(), symbols.gather(1, chosen).flatten()
        if not torch.equal(order, torch.arange(len(state.tokens), device=order.device)):
            state.reorder(order)
            for stepper in ensemble:
                stepper.reorder(order)
        state.tokens[:, state.step + 1] = symbols
        state.scores[:, state.step] = scores.gather(1, chosen).flatten()
        state.constraints.advance(order, symbols, state.step)
        state.step += 1


class _Stepper:
    """One model of the ensemble during one search: its encoder output and its cache."""

    def __init__(self, model: nn.Module, options: GenerationOptions) -> None:
        self.model: Any = model
        self.temperature = options.temperature
        self.gen_code = options.gen_code

    def start(self, inputs: dict[str, Any]) -> None:
        self.encoder_out = self.model.encoder(**inputs)
        self.cache: dict[str, dict[str, Any]] = {}
        self.narrow: Optional[Tensor] = None

    def max_target_positions(self) -> int:
        return self.model.decoder.max_positions()

    def vocabulary(self) -> int:
        return len(self.model.decoder.output_projection.weight)

    def logits(self, tokens: Tensor, columns: Optional[Tensor]) -> Tensor:
        """R x C fp32 scores after ``tokens`` (R x t); ``columns`` are the same in all calls that have some."""
        features = self._features(tokens, cached=True)[:, -1]
        if columns is None:
            return self._scaled(self.model.decoder.output_layer(features))
        if self.narrow is None:
            self.narrow = self.model.decoder.output_projection.weight.index_select(0, columns)
        return self._scaled(F.linear(features, self.narrow))

    def score(self, tokens: Tensor) -> Tensor:
        """R x (t - 1) fp32 log-probabilities of ``tokens`` (R x t) behind the first."""
        features, log_probs = self._features(tokens[:, :-1], cached=False), []
        for position, wanted in enumerate(tokens[:, 1:].unbind(dim=1)):  # all at once would take t x V numbers a row
            logits = self._scaled(self.model.decoder.output_layer(features[:, position]))
            log_probs.append(-F.cross_entropy(logits, wanted, reduction="none"))
        return torch.stack(log_probs, dim=1)

    def keep_sentences(self, kept: Tensor) -> None:
        self.encoder_out = self.model.encoder.reorder_encoder_out(self.encoder_out, kept)
        self.model.decoder.select_sentences(self.cache, kept)

    def reorder(self, order: Tensor) -> None:
        self.model.decoder.reorder_incremental_state(self.cache, order, encoder_shared=True)

    def _features(self, tokens: Tensor, cached: bool) -> Tensor:
        # one row stands for all: scores of the positions of a picture's codes are then computed once
        code_masks = torch.ones(1, dtype=torch.bool, device=tokens.device) if self.gen_code else None
        features, _ = self.model.decoder(
            tokens,
            encoder_out=self.encoder_out,
            incremental_state=self.cache if cached else None,
            code_masks=code_masks,
            features_only=True,
            need_attn=False,
        )
        return features

    def _scaled(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        return logits if self.temperature == 1.0 else logits / self.temperature
