"""What a search may give: grammars that all hypotheses follow at once.

Legend: R hypotheses, E edges of a grammar (its symbols; an answer trie has one for each of its branches).
"""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from torch import Tensor

from ..data.boxes import COORDINATES
from ..errors import ConfigError
from ..modules.trie import SPECIAL, spans


class Grammar(Protocol):
    """A set of token sequences, as :class:`~unival_plugin.modules.trie.AnswerTrie` and :class:`BoxGrammar`.

    Hypotheses are at nodes (int64); node 0 is the start. From every node at least one edge leads on.
    """

    @property
    def tokens(self) -> Tensor:
        """E int64, the symbol of each edge."""

    def to(self, device: torch.device) -> Grammar:
        """A copy on ``device``."""

    def edges_from(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The edges that leave each of R nodes: row numbers and edge numbers, both of one length, int64."""

    def follow(self, nodes: Tensor, symbols: Tensor) -> Tensor:
        """The nodes that R symbols lead to from R nodes, int64."""


class BoxGrammar:
    """Boxes ``x0 y0 x1 y1``: exactly four bins, then the end symbol.

    A node is ``step + STEPS * (x0 + bins * y0)``; coordinates count only where their order matters. After a symbol that
    does not belong there only the end symbol is possible.

    Args:
        first_bin: id of ``<bin_0>``.
        num_bins: bins of a coordinate; their ids follow each other.
        eos: id of the end symbol.
        ordered: only boxes with x0 <= x1 and y0 <= y1.

    Raises:
        ConfigError: no bins, or bins among the special symbols.
    """

    def __init__(self, first_bin: int, num_bins: int, eos: int = 2, ordered: bool = False) -> None:
        if num_bins < 1 or first_bin < SPECIAL:
            raise ConfigError(f"{num_bins} bins from symbol {first_bin}: boxes need bins behind the special symbols")
        self.first_bin, self.num_bins, self.eos, self.ordered = first_bin, num_bins, eos, ordered
        self.tokens = torch.cat([first_bin + torch.arange(num_bins), torch.tensor([eos])])

    def to(self, device: torch.device) -> BoxGrammar:
        """A copy on ``device``."""
        moved = copy.copy(self)
        moved.tokens = self.tokens.to(device)
        return moved

    def edges_from(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Grammar`."""
        lowest = self._lowest(nodes)
        ends = nodes % _STEPS >= COORDINATES
        return spans(lowest.masked_fill(ends, self.num_bins), (self.num_bins + ends.long()).expand_as(lowest))

    def follow(self, nodes: Tensor, symbols: Tensor) -> Tensor:
        """See :class:`Grammar`."""
        step, corner = nodes % _STEPS, nodes // _STEPS
        bins = symbols - self.first_bin
        fits = (step < COORDINATES) & (bins >= self._lowest(nodes)) & (bins < self.num_bins)
        if self.ordered:
            corner = corner + torch.where(step == 0, bins, 0) + torch.where(step == 1, bins * self.num_bins, 0)
        return torch.where(fits, step + 1 + corner * _STEPS, _STEPS - 1)

    def _lowest(self, nodes: Tensor) -> Tensor:
        """The smallest bin that may follow: x0 for x1 and y0 for y1, else 0."""
        step, corner = nodes % _STEPS, nodes // _STEPS
        x0, y0 = corner % self.num_bins, corner // self.num_bins
        return torch.where(step == 2, x0, 0) + torch.where(step == 3, y0, 0)


_STEPS = COORDINATES + 2  # 0..3 coordinates to come, 4 the end symbol, 5 behind it or lost
