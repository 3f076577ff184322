"""Log-probabilities of all answers of a set, by reading each beginning that answers share once.

The score of an answer is the sum of the log-probabilities of its tokens and of the end symbol, each among the symbols
that the set allows at its place (Shukor et al. 2023, "UnIVAL", tasks/mm_tasks/vqa_gen.py, validation by all
candidates). Where the set leaves no choice that log-probability is 0, so the decoder only reads the beginnings that
more than one symbol may follow, and what leads to them. Every sentence is encoded once, its rows share that copy, and
each row is read with the keys and values kept from the row that it continues.

Legend: B sentences, A answers, L symbols of the longest answer with its end symbol, E edges of the trie, k nodes of the
trie that are read together, R = B * k decoder rows (those of a sentence stand together), t tokens so far, P prompt
length, D width, C columns of the vocabulary that are scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from ..modules.cpu_kernels import fast_cpu_kernels, have_large_cpu_layers
from ..modules.trie import AnswerTrie
from .constraints import NEG_INF
from .generator import Hypothesis

ROWS = 1024
"""Decoder rows read at once. Each keeps the keys and values of its tokens: with the base network and 20 tokens in fp32
some 0.7 GB for all, once for every level of the trie that the walk is in."""

Cache = dict[str, dict[str, Any]]


class CandidateScorer:
    """Scores every answer of a set for every sentence of a batch; the best is the argmax.

    Args:
        answers: token ids of the answers, without start and end symbol. An answer may begin with another one; repeated
            answers get one score each, the same.
        eos: id of the end symbol.

    Raises:
        ConfigError: no answers, an empty answer, or one with a start, padding or end symbol.
    """

    def __init__(self, answers: Sequence[Sequence[int]], eos: int = 2) -> None:
        self.answers = [list(answer) for answer in answers]
        self.eos = eos
        self._trie = AnswerTrie(self.answers, eos)
        self._paths = _paths(self._trie, self.answers, eos)
        self._plan = _plan(self._trie, self._paths)
        first = {tuple(answer): number for number, answer in reversed(list(enumerate(self.answers)))}
        self._distinct = torch.tensor(sorted(first.values()))

    def score(
        self,
        models: Sequence[nn.Module],
        sample: dict[str, Any],
        prefix_tokens: Optional[Tensor] = None,
        bos: int = 0,
        pad: int = 1,
        rows: int = ROWS,
    ) -> Tensor:
        """Log-probabilities of the answers, B x A fp32.

        Args:
            models: the ensemble; the probabilities of each step are averaged.
            sample: a batch; ``sample["net_input"]`` is handed to the encoders.
            prefix_tokens: B x P int64, what stands between the start symbol and the answer in each row, padded on the
                right. It is no part of the score. None: nothing.
            bos, pad: ids of the start and the padding symbol.
            rows: at most about this many decoder rows are read at once (at least one per sentence).

        Raises:
            DataError: a prefix of the wrong shape.
            ConfigError: answers that do not fit the vocabulary or, with the prefix, the decoder's positions.
            FloatingPointError: the model gives no numbers.
        """
        log_probs = self._edge_log_probs(models, sample, prefix_tokens, bos, pad, rows)
        return self._totals(log_probs)

    def best(
        self,
        models: Sequence[nn.Module],
        sample: dict[str, Any],
        prefix_tokens: Optional[Tensor] = None,
        n: int = 1,
        bos: int = 0,
        pad: int = 1,
        rows: int = ROWS,
    ) -> list[list[Hypothesis]]:
        """The n best different answers of every sentence, as hypotheses like those of the beam search.

        Arguments and errors as in :meth:`score`.

        Returns:
            For each sentence min(n, different answers) hypotheses, best first (ties: first in the list): dicts with
            ``tokens`` (int64, without prefix, with end symbol), ``score`` (not divided by the length),
            ``positional_scores`` that add up to it, ``attention`` and ``alignment`` (empty).
        """
        log_probs = self._edge_log_probs(models, sample, prefix_tokens, bos, pad, rows)
        totals = self._totals(log_probs)[:, self._distinct.to(log_probs.device)]
        order = self._distinct[totals.sort(dim=1, descending=True, stable=True).indices[:, :n].cpu()]
        return [
            [self._hypothesis(each, number) for number in numbers]
            for each, numbers in zip(log_probs, order.tolist(), strict=True)
        ]

    def _hypothesis(self, log_probs: Tensor, number: int) -> Hypothesis:
        tokens = [*self.answers[number], self.eos]
        edges = self._paths[number, : len(tokens)] - 1
        positional = log_probs[edges.to(log_probs.device)]
        return {
            "tokens": torch.tensor(tokens, device=log_probs.device),
            "score": positional.sum(),
            "positional_scores": positional,
            "attention": torch.empty(0),
            "alignment": torch.empty(0),
        }

    def _totals(self, log_probs: Tensor) -> Tensor:
        """B x A sums along the paths of the answers."""
        totals = log_probs.new_zeros(len(log_probs), len(self.answers))
        for edges in (self._paths.T - 1).to(log_probs.device):  # all at once would take B x A x L numbers
            totals += log_probs[:, edges]
        return totals

    @torch.no_grad()
    def _edge_log_probs(
        self,
        models: Sequence[nn.Module],
        sample: dict[str, Any],
        prefix_tokens: Optional[Tensor],
        bos: int,
        pad: int,
        rows: int,
    ) -> Tensor:
        """B x E fp32: the log-probability of every edge of the trie, given that its beginning is reached."""
        inputs = {k: v for k, v in sample["net_input"].items() if k not in ("prev_output_tokens", "code_masks")}
        prompts = _prompts(prefix_tokens, inputs["src_tokens"], bos, pad)
        for model in models:
            self._check_room(model, max(tokens.shape[1] for _, tokens in prompts))
        if not bool(self._plan.needed[0]):  # a single answer is certain
            return inputs["src_tokens"].new_zeros(
                len(inputs["src_tokens"]), len(self._trie.tokens), dtype=torch.float32
            )
        with fast_cpu_kernels(have_large_cpu_layers(models)):
            tables = [self._read(model, inputs, prompts, rows) for model in models]
        log_probs = torch.stack(tables).logsumexp(dim=0) - math.log(len(tables)) if len(tables) > 1 else tables[0]
        if bool(log_probs.isnan().any()):
            raise FloatingPointError("the model's scores are not numbers (NaN): the checkpoint or its precision is bad")
        return log_probs

    def _check_room(self, model: Any, prompt: int) -> None:
        largest, vocabulary = int(self._trie.tokens.max()), len(model.decoder.output_projection.weight)
        if largest >= vocabulary:
            raise ConfigError(f"an answer has the token {largest}, the model's vocabulary ends at {vocabulary - 1}")
        longest, positions = self._paths.shape[1] - 1, model.decoder.max_positions()
        if prompt - 1 + longest > positions:
            raise ConfigError(
                f"a prefix of {prompt - 1} tokens and an answer of {longest} do not fit into the decoder's {positions}"
                " positions (--max-target-positions)"
            )

    def _read(self, model: Any, inputs: dict[str, Any], prompts: list[tuple[Tensor, Tensor]], rows: int) -> Tensor:
        """B x E: one model's log-probabilities; sentences with prompts of one length go together."""
        encoder_out = model.encoder(**inputs)
        parts = []
        for sentences, tokens in prompts:
            own = encoder_out if len(prompts) == 1 else model.encoder.reorder_encoder_out(encoder_out, sentences)
            walk = _Walk(self._plan, model.decoder, own, len(sentences), rows)
            walk.visit(torch.zeros(1, dtype=torch.int64), tokens, {})
            parts.append(walk.log_probs)
        return torch.cat(parts)[torch.cat([sentences for sentences, _ in prompts]).argsort()]


