"""The UnIVAL encoder: text and pictures in, one sequence of features out.

Legend: B batch, S text length, P patches, N = P + S encoder length (patches first), D width, H heads, L layers.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...modules.positions import grid_ids
from .config import UnIVALConfig
from .embeddings import RelativePositions, padding_bias, position_scores
from .layers import EncoderLayer
from .trunks import build_trunk

ORIGINAL_STRIDE = 16
"""Pixels per patch that ``--interpolate-position`` assumes of pretraining, whatever the trunk's real stride."""


class UnIVALEncoder(RelativePositions):
    """Encoder for ``[patches | text]``.

    Args:
        config: sizes and switches.
        embed_tokens: V x D token embedding, shared with the decoder.
        pad: id of the padding symbol.
    """

    def __init__(self, config: UnIVALConfig, embed_tokens: nn.Embedding, pad: int) -> None:
        nn.Module.__init__(self)
        width, heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.config, self.pad, self.heads = config, pad, heads
        self.embed_scale = 1.0 if config.no_scale_embedding else width**0.5
        self.position_scaling = (width / heads * config.attn_scale_factor) ** -0.5
        self.embed_tokens = embed_tokens
        self.layernorm_embedding = nn.LayerNorm(width) if config.layernorm_embedding else nn.Identity()
        self.type_embedding = nn.Embedding(2, width) if config.add_type_embedding else None
        self.embed_images = build_trunk(
            config.image_encoder_name,
            config.resnet_type,
            config.resnet_drop_path_rate,
            config.sync_bn,
            config.freeze_resnet,
        )
        self.image_proj = nn.Linear(int(self.embed_images.num_features), width)
        self.patch_layernorm_embedding = nn.LayerNorm(width) if config.patch_layernorm_embedding else nn.Identity()
        self.embed_positions = nn.Embedding(config.max_source_positions + 2, width)
        self.embed_image_positions = nn.Embedding(config.image_bucket_size**2 + 1, width)
        self.pos_ln = nn.LayerNorm(width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.pos_q_linear = nn.Linear(width, width)
        self.pos_k_linear = nn.Linear(width, width)
        rates = torch.linspace(0, config.encoder_drop_path_rate, config.encoder_layers).tolist()
        self.layers = nn.ModuleList(EncoderLayer(config, rate) for rate in rates)
        self.layer_norm = nn.LayerNorm(width) if config.encoder_normalize_before else nn.Identity()
        self._build_relative_positions(config, config.encoder_layers, heads)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Optional[Tensor] = None,
        patch_images: Optional[Tensor] = None,
        patch_masks: Optional[Tensor] = None,
        patch_types: Optional[Tensor] = None,
        sample_patch_num: Optional[int] = None,
        return_all_hiddens: bool = False,
        **other_modalities: Any,
    ) -> dict[str, list[Tensor]]:
        """Encodes a batch.

        Args:
            src_tokens: B x S int64, right padded.
            src_lengths: ignored, the padding is read from ``src_tokens``.
            patch_images: B x 3 x h x w float, normalised pictures, or None for text only.
            patch_masks: B bool; the patches of a row with False are ignored.
            patch_types: B int64, 0 for pictures, the only modality of this version.
            sample_patch_num: ignored as in the original, which reads ``--sample-patch-num`` of the model.
            return_all_hiddens: also return the input and output of every layer.

        Returns:
            ``encoder_out`` [N x B x D], ``encoder_padding_mask`` [B x N, True = ignored], ``position_embeddings``
            [B x N x D, normalised], ``encoder_states`` (L + 1 times N x B x D or empty), and the empty lists
            ``encoder_embedding``, ``src_tokens``, ``src_lengths`` that fairseq's generators expect.

        Raises:
            ValueError: text or picture too large for the position tables, or a modality other than pictures.
        """
        if patch_types is not None and bool((patch_types != 0).any()):
            raise ValueError("this version encodes pictures and text only: patch_types must be 0")
        length = src_tokens.shape[1]
        text_positions = self._text_positions(length)
        x = self._embed_text(src_tokens, text_positions)
        padding = src_tokens.eq(self.pad)
        positions = self.pos_ln(text_positions)[None]
        patch_ids = None
        if patch_images is not None:
            patches, patch_ids, patch_positions = self._embed_patches(patch_images)
            x = torch.cat([patches, x], dim=1)
            hidden = torch.zeros(len(x), patches.shape[1], dtype=torch.bool, device=x.device)
            if patch_masks is not None:
                hidden = hidden | ~patch_masks.bool()[:, None]
            padding = torch.cat([hidden, padding], dim=1)
            patch_positions = self.image_pos_ln(patch_positions)
            positions = torch.cat([patch_positions, positions.expand(len(patch_positions), -1, -1)], dim=1)
        pad_bias = padding_bias(padding, x.dtype)
        if pad_bias is not None:
            x = x * (~padding)[:, :, None].to(x.dtype)
        states = self._run_layers(x, positions, patch_ids, length, pad_bias)
        return {
            "encoder_out": [self.layer_norm(states[-1]).transpose(0, 1)],
            "encoder_padding_mask": [padding],
            "encoder_embedding": [],
            "encoder_states": [state.transpose(0, 1) for state in states] if return_all_hiddens else [],
            "src_tokens": [],
            "src_lengths": [],
            "position_embeddings": [positions.expand(len(x), -1, -1)],
        }

    def _text_positions(self, length: int) -> Tensor:
        if length > self.embed_positions.num_embeddings:
            raise ValueError(
                f"a source of {length} tokens is longer than --max-source-positions {self.config.max_source_positions}"
            )
        return self.embed_positions.weight[:length]

    def _embed_text(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x = self.embed_scale * self.embed_tokens(tokens)
        if self.config.entangle_position_embedding:
            x = x + positions
        if self.type_embedding is not None:
            x = x + self.type_embedding.weight[0]
        return F.dropout(self.layernorm_embedding(x), self.config.dropout, self.training)

    def _embed_patches(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embedded patches B x P x D, their grid ids b x P and raw position embeddings b x P x D (b is 1 or B)."""
        dtype = self.image_proj.weight.dtype
        if images.device.type == "cpu":  # pooling is ten times faster in this order, batch norm four times
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.embed_images.forward_features(images.to(dtype))
        height, width = features.shape[-2:]
        features = features.flatten(2).transpose(1, 2)
        ids = grid_ids(height, width, self.config.image_bucket_size).to(features.device)[None]
        positions = self._patch_positions(ids, height, width)
        kept = self._sampled(features)
        if kept is not None:
            features = features.gather(1, kept[:, :, None].expand(-1, -1, features.shape[2]))
            ids, positions = ids[0][kept], positions[0][kept]
        x = self.embed_scale * self.image_proj(features)
        if self.config.entangle_position_embedding:
            x = x + positions
        if self.type_embedding is not None:
            x = x + self.type_embedding.weight[1]
        return F.dropout(self.patch_layernorm_embedding(x), self.config.dropout, self.training), ids, positions

    def _patch_positions(self, ids: Tensor, height: int, width: int) -> Tensor:
        side = self.config.orig_patch_image_size // ORIGINAL_STRIDE
        if not self.config.interpolate_position or height * width <= side * side:
            return self.embed_image_positions(ids)
        grid = self.embed_image_positions(grid_ids(side, side, self.config.image_bucket_size).to(ids.device))
        grid = grid.t().unflatten(1, (side, side))[None]
        return (
            F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        )

    def _sampled(self, features: Tensor) -> Optional[Tensor]:
        """Patch indices B x n to keep, drawn without replacement for each row; None keeps all."""
        wanted = self.config.sample_patch_num
        if wanted is None or wanted >= features.shape[1]:
            return None
        if not (self.training or self.config.sample_patches_in_eval):
            return None
        # torch's generator, not Python's: fairseq seeds it at every update, so that resuming repeats the same draws
        noise = torch.rand(features.shape[:2], device=features.device)
        return noise.argsort(dim=1)[:, :wanted]

    def _run_layers(
        self, x: Tensor, positions: Tensor, patch_ids: Optional[Tensor], length: int, pad_bias: Optional[Tensor]
    ) -> list[Tensor]:
        shared = position_scores(
            self.pos_q_linear, self.pos_k_linear, positions, positions, self.heads, self.position_scaling
        )
        if pad_bias is not None:
            shared = shared + pad_bias
        token_buckets = self.token_buckets(length)
        patch_buckets = None if patch_ids is None else self.patch_buckets(patch_ids)
        states = [x]
        for index, layer in enumerate(self.layers):
            bias = self._layer_bias(index, shared, token_buckets, patch_buckets)
            if self.config.checkpoint_activations and self.training:
                x = checkpoint(layer, x, bias, use_reentrant=False)
            else:
                x = layer(x, bias)
            states.append(x)
        return states

    def _layer_bias(self, index: int, shared: Tensor, token_buckets: Tensor, patch_buckets: Optional[Tensor]) -> Tensor:
        """The shared scores plus this layer's relative scores in the text and in the patch block."""
        text = self.token_relative_scores(index, token_buckets)
        if patch_buckets is None:
            return shared + text
        patches = self.patch_relative_scores(index, patch_buckets)
        count, length = patches.shape[-1], text.shape[-1]
        relative = F.pad(patches, (0, length, 0, length))
        # text block: added to the zero padding below and right of the patch block
        return shared + relative + F.pad(text, (count, 0, count, 0))

    def reorder_encoder_out(self, encoder_out: dict[str, list[Tensor]], new_order: Tensor) -> dict[str, list[Tensor]]:
        """Picks and repeats batch rows; ``new_order``: int64 row numbers."""
        batch_dim = {"encoder_out": 1, "encoder_states": 1}

        def pick(key: str, tensor: Tensor) -> Tensor:
            if key == "position_embeddings" and tensor.stride(0) == 0:  # keeps the one shared row shared
                return tensor[:1].expand(len(new_order), -1, -1)
            return tensor.index_select(batch_dim.get(key, 0), new_order)

        return {key: [pick(key, tensor) for tensor in tensors] for key, tensors in encoder_out.items()}

    def max_positions(self) -> int:
        """Longest source in tokens (pictures not counted)."""
        return self.config.max_source_positions
