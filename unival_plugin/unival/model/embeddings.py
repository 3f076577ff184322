"""Position scores: what encoder and decoder add to the content scores of attention.

Legend: L positions, H heads, D width, V rows of a relative-position table.
"""

from __future__ import annotations

from typing import Optional, cast

import torch
from torch import Tensor, nn

from ...modules.positions import image_buckets, num_image_buckets, token_buckets
from .config import UnIVALConfig


def position_scores(
    query: nn.Linear, key: nn.Linear, positions: Tensor, others: Tensor, heads: int, scale: float
) -> Tensor:
    """Scores between two sets of normalised position embeddings.

    Args:
        query, key: the projections, D -> D.
        positions: b x L x D (asking side), others: b' x M x D, where b and b' are equal or 1.
        scale: multiplies the projected queries.

    Returns:
        b x H x L x M.
    """

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    return split(query(positions) * scale) @ split(key(others)).transpose(-1, -2)


class RelativePositions(nn.Module):
    """Not a module of its own in the state dict: mixed into encoder and decoder, whose names the released files use.

    Holds the bucket tables (persistent integer buffers, as in the released files) and one table of learned scores per
    layer for text and one for patches.
    """

    token_rp_bucket: Tensor
    image_rp_bucket: Tensor

    def _build_relative_positions(self, config: UnIVALConfig, layers: int, heads: int) -> None:
        self.register_buffer("version", torch.tensor([3.0]))
        self.register_buffer("token_rp_bucket", token_buckets(config.token_bucket_size))
        self.register_buffer("image_rp_bucket", image_buckets(config.image_bucket_size))
        token_rows, image_rows = 2 * config.token_bucket_size - 1, num_image_buckets(config.image_bucket_size)
        self.token_rel_pos_table_list = nn.ModuleList(nn.Embedding(token_rows, heads) for _ in range(layers))
        self.image_rel_pos_table_list = nn.ModuleList(nn.Embedding(image_rows, heads) for _ in range(layers))

    def token_buckets(self, length: int) -> Tensor:
        """Buckets of the first ``length`` text positions, ``length x length``.

        Raises:
            ValueError: longer than the bucket table.
        """
        if length > self.token_rp_bucket.shape[0]:
            raise ValueError(
                f"a text of {length} tokens is longer than the {self.token_rp_bucket.shape[0]} positions of the model: "
                "shorten it or lower --max-src-length"
            )
        return self.token_rp_bucket[:length, :length]

    def patch_buckets(self, ids: Tensor, others: Optional[Tensor] = None) -> Tensor:
        """Buckets between grid ids; ``ids``: b x P (queries), ``others``: b x P' (keys, default: ids); b x P x P'."""
        others = ids if others is None else others
        return self.image_rp_bucket[ids[:, :, None], others[:, None, :]]

    def token_relative_scores(self, layer: int, buckets: Tensor) -> Tensor:
        """Learned scores of text buckets (L x M), 1 x H x L x M."""
        return cast(nn.Embedding, self.token_rel_pos_table_list[layer])(buckets).permute(2, 0, 1)[None]

    def patch_relative_scores(self, layer: int, buckets: Tensor) -> Tensor:
        """Learned scores of patch buckets (b x P x P'), b x H x P x P'."""
        return cast(nn.Embedding, self.image_rel_pos_table_list[layer])(buckets).permute(0, 3, 1, 2)


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Optional[Tensor]:
    """Additive bias of a key padding mask (B x S, True = ignored): B x 1 x 1 x S with ``-inf``; None: no padding."""
    if not bool(mask.any()):
        return None
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, float("-inf"))
    return bias[:, None, None, :]
