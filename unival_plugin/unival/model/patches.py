"""From pictures, films and sounds to patches: trunk, projection and positions of every modality.

Legend: B batch, b 1 or B, P patches, C features of a trunk, D width.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Optional, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...modules.positions import grid_ids, square_ids
from .config import UnIVALConfig
from .trunks import build_audio_trunk, build_image_trunk, build_video_trunk

MODALITIES = ("image", "video", "audio")
"""In the order of their numbers in ``patch_types``."""
ORIGINAL_STRIDE = 16
"""Pixels per patch that ``--interpolate-position`` assumes of pretraining, whatever the trunk's real stride."""


@dataclass
class Patches:
    """Patches of a batch.

    ``features`` B x P x D after the projection, ``ids`` b x P grid ids, ``positions`` b x P x D position embeddings,
    ``hidden`` B x P, True where there is no patch (None: everywhere is one).
    """

    features: Tensor
    ids: Tensor
    positions: Tensor
    hidden: Optional[Tensor] = None


class PatchSources(nn.Module):
    """Not a module of its own in the state dict: mixed into the encoder, whose names the released files use.

    Attributes:
        modalities: those that the network has a trunk for, of :data:`MODALITIES`.
    """

    config: UnIVALConfig
    modalities: tuple[str, ...]

    def _build_patches(self, config: UnIVALConfig) -> None:
        trunks: dict[str, Any] = {
            "image": build_image_trunk(
                config.image_encoder_name,
                config.resnet_type,
                config.resnet_drop_path_rate,
                config.sync_bn,
                config.freeze_resnet,
            )
        }
        if config.video_encoder_name:
            trunks["video"] = build_video_trunk(config.video_encoder_name, config.freeze_resnet_video)
        if config.audio_encoder_name:
            trunks["audio"] = build_audio_trunk(config.audio_encoder_name, config.mel_bins, config.hop_size)
        width = config.encoder_embed_dim
        self.modalities = tuple(trunks)
        for modality, trunk in trunks.items():
            self.add_module(f"embed_{modality}s", trunk)
            self.add_module(f"{modality}_proj", nn.Linear(int(trunk.num_features), width))
            wanted = getattr(config, f"layernorm_{modality}_embedding")
            self.add_module(f"layernorm_{modality}_embedding", nn.LayerNorm(width) if wanted else None)
            self.add_module(f"embed_{modality}_positions", nn.Embedding(config.image_bucket_size**2 + 1, width))

    def trunk(self, modality: str) -> nn.Module:
        """The convolutional network of a modality."""
        return cast(nn.Module, getattr(self, f"embed_{modality}s"))

    def patch_parts(self) -> list[nn.Module]:
        """All modules that turn media into patches: trunks, projections, their norms and position tables."""
        names = ("embed_{}s", "{}_proj", "embed_{}_positions", "layernorm_{}_embedding")
        parts = [getattr(self, name.format(modality)) for modality in self.modalities for name in names]
        return [part for part in parts if part is not None]

    def train(self, mode: bool = True) -> Any:
        """As of every module; with ``--encoder-eval`` picture and film trunks stay in evaluation mode."""
        super().train(mode)
        if self.config.encoder_eval:
            for modality in set(self.modalities) - {"audio"}:
                self.trunk(modality).eval()
        return self

    def gather_patches(
        self,
        media: dict[str, Optional[Tensor]],
        types: Optional[Tensor],
        batch: int,
        first: Optional[Tensor] = None,
    ) -> Patches:
        """Patches of a batch whose rows may be of different modalities, in any order.

        Args:
            media: by modality a tensor with a row for every row of the batch (rows of other modalities are ignored),
                or only for the rows of this modality, in their order.
            types: B int64, 0 picture, 1 film, 2 sound; None: pictures.
            batch: B.
            first: B int64, the first row with the same medium as a row, its own number where there is none before; the
                trunk sees one that several rows share only once. None: nothing is shared.

        Returns:
            Patches with P of the row that has most of them.

        Raises:
            ValueError: a type without trunk or without media.
        """
        if types is None:
            return self._patches(0, media, batch, first=first)
        kinds = types.unique().cpu()
        if len(kinds) == 1:
            return self._patches(int(kinds), media, batch, first=first)
        rows = [(types == kind).nonzero()[:, 0] for kind in kinds.to(types.device)]
        parts = [
            self._patches(int(kind), media, batch, chosen, first)
            for kind, chosen in zip(kinds.tolist(), rows, strict=True)
        ]
        order = torch.cat(rows).argsort()
        longest = max(part.features.shape[1] for part in parts)

        def merged(tensors: list[Tensor], fill: float = 0) -> Tensor:
            padded = [
                F.pad(x, (0, 0) * (x.ndim - 2) + (0, longest - x.shape[1]), value=fill).expand(
                    len(chosen), *(-1,) * (x.ndim - 1)
                )
                for x, chosen in zip(tensors, rows, strict=True)
            ]
            return torch.cat(padded)[order]

        hidden = None
        if any(part.features.shape[1] < longest for part in parts):
            hidden = merged([torch.zeros_like(part.ids, dtype=torch.bool) for part in parts], fill=True)
        return Patches(
            merged([part.features for part in parts]),
            merged([part.ids for part in parts]),
            merged([part.positions for part in parts]),
            hidden,
        )

    def _patches(
        self,
        kind: int,
        media: dict[str, Optional[Tensor]],
        batch: int,
        rows: Optional[Tensor] = None,
        first: Optional[Tensor] = None,
    ) -> Patches:
        if not 0 <= kind < len(MODALITIES):
            raise ValueError(f"patch_types holds {kind}: 0 is a picture, 1 a film, 2 a sound")
        modality = MODALITIES[kind]
        if modality not in self.modalities:
            raise ValueError(
                f"the batch holds {modality}s, but the model has no trunk for them; give --{modality}-encoder-name"
            )
        tensor = media.get(modality)
        wanted = batch if rows is None else len(rows)
        if tensor is None or len(tensor) not in (wanted, batch):
            found = "none" if tensor is None else f"{len(tensor)}"
            raise ValueError(f"the batch has {wanted} rows of type {modality}, but {found} in patch_{modality}s")
        if rows is not None and len(tensor) != wanted:
            tensor = tensor[rows]
        if first is None:
            return self.embed_media(modality, tensor)
        own = first if rows is None else torch.searchsorted(rows, first[rows])
        distinct, copies = own.unique(return_inverse=True)
        return self.embed_media(modality, tensor[distinct], copies)

    def embed_media(self, modality: str, media: Tensor, copies: Optional[Tensor] = None) -> Patches:
        """Patches of pictures (B x 3 x h x w), films (B x 3 x F x h x w) or sounds (B x samples); all of one kind.

        With ``copies`` int64 (R,) there are patches of R rows: which of the B media each is about.
        """
        grid = self._features(modality, media)
        features = grid.flatten(2).transpose(1, 2)
        if copies is not None:
            features = features[copies]
        size, bucket = grid.shape[2:], self.config.image_bucket_size
        if modality == "audio":  # the original arranges sounds in a square, whatever their time x frequency grid
            ids = square_ids(features.shape[1], bucket)
        else:  # the cells of a film have the same ids at every time
            ids = grid_ids(size[-2], size[-1], bucket).repeat(size[0] if modality == "video" else 1)
        ids = ids.to(features.device)[None]
        positions = self._positions(modality, ids, size)
        kept = self._sampled(modality, features)
        if kept is not None:
            features = features.gather(1, kept[:, :, None].expand(-1, -1, features.shape[2]))
            ids, positions = ids[0][kept], positions[0][kept]
        projected = getattr(self, f"{modality}_proj")(features)
        norm = getattr(self, f"layernorm_{modality}_embedding")
        return Patches(projected if norm is None else norm(projected), ids, positions)

    def _features(self, modality: str, media: Tensor) -> Tensor:
        """B x C x grid."""
        dtype = getattr(self, f"{modality}_proj").weight.dtype
        if modality == "image" and media.device.type == "cpu":
            # pooling is ten times faster in this order, batch norm four times
            media = media.contiguous(memory_format=torch.channels_last)
        if modality != "audio":  # the sound trunk's front end takes full precision and casts by itself
            media = media.to(dtype)
        frozen = self.config.nograd and getattr(self.config, f"freeze_{modality}_encoder")
        with torch.no_grad() if frozen else contextlib.nullcontext():
            return cast(Any, self.trunk(modality)).forward_features(media)

    def _positions(self, modality: str, ids: Tensor, size: torch.Size) -> Tensor:
        table = getattr(self, f"embed_{modality}_positions")
        side = self.config.orig_patch_image_size // ORIGINAL_STRIDE
        if modality != "image" or not self.config.interpolate_position or ids.shape[1] <= side * side:
            return table(ids)
        grid = table(grid_ids(side, side, self.config.image_bucket_size).to(ids.device))
        grid = grid.t().unflatten(1, (side, side))[None]
        return F.interpolate(grid, size=size, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)

    def _sampled(self, modality: str, features: Tensor) -> Optional[Tensor]:
        """Patch indices B x n to keep, drawn without replacement for each row; None keeps all."""
        wanted = self.config.sample_patch_num
        if modality != "image":
            own = getattr(self.config, f"sample_{modality}_patch_num")
            wanted = wanted if own is None else own
        if wanted is None or wanted >= features.shape[1]:
            return None
        if not (self.training or self.config.sample_patches_in_eval):
            return None
        # torch's generator, not Python's: fairseq seeds it at every update, so that resuming repeats the same draws
        noise = torch.rand(features.shape[:2], device=features.device)
        return noise.argsort(dim=1)[:, :wanted]
