"""An untrained small model that draws, with the tokenizer beside it, and something that stands for CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import made_models
import numpy as np
import torch
from PIL import Image

from unival_plugin.checkpoints.image_tokenizer import write_image_tokenizer
from unival_plugin.modules.vqgan import VQGAN, VQGANConfig

SIDE = 16
"""Of the pictures, in pixels: 2 x 2 codes."""
TOKENIZER = VQGANConfig(
    embed_dim=8, n_embed=4, z_channels=8, resolution=SIDE, ch=8, ch_mult=(1, 1, 1, 1), num_res_blocks=1,
    attn_resolutions=(), num_groups=4,
)  # fmt: skip


class Brightness:
    """Stands for CLIP: the brighter a picture, the better it fits."""

    def similarity(self, pictures: list[Image.Image], texts: list[str]) -> torch.Tensor:
        return torch.tensor([float(np.asarray(picture).mean()) / 255 for picture in pictures])


def make_drawer(digits: Path, folder: Path, **options: Any) -> Path:
    """``folder/image_gen.pt``; ``last.ckpt`` and ``model.yaml`` lie beside it and it names them; there is no CLIP."""
    torch.manual_seed(5)
    network = VQGAN(TOKENIZER)
    torch.nn.init.normal_(network.quantize.embed.weight, std=4)
    weights, config = folder / "last.ckpt", folder / "model.yaml"
    write_image_tokenizer(network, weights, config)
    draws = {
        "code_image_size": SIDE, "vqgan_model_path": str(weights), "vqgan_config_path": str(config),
        "eval_args": '{"beam": 3, "temperature": 20, "sampling_topk": 4}',
    }  # fmt: skip
    with (
        patch.dict(made_models.TASKS, image_gen=draws),
        patch.dict(made_models.TRUNKS, image_gen={"code_image_size": SIDE}),
    ):
        return made_models.make_checkpoint(digits, folder, "image_gen", **options)
