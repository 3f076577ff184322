"""A set of token sequences in which many walkers take their next step at once.

Legend: R walkers, E edges.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..errors import ConfigError

SPECIAL = 4
"""The ids below are the special symbols, which every dictionary of the package begins with."""


class AnswerTrie:
    """A set of answers as flat arrays, in which all hypotheses take their next step at once.

    Nodes are numbered level by level and by token within a parent, so edge e leads to node e + 1 and the edges that
    leave a node stand together. Node 0 is the start. The last node stands for every path that is in no answer: like the
    nodes behind the end symbol it allows only the end symbol.

    Args:
        answers: token ids of the answers, without start and end symbol; repeated answers count once, and an answer may
            begin with another one.
        eos: id of the end symbol.

    Raises:
        ConfigError: no answers, an empty answer, or one with a start, padding or end symbol.
    """

    def __init__(self, answers: Sequence[Sequence[int]], eos: int = 2) -> None:
        if not len(answers):
            raise ConfigError("the list of answers is empty: give at least one answer")
        for number, answer in enumerate(answers):
            if not len(answer) or min(answer) < SPECIAL - 1:
                raise ConfigError(f"answer {number} of the list, {list(answer)}, is empty or has a control symbol")
        paths = pad_sequence([torch.tensor([*answer, eos]) for answer in answers], batch_first=True, padding_value=-1)
        edges, self.lost = _edges_by_level(paths)
        self._edges = torch.cat([edges, torch.tensor([self.lost * _SPAN + eos])])
        self.tokens = self._edges % _SPAN
        """E int64, the symbol of each edge."""
        bounds = torch.searchsorted(self._edges, torch.arange(self.lost + 2) * _SPAN)
        ends = bounds[:-1] == bounds[1:]
        self._first = bounds[:-1].masked_fill(ends, self.lost - 1)
        self._last = bounds[1:].masked_fill(ends, self.lost)

    def to(self, device: torch.device) -> AnswerTrie:
        """A copy on ``device``."""
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device))
        return moved

    def edges_from(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The edges that leave each of R nodes: row numbers and edge numbers, both of one length, int64."""
        return spans(self._first[nodes], self._last[nodes])

    def follow(self, nodes: Tensor, symbols: Tensor) -> Tensor:
        """The nodes that R symbols lead to from R nodes, int64."""
        edges, present = find(self._edges, nodes * _SPAN + symbols)
        return torch.where(present, edges + 1, self.lost)


_SPAN = 2**31
"""An edge is known by ``parent * _SPAN + symbol``."""


def _edges_by_level(paths: Tensor) -> tuple[Tensor, int]:
    """The ascending edges of a trie of N x L paths (int64, -1 behind their ends), and the number of its nodes."""
    parents = torch.zeros(len(paths), dtype=torch.int64)
    edges, nodes = [], 1
    for symbols in paths.T:
        here = symbols >= 0
        level, number = (parents[here] * _SPAN + symbols[here]).unique(return_inverse=True)
        parents[here] = nodes + number
        edges.append(level)
        nodes += len(level)
    return torch.cat(edges), nodes


def spans(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """All whole numbers from first to last - 1 of R pairs, one pair after the other: row numbers and the numbers."""
    counts = last - first
    rows = torch.arange(len(first), device=first.device).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    return rows, torch.arange(len(rows), device=first.device) + (first - before)[rows]


def find(ascending: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Where values stand in an ascending tensor, and whether they do."""
    places = torch.searchsorted(ascending, values).clamp_(max=len(ascending) - 1)
    return places, ascending[places] == values
