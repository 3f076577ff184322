"""What a hypothesis may continue with: n-gram blocking, id ranges, sets of answers, prefixes.

Legend: B sentences, R hypotheses (rows; those of a sentence stand together), t tokens so far, V vocabulary, C columns
of the vocabulary that are scored (all, or ``columns``: C ascending ids that begin with the special symbols 0..3), P
prefix length, E edges of a trie.
"""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from ..errors import ConfigError, DataError
from ..modules.trie import SPECIAL, find
from .grammar import Grammar
from .options import GenerationOptions

NEG_INF = float("-inf")


def block_repeated_ngrams(scores: Tensor, tokens: Tensor, size: int, columns: Optional[Tensor] = None) -> None:
    """Forbids, in place, every token that would complete an n-gram that a row already has.

    Stock fairseq's own blocker compares with the padding behind the generated tokens and so blocks nothing.

    Args:
        scores: R x C float, next-token scores.
        tokens: R x t int64, tokens so far including the start symbol.
        size: n; 0 switches it off.
        columns: C int64, the ids that ``scores`` are of; None for all.
    """
    if size <= 0 or tokens.shape[1] < size:
        return
    windows = tokens.unfold(1, size, 1)
    suffix = tokens[:, tokens.shape[1] - size + 1 :]
    repeats = (windows[:, :, :-1] == suffix[:, None, :]).all(dim=2)
    rows, starts = repeats.nonzero(as_tuple=True)
    banned = windows[rows, starts, -1]
    if columns is not None:
        place, present = find(columns, banned)
        rows, banned = rows[present], place[present]
    scores[rows, banned] = NEG_INF


def restrict_to_range(scores: Tensor, start: int, end: int) -> None:
    """Leaves, in place, only the ids 0..3 and start..end-1 of R x V scores possible."""
    scores[:, SPECIAL:start] = NEG_INF
    scores[:, end:] = NEG_INF


def only(scores: Tensor, token: int) -> None:
    """Leaves, in place, only ``token`` possible."""
    kept = scores[:, token].clone()
    scores.fill_(NEG_INF)
    scores[:, token] = kept


