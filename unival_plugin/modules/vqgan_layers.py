"""Encoder and decoder of the VQGAN, and their sizes.

The network is that of "Taming transformers for high-resolution image synthesis" (Esser et al. 2021). Names in its state
dict are those of the released files.

Legend: B pictures, H x W pixels, h x w codes, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError

CHANNELS = 3
EPSILON = 1e-6

LIMITS = {
    "embed_dim": 1024, "n_embed": 2**17, "z_channels": 1024, "resolution": 4096, "ch": 512, "num_res_blocks": 16,
    "num_groups": 512,
}  # fmt: skip
"""Largest values of a configuration's whole numbers."""
MAX_LEVELS, MAX_MULTIPLE = 7, 16


@dataclass(frozen=True)
class VQGANConfig:
    """Sizes of a :class:`VQGAN`, under the names of the released ``model.yaml``; defaults are its values.

    Attributes:
        embed_dim: numbers in a code's vector.
        n_embed: codes in the book.
        z_channels: channels between encoder and quantiser.
        resolution: side in pixels of the pictures for which ``attn_resolutions`` is meant; others work too.
        ch: channels of the first level.
        ch_mult: channels of every level in multiples of ``ch``; each level but the last halves height and width.
        num_res_blocks: residual blocks of a level of the encoder; the decoder has one more.
        attn_resolutions: sides of the levels with attention, which the middle always has.
        dropout: probability inside residual blocks.
        num_groups: most groups of a normalisation; layers whose channels it does not divide take the greatest common
            divisor.

    Raises:
        ConfigError: a value is of a wrong type or outside its limits.
    """

    embed_dim: int = 256
    n_embed: int = 8192
    z_channels: int = 256
    resolution: int = 256
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (32,)
    dropout: float = 0.0
    num_groups: int = 32

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            if not _whole(getattr(self, name), limit):
                raise ConfigError(f"{name} must be a whole number from 1 to {limit}")
        _check_list("ch_mult", self.ch_mult, (1, MAX_LEVELS), MAX_MULTIPLE)
        _check_list("attn_resolutions", self.attn_resolutions, (0, MAX_LEVELS), LIMITS["resolution"])
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ConfigError("dropout must be a number from 0 to less than 1")
        if self.resolution % self.factor:
            raise ConfigError(f"resolution {self.resolution} must be a multiple of {self.factor}, a code's side")

    @property
    def factor(self) -> int:
        """Pixels that a code spans along a side."""
        return 2 ** (len(self.ch_mult) - 1)

    @property
    def widths(self) -> list[int]:
        """Channels of every level."""
        return [self.ch * multiple for multiple in self.ch_mult]

    def attends(self, level: int) -> bool:
        """Whether a level has attention."""
        return self.resolution >> level in self.attn_resolutions


def _whole(value: object, limit: int) -> bool:
    return type(value) is int and 1 <= value <= limit


def _check_list(name: str, values: object, lengths: tuple[int, int], limit: int) -> None:
    fewest, most = lengths
    if type(values) is not tuple or not fewest <= len(values) <= most or not all(_whole(v, limit) for v in values):
        raise ConfigError(f"{name} must be {fewest} to {most} whole numbers from 1 to {limit}")


class Encoder(nn.Module):
    """B x 3 x H x W pictures to B x z_channels x h x w."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths, last = config.widths, len(config.ch_mult) - 1
        self.conv_in = _conv3(CHANNELS, config.ch)
        self.down = nn.ModuleList(
            DownLevel([before, *[width] * config.num_res_blocks], config.attends(level), level < last, config)
            for level, (before, width) in enumerate(pairwise([config.ch, *widths]))
        )
        self.mid = Middle(widths[-1], config)
        self.norm_out = _norm(widths[-1], config)
        self.conv_out = _conv3(widths[-1], config.z_channels)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.conv_in(pictures)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """B x z_channels x h x w to B x 3 x H x W pictures; ``up.0`` is the level of full size, which comes last."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = _conv3(config.z_channels, widths[-1])
        self.mid = Middle(widths[-1], config)
        self.up = nn.ModuleList(
            UpLevel([before, *[width] * (config.num_res_blocks + 1)], config.attends(level), level > 0, config)
            for level, (width, before) in enumerate(pairwise([*widths, widths[-1]]))
        )
        self.norm_out = _norm(widths[0], config)
        self.conv_out = _conv3(widths[0], CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class _Blocks(nn.Module):
    """Residual blocks of one size of the picture, each followed by attention if the level has it."""

    def __init__(self, widths: Sequence[int], attends: bool, config: VQGANConfig) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(before, after, config) for before, after in pairwise(widths))
        self.attn = nn.ModuleList(PlaceAttention(after, config) for after in widths[1:] if attends)

    def forward(self, x: Tensor) -> Tensor:
        for place, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[place](x)
        return x


class DownLevel(_Blocks):
    """A level of the encoder; ``shrinks``: it halves height and width at its end."""

    def __init__(self, widths: Sequence[int], attends: bool, shrinks: bool, config: VQGANConfig) -> None:
        super().__init__(widths, attends, config)
        self.downsample = Downsample(widths[-1]) if shrinks else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to B x C' x H/2 x W/2, or H x W at the last level."""
        return self.downsample(super().forward(x))


class UpLevel(_Blocks):
    """A level of the decoder; ``grows``: it doubles height and width at its end."""

    def __init__(self, widths: Sequence[int], attends: bool, grows: bool, config: VQGANConfig) -> None:
        super().__init__(widths, attends, config)
        self.upsample = Upsample(widths[-1]) if grows else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to B x C' x 2H x 2W, or H x W at the level of full size."""
        return self.upsample(super().forward(x))


class Middle(nn.Module):
    """What lies between the levels and the codes: two residual blocks around attention."""

    def __init__(self, width: int, config: VQGANConfig) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(width, width, config)
        self.attn_1 = PlaceAttention(width, config)
        self.block_2 = ResidualBlock(width, width, config)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x h x w to the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class ResidualBlock(nn.Module):
    """Two convolutions, each after normalisation and swish, added to the input."""

    def __init__(self, before: int, after: int, config: VQGANConfig) -> None:
        super().__init__()
        self.norm1 = _norm(before, config)
        self.conv1 = _conv3(before, after)
        self.norm2 = _norm(after, config)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = _conv3(after, after)
        self.nin_shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to B x C' x H x W."""
        inner = self.conv1(F.silu(self.norm1(x)))
        inner = self.conv2(self.dropout(F.silu(self.norm2(inner))))
        return self.nin_shortcut(x) + inner


class PlaceAttention(nn.Module):
    """Attention of every place of a picture to all places, with one head, added to the input."""

    def __init__(self, width: int, config: VQGANConfig) -> None:
        super().__init__()
        self.norm = _norm(width, config)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to the same shape."""
        normed = self.norm(x)
        q, k, v = (part(normed).flatten(2).transpose(1, 2)[:, None] for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.proj_out(mixed.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halves height and width by a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to B x C x H/2 x W/2."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # released weights expect zeros at the right and the bottom only


class Upsample(nn.Module):
    """Doubles height and width by repetition and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to B x C x 2H x 2W."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _conv3(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


def _norm(width: int, config: VQGANConfig) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(config.num_groups, width), width, eps=EPSILON)
