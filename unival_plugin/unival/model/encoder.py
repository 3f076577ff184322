"""The UnIVAL encoder: text and pictures, films or sounds in, one sequence of features out.

Legend: B batch, S text length, P patches, N = P + S encoder length (patches first), D width, H heads, L layers.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...modules.regularisation import drop_path_rates
from .config import UnIVALConfig
from .embeddings import RelativePositions, padding_bias, position_scores
from .layers import EncoderLayer
from .patches import Patches, PatchSources
from .tuning import build_prompt

SECOND_PICTURE_TYPE = 2


class UnIVALEncoder(PatchSources, RelativePositions):
    """Encoder for ``[patches | text]`` or ``[patches of a second picture | patches | text]``.

    Args:
        config: sizes and switches.
        embed_tokens: V x D token embedding, shared with the decoder.
        pad: id of the padding symbol.

    Raises:
        ValueError: an unknown trunk.
    """

    def __init__(self, config: UnIVALConfig, embed_tokens: nn.Embedding, pad: int) -> None:
        nn.Module.__init__(self)
        width, heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.config, self.pad, self.heads = config, pad, heads
        self.embed_scale = 1.0 if config.no_scale_embedding else width**0.5
        self.position_scaling = (width / heads * config.attn_scale_factor) ** -0.5
        self.embed_tokens = embed_tokens
        self.layernorm_embedding = nn.LayerNorm(width) if config.layernorm_embedding else nn.Identity()
        types = 4 if config.add_mm_type_embedding else 2
        self.type_embedding = nn.Embedding(types, width) if config.add_type_embedding else None
        self._build_patches(config)
        self.patch_layernorm_embedding = nn.LayerNorm(width) if config.patch_layernorm_embedding else nn.Identity()
        self.embed_positions = nn.Embedding(config.max_source_positions + 2, width)
        self.pos_ln = nn.LayerNorm(width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.pos_q_linear = nn.Linear(width, width)
        self.pos_k_linear = nn.Linear(width, width)
        rates = drop_path_rates(config.encoder_drop_path_rate, config.encoder_layers)
        self.layers = nn.ModuleList(EncoderLayer(config, rate) for rate in rates)
        self.layer_norm = nn.LayerNorm(width) if config.encoder_normalize_before else nn.Identity()
        self.encoder_prompt_encoder = build_prompt(config, "encoder")
        self._build_relative_positions(config, config.encoder_layers, heads)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Optional[Tensor] = None,
        patch_images: Optional[Tensor] = None,
        patch_images_2: Optional[Tensor] = None,
        patch_masks: Optional[Tensor] = None,
        patch_videos: Optional[Tensor] = None,
        patch_audios: Optional[Tensor] = None,
        patch_types: Optional[Tensor] = None,
        patch_first: Optional[Tensor] = None,
        token_embeddings: Optional[Tensor] = None,
        sample_patch_num: Optional[int] = None,
        return_all_hiddens: bool = False,
        **_: Any,
    ) -> dict[str, list[Tensor]]:
        """Encodes a batch.

        Args:
            src_tokens: B x S int64, right padded.
            src_lengths: ignored, the padding is read from ``src_tokens``.
            patch_images: B x 3 x h x w float, normalised pictures, or None for text only.
            patch_images_2: B x 3 x h x w float, second pictures.
            patch_masks: B bool; the patches of a row with False are ignored.
            patch_videos: B x 3 x F x h x w float, normalised frames.
            patch_audios: B x samples float, waveforms.
            patch_types: B int64, 0 picture, 1 film, 2 sound, in any order; None: pictures. What a row holds of other
                modalities is ignored, and media may also come with rows of their own modality only.
            patch_first: B int64, the first row with the same medium, its own number where there is none before; one
                that several rows share goes through the trunk once. None: nothing is shared.
            token_embeddings: B x S x D, used instead of the embedding of ``src_tokens``.
            sample_patch_num: ignored as in the original, which reads ``--sample-patch-num`` of the model.
            return_all_hiddens: also return the input and output of every layer.

        Returns:
            ``encoder_out`` [N x B x D], ``encoder_padding_mask`` [B x N, True = ignored], ``position_embeddings``
            [B x N x D, normalised], ``encoder_states`` (L + 1 times N x B x D or empty), and the empty lists
            ``encoder_embedding``, ``src_tokens``, ``src_lengths`` that fairseq's generators expect.

        Raises:
            ValueError: text or media too large for the position tables, or a modality without trunk.
        """
        length = src_tokens.shape[1]
        text_positions = self._text_positions(length)
        x = self._embed_text(src_tokens, text_positions, token_embeddings)
        padding = src_tokens.eq(self.pad)
        positions = self.pos_ln(text_positions)[None]
        blocks = []
        media = {"image": patch_images, "video": patch_videos, "audio": patch_audios}
        if patch_images is not None or patch_types is not None:
            # torch.compile breaks its graph here; inside a larger expression it would compile anew at every call
            patches = self.gather_patches(media, patch_types, len(x), patch_first)
            blocks.append((patches, self._patch_type_rows(patch_types)))
        if patch_images_2 is not None:
            patches = self.embed_media("image", patch_images_2)
            blocks.insert(0, (patches, self._second_picture_type()))
        for patches, type_rows in reversed(blocks):
            x = torch.cat([self._embed_patches(patches, type_rows), x], dim=1)
            padding = torch.cat([self._hidden(patches, patch_masks), padding], dim=1)
            normed = self.image_pos_ln(patches.positions)
            rows = max(len(normed), len(positions))
            positions = torch.cat([normed.expand(rows, -1, -1), positions.expand(rows, -1, -1)], dim=1)
        pad_bias = padding_bias(padding, x.dtype)
        if pad_bias is not None:
            x = x * (~padding)[:, :, None].to(x.dtype)
        states = self._run_layers(x, positions, [patches.ids for patches, _ in blocks], length, pad_bias)
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

    def _embed_text(self, tokens: Tensor, positions: Tensor, embedded: Optional[Tensor]) -> Tensor:
        x = self.embed_scale * (self.embed_tokens(tokens) if embedded is None else embedded)
        if self.config.entangle_position_embedding:
            x = x + positions
        if self.type_embedding is not None:
            x = x + self.type_embedding.weight[0]
        return F.dropout(self.layernorm_embedding(x), self.config.dropout, self.training)

    def _patch_type_rows(self, types: Optional[Tensor]) -> Tensor:
        """Rows of the type embedding for patches, b: one for all, or by modality with ``--add-mm-type-embedding``."""
        if types is None or not self.config.add_mm_type_embedding:
            return torch.ones(1, dtype=torch.int64, device=self.embed_tokens.weight.device)
        return types + 1

    def _second_picture_type(self) -> Tensor:
        """The original gives second pictures row 2 and fails where the table has two rows; there both are row 1."""
        row = SECOND_PICTURE_TYPE if self.config.add_mm_type_embedding else 1
        return torch.full((1,), row, dtype=torch.int64, device=self.embed_tokens.weight.device)

    def _embed_patches(self, patches: Patches, type_rows: Tensor) -> Tensor:
        """B x P x D."""
        x = self.embed_scale * patches.features
        if self.config.entangle_position_embedding:
            x = x + patches.positions
        if self.type_embedding is not None:
            x = x + self.type_embedding(type_rows)[:, None]
        return F.dropout(self.patch_layernorm_embedding(x), self.config.dropout, self.training)

    @staticmethod
    def _hidden(patches: Patches, masks: Optional[Tensor]) -> Tensor:
        """B x P, True where a patch is to be ignored."""
        features = patches.features
        hidden = torch.zeros(features.shape[:2], dtype=torch.bool, device=features.device)
        if patches.hidden is not None:
            hidden = hidden | patches.hidden
        return hidden if masks is None else hidden | ~masks.bool()[:, None]

    def _run_layers(
        self, x: Tensor, positions: Tensor, patch_ids: list[Tensor], length: int, pad_bias: Optional[Tensor]
    ) -> list[Tensor]:
        shared = position_scores(
            self.pos_q_linear, self.pos_k_linear, positions, positions, self.heads, self.position_scaling
        )
        if pad_bias is not None:
            shared = shared + pad_bias
        token_buckets = self.token_buckets(length)
        patch_buckets = [self.patch_buckets(ids) for ids in patch_ids]
        prompts = None if self.encoder_prompt_encoder is None else self.encoder_prompt_encoder(len(x))
        patches = x.shape[1] - length
        states = [x]
        for index, layer in enumerate(self.layers):
            bias = self._layer_bias(index, shared, token_buckets, patch_buckets)
            arguments = (x, bias, None if prompts is None else prompts[index], patches)
            if self.config.checkpoint_activations and self.training:
                x = checkpoint(layer, *arguments, use_reentrant=False)
            else:
                x = layer(*arguments)
            states.append(x)
        return states

    def _layer_bias(self, index: int, shared: Tensor, token_buckets: Tensor, patch_buckets: list[Tensor]) -> Tensor:
        """The shared scores plus this layer's relative scores in the blocks of patches and in the text block."""
        scores = [self.patch_relative_scores(index, buckets) for buckets in patch_buckets]
        scores.append(self.token_relative_scores(index, token_buckets))
        bias = shared.expand(max(len(block) for block in (shared, *scores)), -1, -1, -1).clone()
        start = 0
        for block in scores:
            end = start + block.shape[-1]
            bias[:, :, start:end, start:end] += block
            start = end
        return bias

    def reorder_encoder_out(self, encoder_out: dict[str, list[Tensor]], new_order: Tensor) -> dict[str, list[Tensor]]:
        """Picks and repeats batch rows; ``new_order``: int64 row numbers."""
        batch_dim = {"encoder_out": 1, "encoder_states": 1}

        def pick(key: str, tensor: Tensor) -> Tensor:
            if key == "position_embeddings" and tensor.stride(0) == 0:  # keeps the one shared row shared
                return tensor[:1].expand(len(new_order), -1, -1)
            return tensor.index_select(batch_dim.get(key, 0), new_order)

        return {key: [pick(key, tensor) for tensor in tensors] for key, tensors in encoder_out.items()}

    def max_positions(self) -> int:
        """Longest source in tokens (patches not counted)."""
        return self.config.max_source_positions
