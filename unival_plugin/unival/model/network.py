"""The UnIVAL network as one torch module (Shukor et al. 2023, "UnIVAL: Unified Model for Image, Video, Audio and
Language Tasks").

Imports torch only; ``registration.py`` makes it a fairseq model.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, ConfigError
from .config import UnIVALConfig
from .decoder import UnIVALDecoder
from .encoder import UnIVALEncoder


class UnIVALNetwork(nn.Module):
    """Encoder and decoder with tied token embeddings.

    Args:
        config: sizes and switches.
        vocab_size: number of symbols of the dictionary.
        pad: id of the padding symbol.
        encoder_class, decoder_class: classes to build, for adapters that add an engine's base class.

    Raises:
        ConfigError: ``config.resnet_model_path`` cannot be read or does not fit.
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
        if config.resnet_model_path:
            load_trunk(self.encoder.embed_images, config.resnet_model_path)
        self.apply(partial(initialise, std=config.init_std))
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
        return_all_hiddens: bool = False,
        patch_types: Optional[Tensor] = None,
        **_: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Teacher-forced pass; arguments as in :meth:`UnIVALEncoder.forward` and :meth:`UnIVALDecoder.forward`.

        Returns:
            B x T x V scores (or B x T x D features) and the decoder's extra outputs.

        Raises:
            ValueError: two pictures a sample, which this version does not support.
        """
        if patch_images_2 is not None:
            raise ValueError("two pictures a sample (patch_images_2) are not supported by this version")
        encoder_out = self.encoder(
            src_tokens,
            src_lengths=src_lengths,
            patch_images=patch_images,
            patch_masks=patch_masks,
            patch_types=patch_types,
            sample_patch_num=sample_patch_num,
            return_all_hiddens=return_all_hiddens,
        )
        return self.decoder(
            prev_output_tokens, encoder_out=encoder_out, code_masks=code_masks, features_only=features_only
        )


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


def load_trunk(trunk: nn.Module, path: str) -> None:
    """Starts the picture trunk from a plain state dict with torchvision's or timm's names.

    Raises:
        ConfigError: the file is missing, is not a state dict, or shares no tensor with the trunk.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file; --resnet-model-path needs a torchvision or timm ResNet file"
        ) from error
    except Exception as error:  # torch raises many types for unreadable files; all mean the same to the user
        raise CheckpointError(
            f"{path}: not a readable weights file ({type(error).__name__}); download it again"
        ) from error
    own = trunk.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise CheckpointError(f"{path}: no tensor fits the picture trunk; check --resnet-type and --image-encoder-name")
    trunk.load_state_dict(fitting, strict=False)


def freeze(network: UnIVALNetwork) -> None:
    """Sets ``requires_grad`` as the ``--freeze-*`` flags ask.

    The token embedding is one tensor for encoder, decoder and output projection, so freezing one name freezes all.
    """
    config, encoder, decoder = network.config, network.encoder, network.decoder
    if config.freeze_encoder:
        encoder.requires_grad_(False)
        for part in (encoder.embed_images, encoder.image_proj, encoder.embed_image_positions):
            part.requires_grad_(True)
    if config.freeze_decoder:
        decoder.requires_grad_(False)
    if config.freeze_encoder_embedding:
        encoder.embed_tokens.requires_grad_(False)
    if config.freeze_decoder_embedding:
        decoder.embed_tokens.requires_grad_(False)
    if config.freeze_image_encoder:
        encoder.embed_images.requires_grad_(False)
