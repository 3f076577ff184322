"""The trunks of the encoder: convolutional networks that turn pictures, films and sounds into grids of features.

Every trunk is a module with the attribute ``num_features`` and the method ``forward_features``, which returns
B x ``num_features`` x grid: h x w of pictures, t x h x w of films, frames x bands of sounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError
from ...modules.regularisation import DropPath
from .pann import SIZES, Pann
from .resnext3d import ResNeXt3D

DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
FOUR_STAGES, THREE_STAGES, TINY = "timm_resnet", "resnet", "timm_tiny"
FILM_TRUNKS = {
    f"{prefix}resnext{depth.removeprefix('resnet')}": blocks[:stages]
    for prefix, stages in (("all_", 4), ("", 3))
    for depth, blocks in DEPTHS.items()
}
SOUND_TRUNKS = {f"pann_{name}": sizes for name, sizes in SIZES.items()}
SYNC_BN_EPS = 1e-3


class FrozenBatchNorm(nn.Module):
    """Batch norm of pictures or films with fixed statistics and weights, all of them buffers.

    A checkpoint's ``num_batches_tracked`` is dropped on loading.

    Args:
        num_features: channels C.
        eps: added to the variance.
        device, dtype: of the buffers.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((num_features,), value, device=device, dtype=dtype))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: B x C x grid; returns the same shape."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        # batch norm's backward pass would need its input; this one needs only the scale
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        shape = (-1,) + (1,) * (x.ndim - 2)
        return torch.addcmul(shift.to(x.dtype).view(shape), x, scale.to(x.dtype).view(shape))


def _norm_layer(sync_bn: bool, frozen: bool) -> Any:
    if frozen:
        return FrozenBatchNorm
    if sync_bn:
        return partial(nn.SyncBatchNorm, eps=SYNC_BN_EPS)
    return nn.BatchNorm2d


def _unknown(flag: str, value: str, choices: Iterable[str]) -> ConfigError:
    return ConfigError(f"unknown {flag} {value}: choose one of {', '.join(choices)}")


def build_image_trunk(
    name: str, depth: str, drop_path: float = 0.0, sync_bn: bool = False, frozen: bool = False
) -> Any:
    """The picture trunk called ``name`` by ``--image-encoder-name``.

    * ``timm_resnet`` (and names that contain it): ResNet v1.5, all four stages, 2048 features on a grid of 1/32 of the
      picture; its unused classifier ``fc`` is kept because the released checkpoints hold it.
    * ``resnet``: the first three stages, 1024 features on a grid of 1/16; the only one with stochastic depth.
    * ``timm_tiny``: one-block-per-stage ResNet without pooling, 192 features on a grid of 1/16.

    Args:
        name: see above.
        depth: ``--resnet-type``, the number of layers.
        drop_path: stochastic depth of the last block of each stage; in a stage it grows linearly from zero.
        sync_bn: batch norm over all processes.
        frozen: batch norm with fixed statistics and weights.

    Raises:
        ConfigError: unknown name or depth.
    """
    norm = _norm_layer(sync_bn, frozen)
    if name == TINY:
        return _tiny_trunk(norm)
    if depth not in DEPTHS:
        raise _unknown("--resnet-type", depth, DEPTHS)
    if FOUR_STAGES in name:
        return _four_stages(depth, norm, frozen)
    if name == THREE_STAGES:
        return _three_stages(depth, norm, drop_path)
    raise _unknown("--image-encoder-name", name, (FOUR_STAGES, THREE_STAGES, TINY))


def _tiny_trunk(norm: Any) -> Any:
    from timm.models import resnet  # timm takes seconds to import

    make: Any = resnet.ResNet
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


def _four_stages(depth: str, norm: Any, frozen: bool) -> Any:
    from timm.models import resnet

    make: Any = resnet.ResNet
    # a block whose last norm is zero and frozen could never learn to do anything
    return make(block=resnet.Bottleneck, layers=DEPTHS[depth], norm_layer=norm, zero_init_last=not frozen)


def _three_stages(depth: str, norm: Any, drop_path: float) -> Any:
    from timm.models import resnet

    make: Any = resnet.ResNet
    trunk = make(
        block=resnet.Bottleneck,
        layers=DEPTHS[depth][:3],
        channels=(64, 128, 256),
        num_classes=0,
        zero_init_last=False,
        norm_layer=norm,
    )
    trunk.layer4 = nn.Identity()  # timm's forward_features calls it
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3):
        rates = torch.linspace(0, drop_path, len(stage)).tolist()
        for block, rate in zip(stage, rates, strict=True):
            block.drop_path = DropPath(rate) if rate > 0 else None
    return trunk


class FrameTrunk(nn.Module):
    """A picture trunk for every frame, and convolutions over time: a small film trunk, ours.

    Args:
        frames: the picture trunk.

    Attributes:
        num_features: channels of the output, those of the picture trunk.
    """

    def __init__(self, frames: Any) -> None:
        super().__init__()
        self.frames = frames
        self.num_features = int(frames.num_features)
        self.times = nn.Sequential(*(self._over_time() for _ in range(2)))

    def _over_time(self) -> nn.Module:
        width = self.num_features
        convolution = nn.Conv3d(width, width, (3, 1, 1), (2, 1, 1), (1, 0, 0), bias=False)
        return nn.Sequential(convolution, nn.BatchNorm3d(width), nn.ReLU())

    def forward_features(self, x: Tensor) -> Tensor:
        """B x 3 x F x h x w, normalised frames -> B x ``num_features`` x F/4, rounded up, x grid of the pictures."""
        pictures = x.transpose(1, 2).flatten(0, 1)
        if x.device.type == "cpu":
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        features = self.frames.forward_features(pictures).unflatten(0, (len(x), -1)).transpose(1, 2)
        return self.times(features)

    forward = forward_features


def build_video_trunk(name: str, frozen: bool = False) -> Any:
    """The film trunk called ``name`` by ``--video-encoder-name``: a three-dimensional ResNeXt, or a small one.

    Args:
        name: ``all_resnext50``, ``all_resnext101`` or ``all_resnext152``: four stages, 2048 features; without
            ``all_``: three stages, 1024 features; ``timm_tiny``: the small picture trunk for every frame, 192 features.
        frozen: batch norm with fixed statistics and weights.

    Raises:
        ConfigError: unknown name.
    """
    if name == TINY:
        return FrameTrunk(_tiny_trunk(_norm_layer(False, frozen)))
    if name not in FILM_TRUNKS:
        raise _unknown("--video-encoder-name", name, (*FILM_TRUNKS, TINY))
    return ResNeXt3D(FILM_TRUNKS[name], FrozenBatchNorm if frozen else nn.BatchNorm3d)


def build_audio_trunk(name: str, mel_bins: int, hop_size: int) -> Pann:
    """The sound trunk called ``name`` by ``--audio-encoder-name``, which takes waveforms.

    Args:
        name: ``pann_cnn14`` (2048 features), ``pann_cnn10`` (1024), ``pann_cnn6`` (512) or ``pann_tiny`` (128).
        mel_bins: mel bands.
        hop_size: samples between two frames.

    Raises:
        ConfigError: unknown name, too few mel bands, or a hop that is not positive.
    """
    if name not in SOUND_TRUNKS:
        raise _unknown("--audio-encoder-name", name, SOUND_TRUNKS)
    return Pann(SOUND_TRUNKS[name], mel_bins, hop_size)
