"""Transformer layers of the UnIVAL encoder and decoder.

Legend: B batch, T target length, N encoder length (patches and text), D width, H heads, d head width, p length of a
prefix.
Bias tensors are additive and broadcastable to B x H x queries x keys.
"""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...modules.attention import MultiheadAttention
from ...modules.regularisation import DropPath
from .cache import KeyValueCache
from .config import ACTIVATIONS, UnIVALConfig
from .tuning import build_adapter

KeysValues = tuple[Tensor, Tensor]


def _layer_norm(width: int, wanted: bool = True) -> Optional[nn.LayerNorm]:
    return nn.LayerNorm(width) if wanted else None


def _apply(norm: Optional[nn.Module], x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


class _Layer(nn.Module):
    """What encoder and decoder layers share: the feed-forward block and the way residuals are added."""

    adapter: Optional[nn.Module]

    def __init__(self, config: UnIVALConfig, ffn_dim: int, heads: int, pre_norm: bool, drop_path: float) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.pre_norm = pre_norm
        self.dropout = config.dropout
        self.activation_dropout = config.activation_dropout
        self.activation = ACTIVATIONS[config.activation_fn]
        self.self_attn = self._attention(config, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, width)
        self.ffn_layernorm = _layer_norm(ffn_dim, config.scale_fc)
        self.final_layer_norm = nn.LayerNorm(width)
        self.w_resid = nn.Parameter(torch.ones(width)) if config.scale_resids else None
        self.drop_path = DropPath(drop_path)

    @staticmethod
    def _attention(config: UnIVALConfig, heads: int) -> MultiheadAttention:
        return MultiheadAttention(
            config.encoder_embed_dim,
            heads,
            config.attention_dropout,
            config.attn_scale_factor,
            config.scale_heads,
            config.qk_norm,
            config.attention_backend,
        )

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def _before(self, norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x) if self.pre_norm else x

    def _after(self, norm: nn.Module, x: Tensor) -> Tensor:
        return x if self.pre_norm else norm(x)

    def _attend_self(
        self, norm: Optional[nn.Module], x: Tensor, kv: KeysValues, bias: Tensor, prompt: Optional[KeysValues]
    ) -> Tensor:
        """Self attention to given keys and values, with a prompt's in front of them."""
        keys, values = kv
        if prompt is not None:
            keys, values = torch.cat([prompt[0], keys], dim=2), torch.cat([prompt[1], values], dim=2)
            bias = F.pad(bias, (prompt[0].shape[2], 0))
        return _apply(norm, self.self_attn(x, keys, values, bias))

    def _feed_forward(self, x: Tensor, patches: int = 0) -> Tensor:
        hidden = self.activation(self.fc1(self._before(self.final_layer_norm, x)))
        hidden = F.dropout(hidden, self.activation_dropout, self.training)
        branch = self._drop(self.fc2(_apply(self.ffn_layernorm, hidden)))
        if self.adapter is not None:
            branch = self.adapter(branch, patches)
        residual = x if self.w_resid is None else x * self.w_resid
        return self._after(self.final_layer_norm, residual + self.drop_path(branch))


class EncoderLayer(_Layer):
    """Self attention and feed-forward block."""

    def __init__(self, config: UnIVALConfig, drop_path: float = 0.0) -> None:
        super().__init__(
            config,
            config.encoder_ffn_embed_dim,
            config.encoder_attention_heads,
            config.encoder_normalize_before,
            drop_path,
        )
        self.attn_ln = _layer_norm(config.encoder_embed_dim, config.scale_attn)
        self.adapter = build_adapter(config, encoder=True)

    def forward(self, x: Tensor, bias: Tensor, prompt: Optional[KeysValues] = None, patches: int = 0) -> Tensor:
        """One layer.

        Args:
            x: B x N x D.
            bias: position scores plus padding mask.
            prompt: keys and values that come before the sequence's own, each B x H x p x d.
            patches: how many of the positions are patches.

        Returns:
            B x N x D.
        """
        normed = self._before(self.self_attn_layer_norm, x)
        branch = self._attend_self(self.attn_ln, normed, self.self_attn.keys_values(normed), bias, prompt)
        x = self._after(self.self_attn_layer_norm, x + self.drop_path(self._drop(branch)))
        return self._feed_forward(x, patches)


class DecoderLayer(_Layer):
    """Self attention, attention to the encoder and feed-forward block.

    The encoder's batch may be smaller than the decoder's: with B encoder rows and B*k decoder rows every k consecutive
    rows (the hypotheses of a sentence) attend to one shared copy of keys and values.
    """

    def __init__(self, config: UnIVALConfig, drop_path: float = 0.0) -> None:
        assert config.decoder_ffn_embed_dim is not None
        super().__init__(
            config,
            config.decoder_ffn_embed_dim,
            config.decoder_attention_heads,
            config.decoder_normalize_before,
            drop_path,
        )
        width = config.encoder_embed_dim
        self.adapter = build_adapter(config, encoder=False)
        self.self_attn_ln = _layer_norm(width, config.scale_attn)
        self.cross_attn_ln = _layer_norm(width, config.scale_attn)
        self.encoder_attn = self._attention(config, config.decoder_attention_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        cross: KeysValues,
        self_bias: Tensor,
        cross_bias: Tensor,
        past: Optional[KeyValueCache] = None,
        need_weights: bool = False,
        prompt: Optional[KeysValues] = None,
    ) -> tuple[Tensor, Optional[Tensor]]:
        """One layer.

        Args:
            x: R x T x D decoder rows.
            cross: keys and values of the encoder output, each B x H x N x d with R a multiple of B.
            self_bias: broadcastable to R x H x T x (past + T), causal and padding mask included.
            cross_bias: broadcastable to B x H x (T or 1) x N, padding mask included.
            past: keys and values of earlier positions, each R x H x past x d; those of ``x`` are appended.
            need_weights: also return the attention to the encoder.
            prompt: keys and values that come before all positions, each R x H x p x d.

        Returns:
            R x T x D, and R x T x N weights averaged over heads or None.
        """
        normed = self._before(self.self_attn_layer_norm, x)
        keys, values = self.self_attn.keys_values(normed)
        if past is not None:
            keys, values = past.extend(keys, values)
        branch = self._attend_self(self.self_attn_ln, normed, (keys, values), self_bias, prompt)
        x = self._after(self.self_attn_layer_norm, x + self.drop_path(self._drop(branch)))

        normed = self._before(self.encoder_attn_layer_norm, x)
        rows, length, width = normed.shape
        hypotheses = rows // cross[0].shape[0]
        shared = normed.reshape(rows // hypotheses, hypotheses * length, width)
        if hypotheses > 1 and cross_bias.shape[2] > 1:
            cross_bias = cross_bias.repeat(1, 1, hypotheses, 1)
        attended = self.encoder_attn(shared, cross[0], cross[1], cross_bias)
        branch = _apply(self.cross_attn_ln, attended.view(rows, length, width))
        weights = None
        if need_weights:
            weights = self.encoder_attn.weights(shared, cross[0], cross_bias).mean(dim=1).view(rows, length, -1)
        x = self._after(self.encoder_attn_layer_norm, x + self.drop_path(self._drop(branch)))
        return self._feed_forward(x), weights
