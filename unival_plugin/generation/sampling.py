"""Random choice of the next token.

Legend: R hypotheses, C columns of the vocabulary that are scored, n draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .constraints import NEG_INF


def draw(scores: Tensor, count: int = 1, topk: int = -1, topp: float = -1.0) -> Tensor:
    """Columns drawn with the probabilities ``softmax(scores)``, independently and with replacement.

    The random numbers come from torch's global generator of the device (``--seed`` sets it).

    Args:
        scores: R x C fp32, logits or log-probabilities; ``-inf`` is never drawn.
        count: n, for each row.
        topk: only the k columns of the highest score (Fan et al. 2018); not positive: all.
        topp: only the fewest columns that together have at least this probability, which need not be reached by the
            others (Holtzman et al. 2020); not positive: all.

    Returns:
        R x n int64. A row without any possible column gets some column.
    """
    columns = None
    if 0 < topp < 1:
        scores = _nucleus(scores, topp)
    if topk > 0:
        # in ascending order, so that rounding of the scores hardly ever changes which random number a column gets
        columns = scores.topk(min(topk, scores.shape[1]), dim=1, sorted=False).indices.sort(dim=1).values
        scores = scores.gather(1, columns)
    # of exponential times with rates p the first one is over with probability p; unlike torch.multinomial this takes
    # rows without a sum, and logarithms do not underflow
    times = scores.new_empty(len(scores), count, scores.shape[1]).exponential_()
    times.clamp_(min=torch.finfo(times.dtype).tiny)
    drawn = (scores[:, None] - times.log_()).argmax(dim=2)
    return drawn if columns is None else columns.gather(1, drawn)


def _nucleus(scores: Tensor, topp: float) -> Tensor:
    """R x C scores, ``-inf`` outside the nucleus."""
    ordered, columns = scores.sort(dim=1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=1)
    before = probabilities.cumsum(dim=1) - probabilities
    return scores.masked_fill((before >= topp).scatter(1, columns, before >= topp), NEG_INF)