class SearchConstraints:
    """The constraints of one search, carried along with its rows.

    Without a trie a prefix is only preferred, as in the original (models/sequence_generator.py): other tokens get a
    score one below the lowest log-probability that any row of the batch gives to its prefix token. A trie makes them
    impossible. Two things differ from the original: n-gram blocking never forbids a prefix token, and ``min_len`` holds
    behind a short prefix also while other sentences are still in theirs.

    Args:
        options: gives ``constraint_range`` and ``zero_shot``.
        trie: an answer trie or another grammar: the only sequences that may follow the prefix (with ``zero_shot``: that
            prefix and rest may form together).
        prefix_tokens: B x P int64, what each sentence begins with, padded on the right with ``pad``.
        batch: B.
        limit: tokens a hypothesis may have before its end symbol.
        vocabulary: V.
        pad: id of the padding symbol.
        device: where the search runs.

    Attributes:
        columns: the ids to be scored, C int64; None for all.

    Raises:
        ConfigError: constraints that exclude each other, do not fit the vocabulary or leave no room for an answer.
        DataError: a prefix of the wrong shape.
    """

    def __init__(
        self,
        options: GenerationOptions,
        trie: Optional[Grammar],
        prefix_tokens: Optional[Tensor],
        batch: int,
        limit: int,
        vocabulary: int,
        pad: int,
        device: torch.device,
    ) -> None:
        self._range, self._after_softmax = options.id_range(), options.zero_shot
        self._trie = None if trie is None else trie.to(device)
        self._pad = pad
        self._prefix = _checked_prefix(prefix_tokens, batch, pad, device)
        self._lengths = self._prefix.ne(pad).sum(dim=1)
        self._forced_steps = min(self._prefix.shape[1], limit)
        self._known: Optional[Tensor] = None
        self._check(vocabulary, limit)
        self._nodes = torch.zeros(batch, dtype=torch.int64, device=device)
        self.columns = self._useful_columns(vocabulary)
        if self._trie is not None:
            tokens = self._trie.tokens
            self._edge_columns = tokens if self.columns is None else torch.searchsorted(self.columns, tokens)

    def _check(self, vocabulary: int, limit: int) -> None:
        if self._trie is not None:
            if self._range is not None:
                raise ConfigError("constraint_range and a list of answers exclude each other: drop one of them")
            largest = int(self._trie.tokens.max())
            if largest >= vocabulary:
                raise ConfigError(f"an answer has the token {largest}, the model's vocabulary ends at {vocabulary - 1}")
            if self._prefix.shape[1] >= limit:
                raise ConfigError(
                    f"a prefix of {self._prefix.shape[1]} tokens leaves no room for an answer in {limit} tokens: raise"
                    " max_len_b"
                )
        if self._range is not None:
            start, end = self._range
            outside = self._prefix[(self._prefix >= end) | ((self._prefix >= SPECIAL) & (self._prefix < start))]
            if len(outside):
                raise ConfigError(f"prefix token {int(outside[0])} lies outside the constraint range {start},{end}")

    def _useful_columns(self, vocabulary: int) -> Optional[Tensor]:
        """The ids that may occur at all, if scoring only these saves work and gives the same."""
        device = self._prefix.device
        if self._after_softmax:  # which is over the whole vocabulary
            return None
        if self._trie is not None:
            allowed = torch.cat([self._trie.tokens, self._prefix.flatten()]).unique()
            allowed = allowed[allowed >= SPECIAL]
        elif self._range is not None and not self._forced_steps:
            allowed = torch.arange(self._range[0], min(self._range[1], vocabulary), device=device)
        else:
            return None
        columns = torch.cat([torch.arange(SPECIAL, device=device), allowed])
        return columns if 2 * len(columns) <= vocabulary else None

    def mask(self, scores: Tensor) -> None:
        """Makes, in place, what the range or the trie forbid impossible in R x C scores."""
        if self._range is not None and self.columns is None:
            restrict_to_range(scores, *self._range)
        if self._trie is not None:
            rows, edges = self._trie.edges_from(self._nodes)
            forbidden = torch.ones_like(scores, dtype=torch.bool)
            forbidden[rows, self._edge_columns[edges]] = False
            scores.masked_fill_(forbidden, NEG_INF)

    def certain_prefix(self) -> Optional[Tensor]:
        """B x P int64: the prefix, if nothing else is possible; its log-probabilities can be had in one pass then."""
        possible = self._trie is not None and not self._after_softmax and self._forced_steps
        return self._prefix if possible else None

    def start_behind(self, log_probs: Tensor) -> int:
        """Takes the log-probabilities of the certain prefix, B x P; the search may begin behind the shortest one.

        Returns:
            The number of tokens that all prefixes have.
        """
        self._known = log_probs
        return int(self._lengths.min())

    def forced(self, step: int, rows: int) -> Optional[Tensor]:
        """The tokens that rows must have in this step, R int64, ``pad`` where any is allowed; None if all are free."""
        return self._per_row(self._prefix[:, step], rows) if step < self._forced_steps else None

    def prefer(self, log_probs: Tensor, forced: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Puts, in place, all tokens but the forced one behind it, in the rows of R x C scores that have one.

        Returns:
            The columns of the forced tokens and their log-probabilities, both R x 1.
        """
        places = (forced if self.columns is None else torch.searchsorted(self.columns, forced))[:, None]
        bound = forced.ne(self._pad)[:, None]
        kept = log_probs.gather(1, places)
        if self._known is not None:
            kept = torch.where(bound, self._per_row(self._known[:, step], len(forced))[:, None], kept)
        others = kept.new_tensor(NEG_INF) if self._trie is not None else kept.min() - 1
        log_probs.masked_fill_(bound, others)
        log_probs.scatter_(1, places, kept)
        return places, kept

    def keep_sentences(self, kept: Tensor) -> None:
        """Goes on with some of the sentences (int64 numbers); their rows follow in :meth:`advance`."""
        self._prefix, self._lengths = self._prefix[kept], self._lengths[kept]
        if self._known is not None:
            self._known = self._known[kept]

    def advance(self, order: Tensor, symbols: Tensor, step: int) -> None:
        """New rows continue the rows ``order`` with ``symbols``, both R int64."""
        if self._trie is None:
            return
        nodes = self._trie.follow(self._nodes[order], symbols)
        if step < self._forced_steps and not self._after_softmax:
            nodes.masked_fill_(step < self._per_row(self._lengths, len(nodes)), 0)
        self._nodes = nodes

    def _per_row(self, values: Tensor, rows: int) -> Tensor:
        return values.repeat_interleave(rows // len(values))


def _checked_prefix(prefix_tokens: Optional[Tensor], batch: int, pad: int, device: torch.device) -> Tensor:
    """B x P without columns that are padding in every row."""
    if prefix_tokens is None:
        return torch.empty(batch, 0, dtype=torch.int64, device=device)
    if prefix_tokens.ndim != 2 or len(prefix_tokens) != batch:
        raise DataError(f"prefix tokens of shape {tuple(prefix_tokens.shape)}: needs {batch} rows, one per sentence")
    prefix = prefix_tokens.to(device)
    return prefix[:, : int(prefix.ne(pad).sum(dim=1).max())] if prefix.shape[1] else prefix
