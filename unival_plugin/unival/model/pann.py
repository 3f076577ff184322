"""The sound trunk: PANN's convolutional networks, from waveforms to features.

Q. Kong et al., "PANNs: Large-scale pretrained audio neural networks for audio pattern recognition", 2020; names and
the cut before the classifier as in UnIVAL, models/unival/encoders/pann.py.

Legend: B batch, N samples, F frames, M mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError, DataError
from ...modules.logmel import LogMel, Spectrogram, translate_filters

DROPOUT = 0.2
TIME_STRIPES, FREQUENCY_STRIPES = 2, 2
TIME_STRIPE_LIMIT, FREQUENCY_STRIPE_LIMIT = 64, 8
AUDIOSET_CLASSES = 527


@dataclass(frozen=True)
class PannSizes:
    """What tells the networks apart.

    ``widths``: channels of every block; ``kernel`` and ``convolutions`` of a block; ``pooled``: how many blocks end
    with a pooling by two; ``classifier``: whether the state dict holds the classifier, which nothing uses;
    ``augments``: whether training hides stripes (SpecAugment) and features (dropout).
    """

    widths: tuple[int, ...]
    kernel: int = 3
    convolutions: int = 2
    pooled: int = 5
    classifier: bool = False
    augments: bool = True


SIZES = {
    "cnn14": PannSizes((64, 128, 256, 512, 1024, 2048)),
    "cnn10": PannSizes((64, 128, 256, 512, 1024)),
    "cnn6": PannSizes((64, 128, 256, 512), kernel=5, convolutions=1, pooled=4, classifier=True),
    # ours, for sounds of a second or two, of which stripes of 64 frames would hide the most
    "tiny": PannSizes((16, 32, 64, 128), pooled=4, augments=False),
}


class ConvBlock(nn.Module):
    """One or two convolutions, each with batch norm and ReLU."""

    def __init__(self, incoming: int, outgoing: int, kernel: int, convolutions: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, outgoing, kernel, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(outgoing)
        self.twice = convolutions == 2
        if self.twice:
            self.conv2 = nn.Conv2d(outgoing, outgoing, kernel, padding=kernel // 2, bias=False)
            self.bn2 = nn.BatchNorm2d(outgoing)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: B x ``incoming`` x F x M; returns B x ``outgoing`` x F x M."""
        x = F.relu_(self.bn1(self.conv1(x)))
        return F.relu_(self.bn2(self.conv2(x))) if self.twice else x


def stripes(rows: int, length: int, count: int, limit: int, device: torch.device) -> Tensor:
    """Where stripes at random places cover a dimension (SpecAugment, Park et al. 2019).

    Returns:
        ``rows x length`` bool: in every row True under ``count`` stripes that are less than ``limit`` wide and may
        overlap. The numbers come from torch's generator of the device.
    """
    widths = torch.randint(limit, (rows, count, 1), device=device).clamp(max=length)
    starts = (torch.rand(rows, count, 1, device=device) * (length - widths)).floor()
    places = torch.arange(length, device=device)
    return ((places >= starts) & (places < starts + widths)).any(dim=1)


class Pann(nn.Module):
    """Log-mel front end and convolution blocks.

    Args:
        sizes: which network.
        mel_bins: mel bands M; at least 2 to the power of the poolings.
        hop_size: samples between two frames.

    Attributes:
        num_features: channels of the output.

    Raises:
        ConfigError: too few mel bands, or a hop that is not positive.
    """

    def __init__(self, sizes: PannSizes, mel_bins: int, hop_size: int) -> None:
        super().__init__()
        self.sizes, self.reduction, self.num_features = sizes, 2**sizes.pooled, sizes.widths[-1]
        if mel_bins < self.reduction or hop_size < 1:
            raise ConfigError(f"--mel-bins must be at least {self.reduction} and --hop-size at least 1")
        self.spectrogram_extractor = Spectrogram(hop_size)
        self.logmel_extractor = LogMel(mel_bins)
        self.bn0 = nn.BatchNorm1d(mel_bins)
        incoming = 1
        self.blocks: list[str] = []
        for number, width in enumerate(sizes.widths, start=1):
            self.blocks.append(f"conv_block{number}")
            self.add_module(self.blocks[-1], ConvBlock(incoming, width, sizes.kernel, sizes.convolutions))
            incoming = width
        if sizes.classifier:
            self.fc1 = nn.Linear(incoming, incoming)
            self.fc_audioset = nn.Linear(incoming, AUDIOSET_CLASSES)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def recompute(self) -> None:
        """Sets Fourier and mel filters back to the constructed 48 kHz ones."""
        self.spectrogram_extractor.recompute()
        self.logmel_extractor.recompute()

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Log-mel frames: B x N float to B x F x M float32, F = N // hop_size + 1.

        Raises:
            DataError: sounds that are too short, or samples that are NaN or infinite.
        """
        bins = self.logmel_extractor.bins()
        return self.logmel_extractor(self.spectrogram_extractor(waveforms, bins), bins)

    def forward_features(self, waveforms: Tensor) -> Tensor:
        """Features of sounds.

        Args:
            waveforms: B x N float, 48000 samples a second.

        Returns:
            B x ``num_features`` x F / r x M / r, rounded down at each pooling, in the number format of the
            convolutions; r is 32, for cnn6 and tiny 16.

        Raises:
            DataError: sounds that are too short, or samples that are NaN or infinite.
        """
        log_mel = self.log_mel(waveforms)
        if log_mel.shape[1] < self.reduction:
            needed = (self.reduction - 1) * self.spectrogram_extractor.hop_size
            raise DataError(
                f"a sound of {waveforms.shape[1]} samples is too short: the sound trunk needs at least {needed}; pad "
                "it with zeros"
            )
        x = log_mel.to(next(self.get_submodule(self.blocks[0]).parameters()).dtype)
        x = self.bn0(x.transpose(1, 2)).transpose(1, 2)
        if self.training and self.sizes.augments:
            x = x.masked_fill(self._augmentation(x), 0)
        x = x[:, None]
        for number, block in enumerate(self.blocks, start=1):
            x = self.get_submodule(block)(x)
            if number <= self.sizes.pooled:
                x = F.avg_pool2d(x, 2)
            if number < len(self.blocks):
                x = F.dropout(x, DROPOUT, self.training and self.sizes.augments)
        return x

    forward = forward_features

    def _augmentation(self, x: Tensor) -> Tensor:
        """Mask of what SpecAugment removes from every sample, for ``x`` B x F x M."""
        rows, frames, bands = x.shape
        times = stripes(rows, frames, TIME_STRIPES, TIME_STRIPE_LIMIT, x.device)
        frequencies = stripes(rows, bands, FREQUENCY_STRIPES, FREQUENCY_STRIPE_LIMIT, x.device)
        return times[:, :, None] | frequencies[:, None, :]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        translate_filters(state_dict, prefix, self.state_dict(prefix=prefix))
        super()._load_from_state_dict(state_dict, prefix, *args)
