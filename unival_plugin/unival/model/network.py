"""The UnIVAL network as one torch module (Shukor et al. 2023, "UnIVAL: Unified Model for Image, Video, Audio and
Language Tasks").

Imports torch only; ``registration.py`` makes it a fairseq model.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Optional

import torch
from torch import Tensor, nn

from .config import ACTIVATIONS, UnIVALConfig
from .decoder import UnIVALDecoder
from .encoder import UnIVALEncoder
from .tuning import add_updates, freeze


class UnIVALNetwork(nn.Module):
    """Encoder and decoder with tied token embeddings.

    Args:
        config: sizes and switches.
        vocab_size: number of symbols of the dictionary.
        pad: id of the padding symbol.
        encoder_class, decoder_class: classes to build, for adapters that add an engine's base class.

    Raises:
        ValueError: an unknown trunk, or patterns of names that fit nothing.
    """

    def __init__(
        self,
        config: UnIVALConfig,
        vocab_size: int,
        pad: int = 1,
        encoder_class: type[UnIVALEncoder] = UnIVALEncoder,
        decoder_class: type[UnIVALDecoder] = UnIVALDecoder,
    ) -> None:
        nn.Module.__init__(self)  # not super(): adapters put other nn.Module classes behind this one
        self.config = config
        embed_tokens = nn.Embedding(vocab_size, config.encoder_embed_dim, padding_idx=pad)
        decoder_tokens = embed_tokens
        if not config.share_all_embeddings:
            decoder_tokens = nn.Embedding(vocab_size, config.encoder_embed_dim, padding_idx=pad)
        self.encoder = encoder_class(config, embed_tokens, pad)
        self.decoder = decoder_class(config, decoder_tokens, pad)
        self.classification_heads = nn.ModuleDict()
        self.apply(partial(initialise, std=config.init_std))
        add_updates(self, config)
        freeze(self)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Optional[Tensor],
        prev_output_tokens: Tensor,
        patch_images: Optional[Tensor] = None,
        patch_images_2: Optional[Tensor] = None,
        patch_masks: Optional[Tensor] = None,
        code_masks: Optional[Tensor] = None,
        sample_patch_num: Optional[int] = None,
        features_only: bool = False,
        classification_head_name: Optional[str] = None,
        token_embeddings: Optional[Tensor] = None,
        return_all_hiddens: bool = False,
        patch_videos: Optional[Tensor] = None,
        patch_types: Optional[Tensor] = None,
        patch_audios: Optional[Tensor] = None,
        patch_first: Optional[Tensor] = None,
        **_: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Teacher-forced pass; arguments as in :meth:`UnIVALEncoder.forward` and :meth:`UnIVALDecoder.forward`.

        Args:
            classification_head_name: a registered head: its scores are returned instead of the next-token scores.

        Returns:
            B x T x V scores (or B x T x D features, or B x classes with a head) and the decoder's extra outputs.

        Raises:
            ValueError: media that the network has no trunk for, text or grids that are too large.
            KeyError: no such head.
        """
        encoder_out = self.encoder(
            src_tokens,
            patch_images=patch_images,
            patch_images_2=patch_images_2,
            patch_masks=patch_masks,
            patch_videos=patch_videos,
            patch_audios=patch_audios,
            patch_types=patch_types,
            patch_first=patch_first,
            token_embeddings=token_embeddings,
            return_all_hiddens=return_all_hiddens,
        )
        scores, extra = self.decoder(
            prev_output_tokens,
            encoder_out=encoder_out,
            code_masks=code_masks,
            features_only=features_only or classification_head_name is not None,
        )
        if classification_head_name is not None:
            lengths = prev_output_tokens.ne(self.decoder.pad).sum(dim=1)
            last = scores[torch.arange(len(scores), device=scores.device), lengths - 1]
            scores = self.classification_heads[classification_head_name](last)
        return scores, extra

    def register_classification_head(
        self, name: str, num_classes: int, inner_dim: Optional[int] = None, use_two_images: bool = False, **_: Any
    ) -> None:
        """Adds (or replaces) a head for ``classification_head_name``; arguments as of :class:`ClassificationHead`."""
        head = ClassificationHead(self.config, num_classes, inner_dim, use_two_images)
        head.apply(partial(initialise, std=self.config.init_std))
        self.classification_heads[name] = head


class ClassificationHead(nn.Module):
    """Scores of classes from the decoder's feature at the last target token.

    Args:
        config: gives width, activation, dropout and kind (``mlp`` or ``linear``).
        num_classes: number of scores.
        inner_dim: inner width of the ``mlp`` (default: the network's).
        use_two_images: two consecutive rows of the batch make one sample.
    """

    def __init__(
        self, config: UnIVALConfig, num_classes: int, inner_dim: Optional[int] = None, use_two_images: bool = False
    ) -> None:
        super().__init__()
        width = config.encoder_embed_dim * (2 if use_two_images else 1)
        inner = inner_dim or config.encoder_embed_dim
        self.use_two_images = use_two_images
        self.dropout = nn.Dropout(config.pooler_dropout)
        self.dense = nn.Linear(width, inner) if config.pooler_classifier == "mlp" else None
        self.activation = ACTIVATIONS[config.pooler_activation_fn]
        self.out_proj = nn.Linear(width if self.dense is None else inner, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """B x D -> B x classes (B / 2 x classes with two pictures a sample)."""
        if self.use_two_images:
            features = features.reshape(-1, 2 * features.shape[1])
        hidden = self.dropout(features)
        if self.dense is not None:
            hidden = self.dropout(self.activation(self.dense(hidden)))
        return self.out_proj(hidden)


def initialise(module: nn.Module, std: float) -> None:
    """BERT's initialisation, applied to the whole network (UnIVAL overwrites every other one with it).

    The padding row of the tied embedding ends up random because the output projection draws the tensor once more.
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=std)
        if module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
