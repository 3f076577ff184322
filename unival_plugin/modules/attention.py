"""Multi-head attention with an additive bias, on torch's fused kernels.

Legend: B batch, T queries, S keys, H heads, D width, d = D / H.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn, ones


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
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embedding width {embed_dim} is no multiple of the number of attention heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.scaling = (self.head_dim * scale_factor) ** -0.5
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.c_attn: nn.Parameter | None = nn.Parameter(ones(num_heads)) if scale_heads else None

    def split_heads(self, x: Tensor) -> Tensor:
        """B x T x D -> B x H x T x d."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of ``x`` (B x S x D), each B x H x S x d."""
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
        query = self.split_heads(self.q_proj(x))
        if bias is not None and bias.dtype != query.dtype:
            bias = bias.to(query.dtype)
        dropout = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=bias, dropout_p=dropout, scale=self.scaling
        )
        if self.c_attn is not None:
            context = context * self.c_attn.to(context.dtype)[:, None, None]
        return self.out_proj(context.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attention weights B x H x T x S in fp32 (no dropout), for inspection; arguments as in :meth:`forward`."""
        query = self.split_heads(self.q_proj(x))
        scores = (query * self.scaling) @ keys.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        return F.softmax(scores.float(), dim=-1)
