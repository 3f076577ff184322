"""Picture trunks: convolutional networks that turn pixels into a grid of patch features."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
SYNC_BN_EPS = 1e-3


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and weights, all of them buffers.

    A checkpoint's ``num_batches_tracked`` is dropped on loading.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: B x C x h x w."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def _norm_layer(sync_bn: bool, frozen: bool) -> Any:
    if frozen:
        return FrozenBatchNorm2d
    if sync_bn:
        return partial(nn.SyncBatchNorm, eps=SYNC_BN_EPS)
    return nn.BatchNorm2d


def build_trunk(name: str, depth: str, drop_path: float = 0.0, sync_bn: bool = False, frozen: bool = False) -> Any:
    """The picture trunk called ``name`` by ``--image-encoder-name``.

    * ``timm_resnet``: ResNet v1.5, all four stages, 2048 features on a grid of 1/32 of the picture; its unused
      classifier ``fc`` is kept because the released checkpoints hold it.
    * ``timm_tiny``: one-block-per-stage ResNet without pooling, 192 features on a grid of 1/16.
    * anything else: the three-stage ResNet, 1024 features on a grid of 1/16.

    Returns:
        A module with attribute ``num_features`` whose ``forward_features`` gives the feature grid.

    Raises:
        ValueError: unknown depth.
    """
    from timm.models import resnet  # timm takes seconds to import

    make: Any = resnet.ResNet

    norm = _norm_layer(sync_bn, frozen)
    if name == "timm_tiny":
        trunk = make(
            block=resnet.BasicBlock,
            layers=(1, 1, 1, 1),
            channels=(24, 48, 96, 192),
            stem_type="deep",
            stem_width=12,
            zero_init_last=False,  # with zeros the few blocks do nothing at first, and small training sets end too soon
            norm_layer=norm,
        )
        trunk.maxpool, trunk.fc = nn.Identity(), nn.Identity()
        return trunk
    if depth not in DEPTHS:
        raise ValueError(f"unknown --resnet-type {depth}: choose one of {', '.join(DEPTHS)}")
    if "timm_resnet" in name:
        return make(block=resnet.Bottleneck, layers=DEPTHS[depth], norm_layer=norm)
    trunk = make(block=resnet.Bottleneck, layers=DEPTHS[depth], norm_layer=norm, drop_path_rate=drop_path)
    trunk.layer4, trunk.fc = nn.Identity(), nn.Identity()
    trunk.num_features = 1024
    return trunk
