"""Multi-head attention with an additive bias, on torch's fused kernels.

Legend: B batch, T queries, S keys, H heads, D width, d = D / H.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError

Kernel = Callable[[Tensor, Tensor, Tensor, "Tensor | None", float, float], Tensor]
XFORMERS_ALIGNMENT = 8
"""xformers reads rows of the bias that begin at multiples of this many elements."""


def fused_attention(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """``softmax(query @ keys^T * scale + bias) @ values`` by torch's fused kernels.

    Args:
        query: B x H x T x d; keys, values: B x H x S x d.
        bias: broadcastable to B x H x T x S, of the query's dtype; ``-inf`` forbids a pair.
        scale: factor of the products.
        dropout: probability of dropping an attention weight.

    Returns:
        B x H x T x d.
    """
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, dropout_p=dropout, scale=scale)


def plain_attention(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """As :func:`fused_attention` by separate products and an fp32 softmax: slow, but every step is visible."""
    scores = (query * scale) @ keys.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    weights = F.dropout(F.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype), dropout)
    return weights @ values


def xformers_attention(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """As :func:`fused_attention` by xformers' memory-efficient kernels.

    Raises:
        ConfigError: the package or its operators do not load.
    """
    if bias is not None:
        bias = _aligned(bias, (*query.shape[:3], keys.shape[2]))
    context = _load_xformers().memory_efficient_attention(
        query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_bias=bias, p=dropout, scale=scale
    )
    return context.transpose(1, 2)


def _aligned(bias: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``bias`` expanded to ``shape``, in memory whose rows begin where xformers wants them."""
    spare = -shape[-1] % XFORMERS_ALIGNMENT
    return F.pad(bias.expand(shape), (0, spare))[..., : shape[-1]]


@functools.cache
def _load_xformers() -> Any:
    hint = "use --attention-backend sdpa or install a build for this torch and GPU"
    try:
        from xformers import ops
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(f"--attention-backend xformers: the package does not load ({error}); {hint}") from error
    if not (torch.cuda.is_available() and ops.fmha.cutlass.FwOp.is_available()):
        raise ConfigError(f"--attention-backend xformers: its operators need a GPU and do not load here; {hint}")
    return ops


BACKENDS: dict[str, Kernel] = {"sdpa": fused_attention, "xformers": xformers_attention, "plain": plain_attention}


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention whose scores take an additive bias (relative positions, masks).

    Args:
        embed_dim: D, width of queries and output.
        num_heads: H.
        dropout: probability of dropping an attention weight while training.
        scale_factor: scores are multiplied by ``(d * scale_factor) ** -0.5``; 1 is the usual attention, UnIVAL uses 2
            because it adds the position scores to the content scores.
        scale_heads: multiply every head's output by a learned factor before the output projection
            (Shleifer et al. 2021, "NormFormer").
        qk_norm: layer norm on what queries, keys and values are projected from. One norm, ``q_norm``, serves all;
            ``k_norm`` only exists because the state dict of the original (UnIVAL) has it.
        backend: a name of :data:`BACKENDS`.

    Raises:
        ValueError: D is no multiple of H.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        scale_factor: float = 1.0,
        scale_heads: bool = False,
        qk_norm: bool = False,
        backend: str = "sdpa",
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embedding width {embed_dim} is no multiple of the number of attention heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.scaling = (self.head_dim * scale_factor) ** -0.5
        self.kernel = BACKENDS[backend]
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.c_attn: nn.Parameter | None = nn.Parameter(torch.ones(num_heads)) if scale_heads else None
        self.q_norm = nn.LayerNorm(embed_dim) if qk_norm else None
        self.k_norm = nn.LayerNorm(embed_dim) if qk_norm else None

    def _normed(self, x: Tensor) -> Tensor:
        return x if self.q_norm is None else self.q_norm(x)

    def split_heads(self, x: Tensor) -> Tensor:
        """B x T x D -> B x H x T x d."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of ``x`` (B x S x D), each B x H x S x d."""
        x = self._normed(x)
        return self.split_heads(self.k_proj(x)), self.split_heads(self.v_proj(x))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attends from ``x`` to given keys and values.

        Args:
            x: B x T x D, before the query projection.
            keys, values: B x H x S x d, see :meth:`keys_values`.
            bias: float, broadcastable to B x H x T x S, added to the scores; ``-inf`` forbids a pair.

        Returns:
            B x T x D.
        """
        query = self.split_heads(self.q_proj(self._normed(x)))
        if bias is not None and bias.dtype != query.dtype:
            bias = bias.to(query.dtype)
        context = self.kernel(query, keys, values, bias, self.scaling, self.dropout if self.training else 0.0)
        if self.c_attn is not None:
            context = context * self.c_attn.to(context.dtype)[:, None, None]
        return self.out_proj(context.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attention weights B x H x T x S in fp32 (no dropout), for inspection; arguments as in :meth:`forward`."""
        query = self.split_heads(self.q_proj(self._normed(x)))
        scores = (query * self.scaling) @ keys.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        return F.softmax(scores.float(), dim=-1)
