"""The film trunk: ResNeXt with three-dimensional convolutions.

K. Hara, H. Kataoka, Y. Satoh, "Can spatiotemporal 3D CNNs retrace the history of 2D CNNs and ImageNet?", 2018; sizes
and names as in UnIVAL, models/unival/encoders/resnext3d.py.

Legend: B batch, F frames, t x h x w grid of features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

GROUPS = 32
EXPANSION = 2
STEM_WIDTH = 64
STAGE_WIDTHS = (128, 256, 512, 1024)

NormLayer = Callable[[int], nn.Module]


class Bottleneck(nn.Module):
    """1 x 1 x 1, grouped 3 x 3 x 3 and 1 x 1 x 1 convolution around a shortcut.

    Args:
        incoming: channels of the input; the output has ``2 * width``.
        width: channels of the grouped convolution.
        stride: of the grouped convolution, in time, height and width alike.
        norm_layer: makes the normalisation of a number of channels.
    """

    def __init__(self, incoming: int, width: int, stride: int, norm_layer: NormLayer) -> None:
        super().__init__()
        outgoing = EXPANSION * width
        self.conv1 = nn.Conv3d(incoming, width, 1, bias=False)
        self.bn1 = norm_layer(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride, padding=1, groups=GROUPS, bias=False)
        self.bn2 = norm_layer(width)
        self.conv3 = nn.Conv3d(width, outgoing, 1, bias=False)
        self.bn3 = norm_layer(outgoing)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or incoming != outgoing:
            shortcut = nn.Conv3d(incoming, outgoing, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, norm_layer(outgoing))

    def forward(self, x: Tensor) -> Tensor:
        """``x``: B x ``incoming`` x t x h x w; the sizes shrink by the stride, rounded up."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += shortcut
        return self.relu(x)


class ResNeXt3D(nn.Module):
    """Three or four stages of :class:`Bottleneck`, without a classifier.

    Args:
        blocks: number of blocks of each stage; three stages give 1024 features, four 2048.
        norm_layer: makes the normalisation of a number of channels.

    Attributes:
        num_features: channels of the output.
    """

    def __init__(self, blocks: Sequence[int], norm_layer: NormLayer = nn.BatchNorm3d) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, STEM_WIDTH, 7, stride=(1, 2, 2), padding=3, bias=False)
        self.bn1 = norm_layer(STEM_WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        incoming = STEM_WIDTH
        self.stages: list[str] = []
        for number, (count, width) in enumerate(zip(blocks, STAGE_WIDTHS, strict=False), start=1):
            first = Bottleneck(incoming, width, 1 if number == 1 else 2, norm_layer)
            incoming = EXPANSION * width
            others = [Bottleneck(incoming, width, 1, norm_layer) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(first, *others))
            self.stages.append(f"layer{number}")
        self.num_features = incoming
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                # the original counts only two of the three kernel sizes
                fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan))

    def forward_features(self, x: Tensor) -> Tensor:
        """Features of films.

        Args:
            x: B x 3 x F x h x w, normalised frames.

        Returns:
            B x ``num_features`` x t x h' x w': with four stages t is F/16 and h', w' are 1/32 of the picture, all
            rounded up; with three stages F/8 and 1/16.
        """
        if x.device.type == "cpu":  # pooling is ten times faster in this order, the whole trunk by a fifth
            x = x.contiguous(memory_format=torch.channels_last_3d)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return x

    forward = forward_features