class _Plan(NamedTuple):
    """What of a trie has to be read; on the CPU, which decides what the device does next without waiting for it."""

    trie: AnswerTrie
    chooses: Tensor  # bool per node: two or more symbols may follow
    needed: Tensor  # bool per node: it chooses, or a node behind it does


class _Walk:
    """The way of one model through a trie, with B sentences whose prompts are of one length.

    Attributes:
        log_probs: B x E fp32; 0 for the edges of nodes that have only one.
    """

    def __init__(self, plan: _Plan, decoder: Any, encoder_out: Any, batch: int, rows: int) -> None:
        self.plan, self.decoder, self.encoder_out, self.batch = plan, decoder, encoder_out, batch
        self.width = max(1, rows // batch)
        self.device = decoder.output_projection.weight.device
        self.log_probs = torch.zeros(batch, len(plan.trie.tokens), device=self.device)

    def visit(self, nodes: Tensor, tokens: Tensor, cache: Cache) -> None:
        """Reads k nodes and, some at a time, the needed nodes behind them.

        Args:
            nodes: k int64.
            tokens: R x t, what leads to each node in each sentence; no row has padding.
            cache: the decoder's, of all rows and all tokens that were read before.
        """
        features, _ = self.decoder(
            tokens, encoder_out=self.encoder_out, incremental_state=cache, features_only=True, need_attn=False
        )
        self._note(nodes, features[:, -1].unflatten(0, (self.batch, len(nodes))))
        places, edges = self.plan.trie.edges_from(nodes)
        go_on = self.plan.needed[edges + 1]
        places, edges = places[go_on], edges[go_on]
        for some, ways in zip(places.split(self.width), edges.split(self.width), strict=True):
            if not len(ways):
                continue
            order = (torch.arange(self.batch)[:, None] * len(nodes) + some).flatten().to(self.device)
            # reordering gives this copy keys and values of its own and replaces entries: ours stay as they are
            branch = {name: dict(entries) for name, entries in cache.items()}
            self.decoder.reorder_incremental_state(branch, order, encoder_shared=True)
            symbols = self.plan.trie.tokens[ways].repeat(self.batch).to(self.device)
            self.visit(ways + 1, torch.cat([tokens[order], symbols[:, None]], dim=1), branch)

    def _note(self, nodes: Tensor, features: Tensor) -> None:
        """Stores the log-probabilities of the edges that leave k nodes, from B x k x D features."""
        choosing = self.plan.chooses[nodes].nonzero().flatten()
        if not len(choosing):
            return
        places, edges = self.plan.trie.edges_from(nodes[choosing])
        symbols, columns = self.plan.trie.tokens[edges].unique(return_inverse=True)
        forbidden = torch.ones(len(choosing), len(symbols), dtype=torch.bool)
        forbidden[places, columns] = False
        choosing, places, edges, symbols, columns, forbidden = (
            each.to(self.device) for each in (choosing, places, edges, symbols, columns, forbidden)
        )
        weight = self.decoder.output_projection.weight.index_select(0, symbols)
        logits = F.linear(features.index_select(1, choosing), weight).float()
        log_probs = logits.masked_fill_(forbidden, NEG_INF).log_softmax(dim=2)
        self.log_probs[:, edges] = log_probs[:, places, columns]


def _paths(trie: AnswerTrie, answers: list[list[int]], eos: int) -> Tensor:
    """A x L int64: the nodes that the symbols of each answer lead to; ``trie.lost`` behind its end symbol.

    Edge e leads to node e + 1, and the last edge leaves the lost node: its log-probability stays 0.
    """
    longest = max(map(len, answers)) + 1
    symbols = torch.tensor([answer + [eos] * (longest - len(answer)) for answer in answers])
    nodes, columns = torch.zeros(len(answers), dtype=torch.int64), []
    for column in symbols.T:
        nodes = trie.follow(nodes, column)
        columns.append(nodes)
    return torch.stack(columns, dim=1)


def _plan(trie: AnswerTrie, paths: Tensor) -> _Plan:
    nodes, _ = trie.edges_from(torch.arange(trie.lost + 1))
    chooses = nodes.bincount() > 1
    needed = chooses.clone()
    for before, here in reversed(list(pairwise([torch.zeros_like(paths[:, 0]), *paths.T]))):
        needed[before[needed[here]]] = True
    return _Plan(trie, chooses, needed)


def _prompts(prefix_tokens: Optional[Tensor], source: Tensor, bos: int, pad: int) -> list[tuple[Tensor, Tensor]]:
    """For every length of prompts: the numbers of the sentences, and their start symbol and prompts without padding."""
    start = torch.full((len(source), 1), bos, dtype=torch.int64, device=source.device)
    if prefix_tokens is None:
        return [(torch.arange(len(source), device=source.device), start)]
    if prefix_tokens.ndim != 2 or len(prefix_tokens) != len(source):
        shape = tuple(prefix_tokens.shape)
        raise DataError(f"prefix tokens of shape {shape}: needs {len(source)} rows, one per sentence")
    prompts = torch.cat([start, prefix_tokens.to(start)], dim=1)
    lengths = 1 + prompts[:, 1:].ne(pad).sum(dim=1)
    groups = [(lengths.eq(length).nonzero().flatten(), length) for length in lengths.unique().tolist()]
    return [(sentences, prompts[sentences, :length]) for sentences, length in groups]
