"""Token losses of the two fine-tuning criterions, in plain torch.

Sources: UnIVAL, ``criterions/label_smoothed_cross_entropy.py`` and ``criterions/label_smoothed_encouraging_loss.py``;
the encouraging term is Zhao et al., "Well-classified Examples are Underestimated in Classification with DNNs" (2022).

Nothing here keeps a table of log-probabilities: with 59,457 symbols one (tokens, symbols) table is the largest tensor
of a training step, so everything a loss needs from a row is reduced in one pass and its gradient written in one buffer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...errors import ConfigError

NUM_SPECIALS = 4  # <s>, <pad>, </s>, <unk>: a constraint range never forbids them
CLAMP = 1e-5  # floor of 1 - p below the logarithm of the encouraging term


@dataclass(frozen=True)
class LossOptions:
    """What the flags of the criterions decide; see their help texts. ``log_end`` None: no encouraging term.

    ``mixed_rdrop`` repeats what the reference's encouraging criterion does with R-Drop from update 1 on: it sorts all
    tokens by descending loss, so that the divergence compares unrelated tokens; and after dropping the worst tokens
    its bonus looks up the target of another token (target number ``order[i]`` before dropping for token i).
    """

    label_smoothing: float = 0.0
    ignore_prefix_size: int = 0
    ignore_eos: bool = False
    drop_worst_ratio: float = 0.0
    drop_worst_after: int = 0
    drop_best_ratio: float = 0.0
    drop_best_after: int = 0
    use_rdrop: bool = False
    reg_alpha: float = 1.0
    mixed_rdrop: bool = False
    log_end: float | None = None
    constraint_range: tuple[int, int] | None = None
    report_accuracy: bool = False

    def __post_init__(self) -> None:
        for name in ("label_smoothing", "drop_worst_ratio", "drop_best_ratio"):
            if not 0.0 <= getattr(self, name) < 1.0:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} {getattr(self, name)}: must be at least 0 and below 1")
        if self.log_end is not None and not 0.0 < self.log_end <= 1.0:
            raise ConfigError(f"--log-end {self.log_end}: must be above 0 and at most 1 (1 = plain logarithm)")


class BatchLoss(NamedTuple):
    """Sums over the tokens that take part in the loss. ``loss``, ``nll``: scalars, float32, nats."""

    loss: Tensor
    nll: Tensor
    ntokens: int
    n_correct: Tensor | None
    total: int


class _Tokens(NamedTuple):
    """The N target positions of a batch. ``allowed`` (N, V) bool or None; ``target_ok`` (N,) bool or None = all."""

    logits: Tensor
    target: Tensor
    allowed: Tensor | None
    conf: Tensor | None
    target_ok: Tensor | None

    def take(self, index: Tensor) -> _Tokens:
        return _Tokens(*(None if part is None else part[index] for part in self))  # type: ignore[arg-type]

    def labelled_as(self, other: _Tokens) -> _Tokens:
        return self._replace(target=other.target, target_ok=other.target_ok)


def parse_constraint_range(text: str | None) -> tuple[int, int] | None:
    """``"start,end"`` -> (start, end), the half-open range of dictionary ids a target may have. Raises ConfigError."""
    if not text:
        return None
    try:
        start, end = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--constraint-range {text!r}: give two ids, start,end") from None
    if start < NUM_SPECIALS or end <= start:
        raise ConfigError(f"--constraint-range {text!r}: needs {NUM_SPECIALS} <= start < end")
    return start, end


def bonus(prob: Tensor, log_end: float) -> Tensor:
    """Encouraging term log(1 - p), continued above ``log_end`` by its tangent there; <= 0, any shape."""
    if log_end == 1:
        return torch.log((1 - prob).clamp(min=CLAMP))
    return torch.log1p(-prob.clamp(max=log_end)) - F.relu(prob - log_end) / (1 - log_end)


def _bonus_sum(prob: Tensor, log_end: float) -> Tensor:
    """``bonus(prob, log_end).sum(-1)`` without a second table; ``prob`` is overwritten."""
    if log_end == 1:
        return prob.neg_().add_(1).clamp_(min=CLAMP).log_().sum(-1)
    above = prob.sum(-1)
    above -= prob.clamp_(max=log_end).sum(-1)
    return prob.neg_().log1p_().sum(-1) - above / (1 - log_end)


def _bonus_slope(prob: Tensor, log_end: float) -> Tensor:
    """Derivative of ``bonus`` times ``prob``, that is, by log p; a new table."""
    if log_end == 1:
        return prob.neg().add_(1).reciprocal_().mul_(prob).neg_().masked_fill_(prob > 1 - CLAMP, 0)
    return prob.clamp(max=log_end).sub_(1).reciprocal_().mul_(prob)


def _wide(logits: Tensor) -> Tensor:
    """Half precision -> float32; float32 and float64 stay (no copy)."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


