"""What a hypothesis may continue with.

Legend: R hypotheses (rows), t tokens so far, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor

NEG_INF = float("-inf")


def block_repeated_ngrams(scores: Tensor, tokens: Tensor, size: int) -> None:
    """Forbids, in place, every token that would complete an n-gram that a row already has.

    Stock fairseq's own blocker compares with the padding behind the generated tokens and so blocks nothing.

    Args:
        scores: R x V float, next-token scores.
        tokens: R x t int64, tokens so far including the start symbol.
        size: n; 0 switches it off.
    """
    if size <= 0 or tokens.shape[1] < size:
        return
    windows = tokens.unfold(1, size, 1)
    suffix = tokens[:, tokens.shape[1] - size + 1 :]
    repeats = (windows[:, :, :-1] == suffix[:, None, :]).all(dim=2)
    rows, starts = repeats.nonzero(as_tuple=True)
    scores[rows, windows[rows, starts, -1]] = NEG_INF


def restrict_to_range(logits: Tensor, start: int, end: int) -> None:
    """Leaves, in place, only the ids 0..3 and start..end-1 of R x V scores possible (before the softmax)."""
    logits[:, 4:start] = NEG_INF
    logits[:, end:] = NEG_INF


def only(scores: Tensor, token: int) -> None:
    """Leaves, in place, only ``token`` possible."""
    kept = scores[:, token].clone()
    scores.fill_(NEG_INF)
    scores[:, token] = kept
