"""Stochastic depth for sequences."""

from __future__ import annotations

from torch import Tensor, nn


def drop_path_rates(rate: float, layers: int) -> list[float]:
    """Rates that grow linearly from 0 in the first layer to ``rate`` in the last."""
    return [rate * layer / max(layers - 1, 1) for layer in range(layers)]


class DropPath(nn.Module):
    """Drops a residual branch for whole samples (Huang et al. 2016, "Deep networks with stochastic depth").

    Args:
        rate: probability in ``[0, 1)`` that a sample's branch is dropped while training. Kept branches are divided
            by ``1 - rate``, so the expectation does not change.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``x``: B x ... (sample dimension first); returns the same shape."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"
