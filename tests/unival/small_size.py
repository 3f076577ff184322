"""A network small enough for many tests."""

from __future__ import annotations

import torch

from unival_plugin.unival.model.config import from_preset
from unival_plugin.unival.model.network import UnIVALNetwork


def tiny(symbols: int = 50, **overrides: object) -> UnIVALNetwork:
    """Random weights, 50 symbols, two layers a side; ``overrides`` are fields of the configuration."""
    sizes = {
        "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 48, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_layers": 2, "decoder_layers": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    return UnIVALNetwork(from_preset("unival_tiny", {**sizes, **overrides}), symbols)
