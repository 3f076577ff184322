"""Small networks with rare flags, whose outputs the original code gave (``golden/unival_model/small_variants.npz``).

The arrays were made by running UnIVAL's own model code, unchanged, on these configurations and inputs, with the weights
of the fill rule (``full_size.fill``; filters of the sound front end as constructed). Only numpy and torch are imported
here, so that the same file serves both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

VOCABULARY = 300
ROWS = 4
SIZES = {
    "encoder_embed_dim": 64, "encoder_ffn_embed_dim": 96, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4,
}  # fmt: skip
FLAGS = {
    "scale_attn": True, "scale_fc": True, "scale_heads": True, "disable_entangle": True,
    "image_encoder_name": "timm_resnet", "resnet_type": "resnet50",
}  # fmt: skip
FILM = {"video_encoder_name": "all_resnext50"}
SOURCE = [[0, 5, 6, 7, 8, 2], [0, 9, 10, 2, 1, 1], [0, 11, 12, 13, 2, 1], [0, 14, 15, 16, 17, 2]]
PREVIOUS = [[0, 4, 5, 6, 7], [0, 8, 9, 1, 1], [0, 10, 11, 12, 1], [0, 13, 14, 15, 16]]
PAD, WORD = 1, 3


@dataclass(frozen=True)
class Case:
    """``flags`` on top of :data:`FLAGS`, shapes of the ``media`` (normally distributed), ``types``, ``codes`` rows.

    ``padding``: whether the texts are padded; the original fails with prompts and padding.
    """

    flags: dict[str, Any] = field(default_factory=dict)
    media: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"patch_images": (ROWS, 3, 64, 64)})
    types: tuple[int, ...] | None = None
    codes: tuple[bool, ...] | None = None
    masks: tuple[bool, ...] = (True,) * ROWS
    padding: bool = True


def prompt(side: str, **more: Any) -> dict[str, Any]:
    """Flags of a prefix of five on one side."""
    flags = {"prompt": True, "prompt_length": 5, "prompt_type": "prefix", **more}
    return {f"{side}_{name}": value for name, value in flags.items()}


def film(frames: int) -> dict[str, tuple[int, ...]]:
    """A film of 64 x 96 pixels; the picture beside it is ignored."""
    return {"patch_images": (ROWS, 3, 8, 8), "patch_videos": (ROWS, 3, frames, 64, 96)}


SOUND = {"patch_images": (ROWS, 3, 8, 8), "patch_audios": (ROWS, 60000)}
SOUNDS, FILMS = (2,) * ROWS, (1,) * ROWS
PLAIN = {
    **dict.fromkeys(("scale_attn", "scale_fc", "scale_heads", "layernorm_embedding", "add_type_embedding"), False),
    **dict.fromkeys(("patch_layernorm_embedding", "code_layernorm_embedding"), False),
}
CASES = {
    "three_stages": Case({"image_encoder_name": "resnet"}),
    "entangled": Case({"entangle_position_embedding": True, "disable_entangle": False}),
    "post_norm": Case({"encoder_normalize_before": False, "decoder_normalize_before": False}),
    "no_scales_and_norms": Case(PLAIN),
    "scaled_embedding": Case({"no_scale_embedding": False}),
    "text_with_two_adapters": Case({"adapter": True, "adapter_type": "VL", "adapter_dim": 16}, {}),
    "adapter": Case({"adapter": True, "adapter_dim": 16}),
    "residual_factors": Case({"scale_resids": True}),
    "qk_norm": Case({"qk_norm": True, "attn_scale_factor": 4.0}),
    "film_types": Case({**FILM, "add_mm_type_embedding": True, "layernorm_video_embedding": True}, film(8), FILMS),
    "film_of_32_frames": Case(FILM, film(32), FILMS),
    "film_three_stages": Case({"video_encoder_name": "resnext50"}, film(4), FILMS),
    "frozen_film_norms": Case({**FILM, "freeze_resnet_video": True}, film(4), FILMS),
    "pictures_and_films": Case(
        FILM, {"patch_images": (2, 3, 64, 96), "patch_videos": (ROWS, 3, 4, 64, 96)}, (0, 0, 1, 1)
    ),
    "sound_cnn10": Case({"audio_encoder_name": "pann_cnn10", "hop_size": 480}, SOUND, SOUNDS),
    "sound_cnn6": Case({"audio_encoder_name": "pann_cnn6", "hop_size": 320}, SOUND, SOUNDS),
    "sound_128_bands": Case(
        {"audio_encoder_name": "pann_cnn10", "mel_bins": 128, "layernorm_audio_embedding": True}, SOUND, SOUNDS
    ),
    "two_pictures": Case(
        {"add_mm_type_embedding": True},
        {"patch_images": (ROWS, 3, 64, 64), "patch_images_2": (ROWS, 3, 64, 96)},
        (0,) * ROWS,
    ),
    "interpolated": Case(
        {"interpolate_position": True, "orig_patch_image_size": 32}, {"patch_images": (ROWS, 3, 96, 96)}
    ),
    "masked": Case(masks=(True, False, True, False)),
    "codes_and_text": Case(codes=(True, False, True, False)),
    "entangled_codes": Case({"disable_entangle": False}, codes=(True, False, True, False)),
    "decoder_prompt": Case(prompt("decoder"), padding=False),
    "decoder_prompt_network": Case(prompt("decoder", prompt_projection=True, prompt_dim=48), padding=False),
    "encoder_prompt": Case(prompt("encoder"), padding=False),
    "other_buckets": Case({"image_bucket_size": 20, "token_bucket_size": 64, "activation_fn": "relu"}),
}


def texts(case: Case) -> tuple[Tensor, Tensor]:
    """Source and previous target tokens."""
    pair = torch.tensor(SOURCE), torch.tensor(PREVIOUS)
    return pair if case.padding else tuple(text.masked_fill(text == PAD, WORD) for text in pair)  # type: ignore[return-value]


def media(case: Case) -> dict[str, Tensor]:
    """What the encoder gets beside the text."""
    scale = {"patch_audios": 0.1}
    inputs = {
        name: torch.from_numpy(
            (np.random.default_rng(len(name)).standard_normal(shape) * scale.get(name, 1.0)).astype("float32")
        )
        for name, shape in case.media.items()
    }
    if inputs:
        inputs["patch_masks"] = torch.tensor(case.masks)
    if case.types is not None:
        inputs["patch_types"] = torch.tensor(case.types)
    return inputs


def sample(name: str, tensor: Tensor) -> np.ndarray:
    """The part of an output that is kept: 8 channels, or every 25th word's score."""
    return (tensor[..., :8] if name == "encoder_out" else tensor[..., ::25]).numpy()
