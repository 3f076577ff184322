"""The UnIVAL decoder.

Legend: B encoder rows, R decoder rows (R = B * k, k hypotheses of a sentence stand together), T target length,
N encoder length, D width, H heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Optional, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...modules.positions import code_position_ids
from ...modules.regularisation import drop_path_rates
from .cache import KeyValueCache
from .config import UnIVALConfig
from .embeddings import RelativePositions, padding_bias, position_scores
from .layers import DecoderLayer, KeysValues
from .tuning import build_prompt

POSITION_BLOCK = 32
"""Biases are computed for this many decoding steps at once."""

State = dict[str, dict[str, Any]]


class _Targets:
    """Which decoder rows are pictures written as codes; the others are text.

    Args:
        codes: 1 or R bool; None: no row.
    """

    def __init__(self, codes: Optional[Tensor]) -> None:
        self._codes = codes
        self.have_codes = codes is not None
        self.have_text = codes is None or not bool(codes.all())

    def pick(self, text: Callable[[], Tensor], codes: Callable[[], Tensor]) -> Tensor:
        """What is right for each row; what no row needs is not computed."""
        if self._codes is None:
            return text()
        found = codes()
        if not self.have_text:
            return found
        return torch.where(self._codes.view(-1, *[1] * (found.ndim - 1)), found, text())


class _Biases(NamedTuple):
    """Attention biases of consecutive decoding steps; they do not depend on the tokens."""

    first: int  # position of the first step
    own: list[Tensor]  # for each layer 1|R x H x steps x positions
    cross: Tensor  # 1|B|R x H x steps x N

    @property
    def end(self) -> int:
        return self.first + self.cross.shape[2]


class UnIVALDecoder(RelativePositions):
    """Decoder with teacher forcing and incremental decoding.

    Args:
        config: sizes and switches.
        embed_tokens: V x D token embedding; also the output projection when embeddings are shared.
        pad: id of the padding symbol.
    """

    image_position_idx: Tensor

    def __init__(self, config: UnIVALConfig, embed_tokens: nn.Embedding, pad: int) -> None:
        nn.Module.__init__(self)
        width, heads = config.encoder_embed_dim, config.decoder_attention_heads
        self.config, self.pad, self.heads = config, pad, heads
        self.embed_scale = 1.0 if config.no_scale_embedding else width**0.5
        self.position_scaling = (width / heads * config.attn_scale_factor) ** -0.5
        self.embed_tokens = embed_tokens
        self.layernorm_embedding = nn.LayerNorm(width) if config.layernorm_embedding else nn.Identity()
        self.code_layernorm_embedding = nn.LayerNorm(width) if config.code_layernorm_embedding else nn.Identity()
        self.embed_positions = nn.Embedding(config.max_target_positions + 2, width)
        self.embed_image_positions = nn.Embedding(config.image_bucket_size**2 + 1, width)
        self.pos_ln = nn.LayerNorm(width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.self_pos_q_linear = nn.Linear(width, width)
        self.self_pos_k_linear = nn.Linear(width, width)
        self.cross_pos_q_linear = nn.Linear(width, width)
        self.cross_pos_k_linear = nn.Linear(width, width)
        rates = drop_path_rates(config.decoder_drop_path_rate, config.decoder_layers)
        self.layers = nn.ModuleList(DecoderLayer(config, rate) for rate in rates)
        self.layer_norm = nn.LayerNorm(width) if config.decoder_normalize_before else nn.Identity()
        self.output_projection = nn.Linear(width, embed_tokens.num_embeddings, bias=False)
        if config.share_decoder_input_output_embed:
            self.output_projection.weight = embed_tokens.weight
        self._build_relative_positions(config, config.decoder_layers, heads)
        self.register_buffer("image_position_idx", code_position_ids(config.code_image_size, config.image_bucket_size))
        self.decoder_prompt_encoder = build_prompt(config, "decoder")
        self.adaptive_softmax = None

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Optional[dict[str, list[Tensor]]] = None,
        incremental_state: Optional[State] = None,
        code_masks: Optional[Tensor] = None,
        features_only: bool = False,
        need_attn: Optional[bool] = None,
        **_: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Next-token scores for every position, or for the new positions when decoding incrementally.

        Args:
            prev_output_tokens: R x T int64, the whole prefix also when decoding incrementally.
            encoder_out: what the encoder returned for B rows, where R is a multiple of B.
            incremental_state: a dict kept by the caller between steps; positions that it has seen are not recomputed.
            code_masks: R bool, rows whose target is an image written as codes.
            features_only: return features instead of scores.
            need_attn: return the attention to the encoder (default: yes in evaluation with teacher forcing).

        Returns:
            R x T' x V (or D) for the T' new positions, and ``{"attn": [R x T' x N or None], "inner_states": [...]}``
            with ``inner_states`` T' x R x D before the first and after every layer.
        """
        assert encoder_out is not None, "the UnIVAL decoder attends to an encoder"
        if need_attn is None:
            need_attn = incremental_state is None and not self.training
        features, extra = self.extract_features(
            prev_output_tokens, encoder_out, incremental_state, code_masks, need_attn
        )
        return (features if features_only else self.output_layer(features)), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, list[Tensor]],
        incremental_state: Optional[State] = None,
        code_masks: Optional[Tensor] = None,
        need_attn: bool = False,
    ) -> tuple[Tensor, dict[str, Any]]:
        """As :meth:`forward` with ``features_only``."""
        cache = None if incremental_state is None else incremental_state.setdefault("unival_decoder", {})
        if cache is not None and "self" not in cache:
            cache["self"] = [KeyValueCache() for _ in self.layers]
        past: list[Optional[KeyValueCache]] = [None] * len(self.layers) if cache is None else cache["self"]
        done, total = 0 if past[0] is None else past[0].length, prev_output_tokens.shape[1]
        targets = _Targets(code_masks)
        self_biases, cross_bias = self._biases(done, total, encoder_out, targets, cache)
        self_mask = self._self_mask(prev_output_tokens, done, cross_bias.dtype)
        cross_pad = padding_bias(encoder_out["encoder_padding_mask"][0], cross_bias.dtype)
        if cross_pad is not None:
            cross_bias = cross_bias + cross_pad
        cross = self._cross_keys_values(encoder_out, cache)

        prompts = None if self.decoder_prompt_encoder is None else self.decoder_prompt_encoder(len(prev_output_tokens))
        x = self._embed(prev_output_tokens, done, targets)
        states, weights = [x], None
        for index, (layer, bias) in enumerate(zip(self.layers, self_biases, strict=True)):
            last = index == len(self.layers) - 1
            prompt = None if prompts is None else prompts[index]
            bias = bias if self_mask is None else bias + self_mask
            arguments = (x, cross[index], bias, cross_bias, past[index], need_attn and last, prompt)
            if self.config.checkpoint_activations and self.training:
                x, weights = checkpoint(layer, *arguments, use_reentrant=False)
            else:
                x, weights = layer(*arguments)
            states.append(x)
        x = self.layer_norm(x)
        return x, {"attn": [weights], "inner_states": [state.transpose(0, 1) for state in states]}

    def output_layer(self, features: Tensor, **_: Any) -> Tensor:
        """R x T x D features -> R x T x V scores (before the softmax)."""
        return self.output_projection(features)

    def _embed(self, tokens: Tensor, done: int, targets: _Targets) -> Tensor:
        x = self.embed_scale * self.embed_tokens(tokens[:, done:])
        if not self.config.disable_entangle:
            total = tokens.shape[1]
            positions = targets.pick(lambda: self._text_positions(total), lambda: self._code_positions(total))
            x = x + positions[:, done:]
        normed = targets.pick(lambda: self.layernorm_embedding(x), lambda: self.code_layernorm_embedding(x))
        return F.dropout(normed, self.config.dropout, self.training)

    def _text_positions(self, length: int) -> Tensor:
        if length > self.embed_positions.num_embeddings:
            raise ValueError(
                f"a target of {length} tokens is longer than --max-target-positions {self.config.max_target_positions}"
            )
        return self.embed_positions.weight[None, :length]

    def _code_positions(self, length: int) -> Tensor:
        return self.embed_image_positions(self.image_position_idx[None, :length])

    def _biases(
        self,
        done: int,
        total: int,
        encoder_out: dict[str, list[Tensor]],
        targets: _Targets,
        cache: Optional[dict[str, Any]],
    ) -> tuple[Iterator[Tensor], Tensor]:
        """Biases of the new positions: for each layer 1|R x H x T' x T, and for all 1|B|R x H x T' x N.

        Incremental decoding computes them for a block of steps ahead.
        """
        if cache is None:
            return self._compute_biases(0, total, encoder_out, targets)
        block: Optional[_Biases] = cache.get("biases")
        if block is None or block.end < total:
            limit = min(self.embed_positions.num_embeddings, len(self.token_rp_bucket))
            end = max(total, min(-(-total // POSITION_BLOCK) * POSITION_BLOCK, limit))
            own, cross = self._compute_biases(done, end, encoder_out, targets)
            block = cache["biases"] = _Biases(done, list(own), cross)
        steps = slice(done - block.first, total - block.first)
        return (bias[:, :, steps, :total] for bias in block.own), block.cross[:, :, steps]

    def _compute_biases(
        self, done: int, total: int, encoder_out: dict[str, list[Tensor]], targets: _Targets
    ) -> tuple[Iterator[Tensor], Tensor]:
        own, cross = self._position_scores(done, total, encoder_out, targets)
        buckets = self._relative_buckets(done, total, targets)
        return (own + self._relative_scores(layer, buckets, targets) for layer in range(len(self.layers))), cross

    def _position_scores(
        self, done: int, total: int, encoder_out: dict[str, list[Tensor]], targets: _Targets
    ) -> tuple[Tensor, Tensor]:
        """Absolute position scores of the positions behind ``done``: 1|R x H x T' x T and 1|B|R x H x T' x N."""
        positions = targets.pick(
            lambda: self.pos_ln(self._text_positions(total)), lambda: self.image_pos_ln(self._code_positions(total))
        )
        source = encoder_out["position_embeddings"][0]
        if source.stride(0) == 0:  # one row expanded to the batch: all rows have the same positions
            source = source[:1]
        new = positions[:, done:]
        own = position_scores(
            self.self_pos_q_linear, self.self_pos_k_linear, new, positions, self.heads, self.position_scaling
        )
        if len(new) > 1:  # one row per hypothesis: the hypotheses of a sentence are alike
            new = new[:: len(new) // len(encoder_out["encoder_padding_mask"][0])]
        cross = position_scores(
            self.cross_pos_q_linear, self.cross_pos_k_linear, new, source, self.heads, self.position_scaling
        )
        return own, cross

    def _relative_buckets(self, done: int, total: int, targets: _Targets) -> tuple[Tensor, Tensor]:
        """Buckets of the positions behind ``done``, text T' x T and codes 1 x T' x T; empty where no row is such."""
        text = self.token_buckets(total)[done:] if targets.have_text else self.token_rp_bucket[:0]
        ids = self.image_position_idx[None, :total]
        return text, self.patch_buckets(ids[:, done:] if targets.have_codes else ids[:, :0], ids)

    def _relative_scores(self, layer: int, buckets: tuple[Tensor, Tensor], targets: _Targets) -> Tensor:
        """1|R x H x T' x T."""
        return targets.pick(
            lambda: self.token_relative_scores(layer, buckets[0]),
            lambda: self.patch_relative_scores(layer, buckets[1]),
        )

    def _self_mask(self, tokens: Tensor, done: int, dtype: torch.dtype) -> Optional[Tensor]:
        """Causal and padding mask as a bias; None where a single new position may see everything."""
        padding = padding_bias(tokens.eq(self.pad), dtype)
        new = tokens.shape[1] - done
        if new == 1:
            return padding
        causal = torch.full((new, tokens.shape[1]), float("-inf"), dtype=dtype, device=tokens.device).triu_(done + 1)
        return causal[None, None] if padding is None else causal + padding

    def _cross_keys_values(
        self, encoder_out: dict[str, list[Tensor]], cache: Optional[dict[str, Any]]
    ) -> list[KeysValues]:
        if cache is not None and "cross" in cache:
            return cache["cross"]
        memory = encoder_out["encoder_out"][0].transpose(0, 1)
        cross = [cast(DecoderLayer, layer).encoder_attn.keys_values(memory) for layer in self.layers]
        if cache is not None:
            cache["cross"] = cross
        return cross

    def reorder_incremental_state(
        self, incremental_state: State, new_order: Tensor, encoder_shared: bool = False
    ) -> None:
        """Follows a reordering of the decoder rows; keys and values are copied, even where nothing moves.

        Args:
            new_order: int64, the row that each new row continues; there may be more or fewer rows than before.
            encoder_shared: the rows of a sentence share one copy of the encoder's keys and values, which stays as it
                is; otherwise (fairseq's generator) each row has its own copy, which moves with it.
        """
        cache = incremental_state.get("unival_decoder")
        if not cache or "self" not in cache:
            return
        rows = cache["self"][0].rows
        cache["self"] = [each.reordered(new_order) for each in cache["self"]]
        if not encoder_shared:
            self.select_sentences(incremental_state, new_order)
        biases: _Biases = cache["biases"]
        if len(biases.own[0]) == rows > 1:
            cache["biases"] = biases._replace(own=[each.index_select(0, new_order) for each in biases.own])

    reorder_incremental_state_scripting = reorder_incremental_state

    def select_sentences(self, incremental_state: State, sentences: Tensor) -> None:
        """Keeps (and orders) the encoder rows ``sentences`` of the cache; int64."""
        cache = incremental_state.get("unival_decoder")
        if not cache or "cross" not in cache:
            return
        batch = cache["cross"][0][0].shape[0]
        cache["cross"] = [(k.index_select(0, sentences), v.index_select(0, sentences)) for k, v in cache["cross"]]
        biases: _Biases = cache["biases"]
        if len(biases.cross) == batch > 1:
            cache["biases"] = biases._replace(cross=biases.cross.index_select(0, sentences))

    def max_positions(self) -> int:
        """Longest target in tokens."""
        return self.config.max_target_positions
