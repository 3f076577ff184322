"""Training a part of the network: adapters, prompts, LoRA, and what ``--freeze-*`` and ``--bitfit`` leave trainable.

Legend: B batch, N sequence length, D width, H heads, d = D / H, L layers, p length of a prefix.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...modules.logmel import FILTERS
from ...modules.lora import LoRALinear, add_lora, matching
from .config import UnIVALConfig

PROMPT_DROPOUT = 0.2
NOT_FOR_LORA = ("embed_images", "embed_videos", "embed_audios", "adapter", "prompt_encoder", "output_projection")
"""Modules whose linear layers LoRA leaves alone: trunks, what is small already, and the output projection, of which
generation reads single rows."""


class Adapter(nn.Module):
    """``x + up(relu(down(x)))`` (Houlsby et al. 2019, "Parameter-efficient transfer learning for NLP")."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.down_proj = nn.Linear(width, inner)
        self.up_proj = nn.Linear(inner, width)

    def forward(self, x: Tensor, patches: int = 0) -> Tensor:
        """``x``: B x N x D; ``patches`` is ignored."""
        return x + self.up_proj(F.relu(self.down_proj(x)))


class PatchTextAdapter(nn.Module):
    """One adapter for patches and one for text; without patches both apply and are added, as in the original."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.v_adapter = Adapter(width, inner)
        self.l_adapter = Adapter(width, inner)

    def forward(self, x: Tensor, patches: int = 0) -> Tensor:
        """``x``: B x N x D, of which the first ``patches`` positions are patches."""
        if patches == 0:
            return self.v_adapter(x) + self.l_adapter(x)
        return torch.cat([self.v_adapter(x[:, :patches]), self.l_adapter(x[:, patches:])], dim=1)


class PrefixPrompt(nn.Module):
    """Learned keys and values in front of every layer's own (Li and Liang 2021, "Prefix-tuning").

    Args:
        layers, heads, width: L, H, D.
        length: p.
        projection: make them by a two-layer network from p x D embeddings.
        inner: width of that network.
    """

    def __init__(self, layers: int, heads: int, width: int, length: int, projection: bool, inner: int) -> None:
        super().__init__()
        self.layers, self.heads = layers, heads
        self.embedding = nn.Embedding(length, width if projection else 2 * layers * width)
        self.trans = (
            nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, 2 * layers * width))
            if projection
            else None
        )

    def forward(self, rows: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer, each ``rows`` x H x p x d; dropout differs from row to row."""
        prefix = self.embedding.weight if self.trans is None else self.trans(self.embedding.weight)
        prefix = prefix.unflatten(1, (2 * self.layers, self.heads, -1)).expand(rows, -1, -1, -1, -1)
        parts = F.dropout(prefix, PROMPT_DROPOUT, self.training).permute(2, 0, 3, 1, 4)
        return [(parts[2 * layer], parts[2 * layer + 1]) for layer in range(self.layers)]


def build_adapter(config: UnIVALConfig, encoder: bool) -> nn.Module | None:
    """The adapter of one layer as ``--adapter`` and ``--adapter-type`` ask; decoders know only the plain one."""
    if not config.adapter:
        return None
    kind = PatchTextAdapter if encoder and config.adapter_type == "VL" else Adapter
    return kind(config.encoder_embed_dim, config.adapter_dim)


def build_prompt(config: UnIVALConfig, side: str) -> PrefixPrompt | None:
    """The prompt of ``side`` (``encoder`` or ``decoder``) as ``--{side}-prompt…`` ask."""
    if not getattr(config, f"{side}_prompt"):
        return None
    width = config.encoder_embed_dim
    return PrefixPrompt(
        getattr(config, f"{side}_layers"),
        getattr(config, f"{side}_attention_heads"),
        width,
        getattr(config, f"{side}_prompt_length"),
        getattr(config, f"{side}_prompt_projection"),
        getattr(config, f"{side}_prompt_dim") or 2 * width,
    )


def add_updates(network: nn.Module, config: UnIVALConfig) -> None:
    """Gives the linear layers that ``--lora-targets`` names an update of low rank, if ``--lora-rank`` asks for one.

    Raises:
        ValueError: ``--lora-targets`` fits no layer.
    """
    if not config.lora_rank:
        return
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not set(NOT_FOR_LORA) & set(name.split("."))
    ]
    chosen = _named("--lora-targets", config.lora_targets, names)
    add_lora(network, chosen, config.lora_rank, config.lora_alpha, config.lora_dropout)


def _named(flag: str, pattern: str, names: list[str]) -> list[str]:
    try:
        return matching(pattern, names)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from error


def freeze(network: Any) -> None:
    """Sets ``requires_grad`` as the flags ask.

    The token embedding is one tensor for encoder, decoder and output projection, so freezing one name freezes all. The
    filters of the sound trunk are never trained.

    Args:
        network: a :class:`~.network.UnIVALNetwork`.

    Raises:
        ValueError: ``--lora-train`` or ``--bitfit-train`` fits no parameter.
    """
    config, encoder, decoder = network.config, network.encoder, network.decoder
    small = config.adapter or config.encoder_prompt or config.decoder_prompt or config.lora_rank > 0
    if config.freeze_encoder:
        encoder.requires_grad_(False)
        for part in encoder.patch_parts():
            part.requires_grad_(True)
    if config.freeze_decoder:
        decoder.requires_grad_(False)
    if small and not config.unfreeze:
        encoder.requires_grad_(False)
        decoder.requires_grad_(False)
        for part in _small_parts(network):
            part.requires_grad_(True)
    for module in network.modules():
        if isinstance(module, LoRALinear):
            module.lora_A.requires_grad_(True)
            module.lora_B.requires_grad_(True)
    if config.freeze_encoder_embedding or small:
        encoder.embed_tokens.requires_grad_(False)
    if config.freeze_decoder_embedding or small:
        decoder.embed_tokens.requires_grad_(False)
    for modality in encoder.modalities:
        if getattr(config, f"freeze_{modality}_encoder"):
            encoder.trunk(modality).requires_grad_(False)
    _freeze_by_name(network)


def _freeze_by_name(network: Any) -> None:
    config = network.config
    for name, parameter in network.named_parameters():
        if config.freeze_batchnorm and name.startswith("encoder.") and "bn" in name:
            parameter.requires_grad_(False)
        if config.bitfit:
            parameter.requires_grad_("bias" in name and ("layer_norm" in name or "fc" in name))
    for flag, pattern in (("--lora-train", config.lora_train), ("--bitfit-train", config.bitfit_train)):
        if pattern:
            parameters = dict(network.named_parameters(remove_duplicate=False))
            for name in _named(flag, pattern, list(parameters)):
                parameters[name].requires_grad_(True)
    for name, parameter in network.named_parameters():
        if any(part in name for part in FILTERS):
            parameter.requires_grad_(False)


def _small_parts(network: Any) -> list[nn.Module]:
    parts = [network.encoder.encoder_prompt_encoder, network.decoder.decoder_prompt_encoder]
    parts += [layer.adapter for side in (network.encoder, network.decoder) for layer in side.layers]
    return [part for part in parts if part is not None]