class _RowReductions(torch.autograd.Function):
    """Per row of ``logits`` (N, V): log p[target], sum of log p over the allowed ids, sum of ``bonus`` over them.

    Written by hand because the graph that autograd would record holds three to eight (N, V) tables; this one holds
    the logits (in their own dtype) and makes one table for the gradient. ``conf`` (N,) is the exponent put on the
    probabilities before the bonus; it is *not* applied to the two log-probability outputs.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        allowed: Tensor | None,
        conf: Tensor | None,
        need_sum: bool,
        log_end: float | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        wide = _wide(logits)
        open_ = wide if allowed is None else wide.masked_fill(~allowed, -math.inf)
        lse = open_.logsumexp(-1)
        picked = open_.gather(-1, target[:, None]).squeeze(-1) - lse
        total = extra = None
        if need_sum:
            count = wide.size(-1) if allowed is None else allowed.sum(-1)
            total = (wide if allowed is None else wide.masked_fill(~allowed, 0)).sum(-1) - count * lse
        if log_end is not None:
            extra = _bonus_sum(_powered(open_, lse, conf), log_end)
        ctx.save_for_backward(logits, target, allowed, conf, lse)
        ctx.log_end = log_end
        ctx.set_materialize_grads(False)
        return picked, total, extra

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_picked: Tensor | None, grad_total: Tensor | None, grad_extra: Tensor | None
    ) -> tuple[Tensor | None, None, None, None, None, None]:
        logits, target, allowed, conf, lse = ctx.saved_tensors
        wide = _wide(logits)
        open_ = wide if allowed is None else wide.masked_fill(~allowed, -math.inf)
        softmax = (open_ - lse[:, None]).exp_()
        pull = torch.zeros_like(lse)  # what each row's probabilities are pulled down by
        slope = None
        if grad_extra is not None:
            prob = softmax if conf is None else _powered(open_, lse, conf)
            slope = _bonus_slope(prob, ctx.log_end).mul_(_column(grad_extra, conf))
            pull += slope.sum(-1)
        if grad_picked is not None:
            pull += grad_picked
        if grad_total is not None:
            pull += grad_total * (logits.size(-1) if allowed is None else allowed.sum(-1))
        grad = softmax.mul_(-pull[:, None])
        if slope is not None:
            grad += slope
        if grad_total is not None:
            grad += grad_total[:, None] if allowed is None else grad_total[:, None] * allowed
        if grad_picked is not None:
            grad.scatter_add_(-1, target[:, None], grad_picked[:, None])
        return grad.to(logits.dtype), None, None, None, None, None


def _powered(open_logits: Tensor, lse: Tensor, conf: Tensor | None) -> Tensor:
    """softmax ** conf per row, float32."""
    lprobs = open_logits - lse[:, None]
    return lprobs.exp_() if conf is None else lprobs.mul_(conf[:, None]).exp_()


def _column(grad: Tensor, conf: Tensor | None) -> Tensor:
    return (grad if conf is None else grad * conf)[:, None]


def _gather_tokens(
    logits: Tensor, target: Tensor, masks: Tensor | None, conf: Tensor | None, pad: int, eos: int, options: LossOptions
) -> _Tokens:
    """Drops the prefix, pads and (optionally) end symbols, then the ids outside the constraint range."""
    skip = options.ignore_prefix_size
    logits, target = logits[:, skip:], target[:, skip:]
    keep = target != pad
    if options.ignore_eos:
        keep &= target != eos
    rows = keep.flatten().nonzero().squeeze(1)
    vocabulary = logits.size(-1)
    flat = logits.reshape(-1, vocabulary)
    if rows.numel() < flat.size(0):
        flat = flat.index_select(0, rows)
    ids = target.flatten()[rows]
    allowed = None if masks is None else masks[:, skip:].reshape(-1, vocabulary)[rows]
    per_row = None if conf is None else conf.to(flat.device).float()[rows // target.size(1)]
    tokens = _Tokens(flat, ids, allowed, per_row, None)
    return tokens if options.constraint_range is None else _cut_to_range(tokens, *options.constraint_range)


def _cut_to_range(tokens: _Tokens, start: int, end: int) -> _Tokens:
    """Forbidden columns are cut away instead of filled with -inf: the same loss from a smaller table."""
    end = min(end, tokens.logits.size(-1))

    def cut(table: Tensor) -> Tensor:
        return torch.cat([table[:, :NUM_SPECIALS], table[:, start:end]], dim=1)

    ids = tokens.target
    in_range = (ids >= start) & (ids < end)
    shifted = torch.where(in_range, ids - start + NUM_SPECIALS, ids.clamp(max=NUM_SPECIALS - 1))
    allowed = None if tokens.allowed is None else cut(tokens.allowed)
    return tokens._replace(
        logits=cut(tokens.logits), target=shifted, allowed=allowed, target_ok=in_range | (ids < NUM_SPECIALS)
    )


def _smooth(nll: Tensor, total: Tensor | None, allowed: Tensor | None, columns: int, eps: float) -> Tensor:
    """(1 - eps - eps_i) * nll + eps_i * sum over allowed ids of -log p, with eps_i = eps / (allowed ids - 1)."""
    if total is None:
        return nll
    if allowed is None:
        eps_i = eps / max(columns - 1, 1)
        return (1.0 - eps - eps_i) * nll - eps_i * total
    count = allowed.sum(-1)
    # A single allowed id has log p = 0, so its loss is 0 for every eps_i; 0 avoids 1e5-fold rounding noise.
    share = torch.where(count > 1, eps / (count - 1 + 1e-6), 0.0)
    return (1.0 - eps - share) * nll - share * total


def _keep(loss: Tensor, ratio: float, halves: int, largest: bool) -> Tensor:
    """Indices of int(n * (1 - ratio)) smallest or largest losses; of two halves the first one decides for both."""
    size = loss.numel() // halves
    index = loss[:size].topk(int(size * (1 - ratio)), largest=largest).indices
    return index if halves == 1 else torch.cat([index, index + size])


class _Survivors(NamedTuple):
    """Tokens left after dropping. ``rows`` None: all in their order. ``labels``: see ``LossOptions.mixed_rdrop``."""

    rows: Tensor | None
    labels: Tensor | None = None


def _survivors(loss: Tensor, options: LossOptions, update_num: int) -> _Survivors:
    loss = loss.detach()
    halves = 2 if options.use_rdrop else 1
    index: Tensor | None = None
    if options.drop_worst_ratio > 0 and update_num > options.drop_worst_after:
        index = _keep(loss, options.drop_worst_ratio, halves, largest=False)
        loss = loss[index]
    if options.drop_best_ratio > 0 and update_num > options.drop_best_after:
        best = _keep(loss, options.drop_best_ratio, halves, largest=True)
        return _Survivors(best if index is None else index[best])
    if options.use_rdrop and options.mixed_rdrop and update_num > 0:
        order = _keep(loss, 0.0, halves=1, largest=True)
        return _Survivors(order) if index is None else _Survivors(index[order], labels=order)
    return _Survivors(index)


def symmetric_kl(logits: Tensor, allowed: Tensor | None, conf: Tensor | None) -> Tensor:
    """0.5 * (KL(p||q) + KL(q||p)), summed; p and q are the first and the second half of the rows (R-Drop).

    Only ids allowed in both rows count: elsewhere the difference of two -inf would be nan.
    """
    wide = _wide(logits)
    lprobs = F.log_softmax(wide if allowed is None else wide.masked_fill(~allowed, -math.inf), dim=-1)
    if conf is not None:
        lprobs = lprobs * conf[:, None]
    half = lprobs.size(0) // 2
    first, second = lprobs[:half], lprobs[half:]
    if allowed is not None:
        closed = ~(allowed[:half] & allowed[half:])
        first, second = first.masked_fill(closed, 0.0), second.masked_fill(closed, 0.0)
    return 0.5 * ((first.exp() - second.exp()) * (first - second)).sum()


def adjusted_loss(
    logits: Tensor,
    target: Tensor,
    options: LossOptions,
    pad: int,
    eos: int,
    constraint_masks: Tensor | None = None,
    conf: Tensor | None = None,
    update_num: int = 0,
) -> BatchLoss:
    """Label-smoothed (and, with ``options.log_end``, encouraging) loss of a batch.

    logits (B, T, V) of any floating dtype, computed in float32; target (B, T) int64; constraint_masks (B, T, V) bool,
    True = allowed; conf (B,) multiplies the log-probabilities of a sample. With R-Drop the second half of the batch
    repeats the first. A target outside the allowed ids gives an infinite loss. No token at all gives zero.
    """
    tokens = _gather_tokens(logits, target, constraint_masks, conf, pad, eos, options)
    picked, total, extra = _reduce_rows(tokens, options)
    nll = -picked
    base = _smooth(nll, total, tokens.allowed, tokens.logits.size(-1), options.label_smoothing)
    n_correct = _count_correct(tokens) if options.report_accuracy else None
    index, labels = _survivors(base, options, update_num)
    kept = tokens
    if index is not None:
        base, nll, picked, extra = base[index], nll[index], picked[index], None if extra is None else extra[index]
        kept = tokens.take(index) if options.use_rdrop else tokens
    loss = base.sum()
    if options.log_end is not None:
        if labels is not None:
            picked, _, _ = _reduce_rows(kept.labelled_as(tokens.take(labels)), LossOptions())
        loss = loss + _encouragement(picked, extra, logits.size(-1), options).sum()
    if options.use_rdrop:
        loss = loss + options.reg_alpha * symmetric_kl(kept.logits, kept.allowed, kept.conf)
    return BatchLoss(loss, nll.sum(), base.numel(), n_correct, tokens.target.numel())


def greedy_loss(
    logits: Tensor,
    target: Tensor,
    options: LossOptions,
    pad: int,
    eos: int,
    weights: Tensor,
    constraint_masks: Tensor | None = None,
) -> Tensor:
    """Minus the largest weighted log-probability of any symbol at every target position, summed; fp32.

    Arguments as in :func:`adjusted_loss`; weights (B,). A negative weight chooses the least likely symbol (UnIVAL,
    ``criterions/label_smoothed_cross_entropy_scst.py``).
    """
    tokens = _gather_tokens(logits, target, constraint_masks, weights, pad, eos, options)
    assert tokens.conf is not None
    wide = _wide(tokens.logits)
    highest = wide if tokens.allowed is None else wide.masked_fill(~tokens.allowed, -math.inf)
    lowest = wide if tokens.allowed is None else wide.masked_fill(~tokens.allowed, math.inf)
    extreme = torch.where(tokens.conf < 0, lowest.amin(dim=-1), highest.amax(dim=-1))
    return -(tokens.conf * (extreme - highest.logsumexp(dim=-1))).sum()


def _reduce_rows(tokens: _Tokens, options: LossOptions) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(N,) each: log p ** conf of the target, its sum over the allowed ids, the bonus summed over them; float32."""
    smoothing = options.label_smoothing > 0
    picked, total, extra = _RowReductions.apply(
        tokens.logits, tokens.target, tokens.allowed, tokens.conf, smoothing, options.log_end if smoothing else None
    )
    if tokens.conf is not None:
        picked, total = picked * tokens.conf, None if total is None else total * tokens.conf
    if tokens.target_ok is not None:
        picked = picked.masked_fill(~tokens.target_ok, -math.inf)
    return picked, total, extra


def _encouragement(picked: Tensor, extra: Tensor | None, vocabulary: int, options: LossOptions) -> Tensor:
    """(1 - eps) * bonus of the target + eps / V * bonus of all ids; V is the whole vocabulary, masks or not."""
    assert options.log_end is not None
    term = (1.0 - options.label_smoothing) * bonus(picked.exp(), options.log_end)
    return term if extra is None else term + options.label_smoothing / vocabulary * extra


@torch.no_grad()
def _count_correct(tokens: _Tokens) -> Tensor:
    logits = tokens.logits if tokens.allowed is None else tokens.logits.masked_fill(~tokens.allowed, -math.inf)
    correct = logits.argmax(-1) == tokens.target
    return (correct if tokens.target_ok is None else correct & tokens.target_ok).sum()
