"""A network small enough to search with in milliseconds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Optional

import torch

from unival_plugin.generation.generator import Hypothesis, SequenceGenerator
from unival_plugin.generation.grammar import Grammar
from unival_plugin.unival.model.config import from_preset
from unival_plugin.unival.model.network import UnIVALNetwork

DICTIONARY = SimpleNamespace(bos=lambda: 0, pad=lambda: 1, eos=lambda: 2, unk=lambda: 3)


def tiny(seed: int = 0, vocabulary: int = 12) -> UnIVALNetwork:
    """Random weights, in evaluation mode."""
    torch.manual_seed(seed)
    sizes = {
        "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 2,
    }  # fmt: skip
    net = UnIVALNetwork(from_preset("unival_tiny", sizes), vocabulary).eval()
    for parameter in net.parameters():
        parameter.data.normal_(std=0.5)
    return net


def search(
    net: UnIVALNetwork,
    source: torch.Tensor,
    prefix: Optional[torch.Tensor] = None,
    trie: Optional[Grammar] = None,
    **options: Any,
) -> list[list[Hypothesis]]:
    """Hypotheses of a batch of texts."""
    sample = {"net_input": {"src_tokens": source}}
    return SequenceGenerator([net], DICTIONARY, **options).generate(None, sample, prefix, trie)
