"""Keys and values of positions that were decoded before.

Legend: R decoder rows, H heads, t positions so far, d head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValueCache:
    """Keys and values of one layer, in memory that has room for more positions.

    Appending with ``torch.cat`` would copy all positions at every step; here they are copied when the room is used up,
    which gets a quarter of the length each time. The positions that are kept are never written again, so tensors that
    :meth:`extend` gave stay as they are.

    Attributes:
        length: t.
    """

    def __init__(self) -> None:
        self.length = 0
        self._memory: tuple[Tensor, ...] = ()

    @property
    def rows(self) -> int:
        """R; 0 before the first position."""
        return len(self._memory[0]) if self._memory else 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Appends T' positions, in place.

        Args:
            keys, values: R x H x T' x d.

        Returns:
            The keys and values of all t + T' positions; views, not contiguous.
        """
        total = self.length + keys.shape[2]
        if not self._memory or total > self._memory[0].shape[2]:
            old = self._memory or (keys[:, :, :0], values[:, :, :0])
            self._memory = tuple(_with_room(each, self.length, total) for each in old)
        for memory, new in zip(self._memory, (keys, values), strict=True):
            memory[:, :, self.length : total] = new
        self.length = total
        return self._memory[0][:, :, :total], self._memory[1][:, :, :total]

    def reordered(self, order: Tensor) -> KeyValueCache:
        """A cache of its own, whose rows continue the rows ``order`` (int64) of this one.

        Extending one of the two leaves the other as it is, also where ``order`` moves nothing.
        """
        moved = KeyValueCache()
        moved.length = self.length
        moved._memory = tuple(_with_room(each, self.length, self.length + 1, order) for each in self._memory)
        return moved


def _with_room(old: Tensor, length: int, total: int, order: Tensor | None = None) -> Tensor:
    """Memory for ``total`` positions and some more, with the first ``length`` of the rows (``order``) of ``old``."""
    rows, heads, _, width = old.shape
    new = old.new_empty(rows if order is None else len(order), heads, total + total // 4, width)
    if order is None:
        new[:, :, :length] = old[:, :, :length]
    else:
        torch.index_select(old[:, :, :length], 0, order, out=new[:, :, :length])
    return new
