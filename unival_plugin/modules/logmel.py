"""Log-mel front end: waveforms at 48 kHz to log-mel frames, in fp32 whatever the network's number format.

The filters are parameters under the names of the released sound networks, because a checkpoint may hold others than
those constructed here (PANNs are trained at 32 kHz, for instance): what is loaded is what is used.

Legend: B batch, N samples, F frames, K = n_fft // 2 + 1 frequency bins, M mel bands.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DataError

logger = logging.getLogger(__name__)

SAMPLE_RATE = 48000
N_FFT = 1024
LOWEST_HZ, HIGHEST_HZ = 50.0, 14000.0
SMALLEST_POWER = 1e-10

REAL_KEY = "spectrogram_extractor.stft.conv_real.weight"
IMAG_KEY = "spectrogram_extractor.stft.conv_imag.weight"
MEL_KEY = "logmel_extractor.melW"
FILTERS = ("spectrogram_extractor.", "logmel_extractor.")
"""What names of the constant filters begin with in a sound trunk."""

_LINEAR_HZ_PER_MEL = 200 / 3
_LOG_START_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27


def dft_filters(window: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts of the windowed Fourier transform, each K x 1 x n_fft float32.

    Args:
        window: n_fft values; n_fft is the frame's length too.
    """
    n_fft = len(window)
    frequency = torch.arange(n_fft // 2 + 1)[:, None]
    # the product is reduced before it becomes an angle, so that large ones lose no digits
    angle = (frequency * torch.arange(n_fft)[None, :] % n_fft).double() * (2 * math.pi / n_fft)
    weights = window.double()[None, :]
    return (angle.cos() * weights)[:, None].float(), (-angle.sin() * weights)[:, None].float()


def hann_filters(n_fft: int = N_FFT) -> tuple[Tensor, Tensor]:
    """:func:`dft_filters` of the periodic Hann window."""
    return dft_filters(torch.hann_window(n_fft, periodic=True, dtype=torch.float64))


def mel_filters(n_fft: int, bands: int) -> Tensor:
    """Triangular filters between 50 and 14000 Hz on the slaney mel scale, each of area 1: K x M float32.

    The scale is linear up to 1 kHz and logarithmic above (M. Slaney, "Auditory Toolbox", 1998), as in librosa.
    """
    lowest, highest = _mel(LOWEST_HZ), _mel(HIGHEST_HZ)
    edges = _hertz(torch.linspace(lowest, highest, bands + 2, dtype=torch.float64))
    bins = torch.linspace(0, SAMPLE_RATE / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (edges[2:] - edges[:-2])).float()


def _mel(hertz: float) -> float:
    if hertz < _LOG_START_HZ:
        return hertz / _LINEAR_HZ_PER_MEL
    return _LOG_START_HZ / _LINEAR_HZ_PER_MEL + math.log(hertz / _LOG_START_HZ) / _LOG_STEP


def _hertz(mel: Tensor) -> Tensor:
    start = _LOG_START_HZ / _LINEAR_HZ_PER_MEL
    return torch.where(mel < start, mel * _LINEAR_HZ_PER_MEL, _LOG_START_HZ * ((mel - start) * _LOG_STEP).exp())


class _Float32(nn.Module):
    """Parameters that move between devices but keep float32 when the network around them is cast."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def keep_format(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        return super()._apply(keep_format, recurse)


class _Filters(nn.Module):
    """A matrix that training leaves alone, under the key ``weight``."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)


class _Fourier(nn.Module):
    """The two parts of the transform under their released names."""

    def __init__(self, n_fft: int) -> None:
        super().__init__()
        real, imag = hann_filters(n_fft)
        self.conv_real, self.conv_imag = _Filters(real), _Filters(imag)


class Spectrogram(_Float32):
    """Power spectrogram by a windowed Fourier transform: centred frames, reflected at both ends.

    Args:
        hop_size: samples between two frames.
        n_fft: samples of a frame.
    """

    def __init__(self, hop_size: int, n_fft: int = N_FFT) -> None:
        super().__init__()
        self.hop_size, self.n_fft = hop_size, n_fft
        self.stft = _Fourier(n_fft)

    def recompute(self) -> None:
        """Sets the filters back to the constructed ones."""
        real, imag = hann_filters(self.n_fft)
        self.stft.conv_real.weight.data.copy_(real)
        self.stft.conv_imag.weight.data.copy_(imag)

    def forward(self, waveforms: Tensor, bins: slice = slice(None)) -> Tensor:
        """Power of every frame.

        Args:
            waveforms: B x N float of any format, N > n_fft // 2.
            bins: the frequency bins that are wanted.

        Returns:
            B x F x (number of bins) float32 with F = N // hop_size + 1.

        Raises:
            DataError: waveforms that are too short, or values that are NaN or infinite.
        """
        self._check(waveforms)
        with torch.autocast(waveforms.device.type, enabled=False):
            half = self.n_fft // 2
            padded = F.pad(waveforms.float(), (half, half), mode="reflect")
            frames = padded.unfold(1, self.n_fft, self.hop_size).contiguous()
            # products and not a convolution: nearly as fast on CPUs, and on GPUs cuDNN's convolution may round to TF32
            real = F.linear(frames, self.stft.conv_real.weight[bins, 0])
            imag = F.linear(frames, self.stft.conv_imag.weight[bins, 0])
            return torch.addcmul(real.square(), imag, imag)

    def _check(self, waveforms: Tensor) -> None:
        if waveforms.ndim != 2 or not waveforms.is_floating_point():
            raise DataError(
                f"waveforms must be floats, batch x samples, not {waveforms.dtype} of shape {tuple(waveforms.shape)}"
            )
        if waveforms.shape[1] <= self.n_fft // 2:
            raise DataError(
                f"a sound of {waveforms.shape[1]} samples is too short: the spectrogram needs at least "
                f"{self.n_fft // 2 + 1}; pad it with zeros"
            )
        finite = waveforms.isfinite().all(dim=1)
        if not bool(finite.all()):
            row = int(finite.logical_not().nonzero()[0])
            raise DataError(f"sound {row} of the batch holds NaN or infinite samples; check how its file was read")


class LogMel(_Float32):
    """Mel filter bank and decibels.

    Args:
        bands: number of mel bands M.
        n_fft: samples of a frame of the spectrogram.
    """

    def __init__(self, bands: int, n_fft: int = N_FFT) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.melW = nn.Parameter(mel_filters(n_fft, bands), requires_grad=False)

    def recompute(self) -> None:
        """Sets the filters back to the constructed ones."""
        self.melW.data.copy_(mel_filters(self.n_fft, self.melW.shape[1]))

    def bins(self) -> slice:
        """The frequency bins from the first to the last that any filter looks at.

        On a GPU these are all bins, because asking would make it wait.
        """
        if self.melW.device.type != "cpu":
            return slice(None)
        used = self.melW.any(dim=1).nonzero().flatten().tolist()
        return slice(used[0], used[-1] + 1) if used else slice(None)

    def forward(self, power: Tensor, bins: slice = slice(None)) -> Tensor:
        """Decibels of every mel band, at least -100.

        Args:
            power: B x F x (number of bins) float32.
            bins: the frequency bins that ``power`` holds.

        Returns:
            B x F x M float32.
        """
        with torch.autocast(power.device.type, enabled=False):
            return 10 * (power @ self.melW[bins]).clamp(min=SMALLEST_POWER).log10()


def translate_filters(state: MutableMapping[str, Any], prefix: str, own: Mapping[str, Tensor]) -> list[str]:
    """Makes the front end's filters in a state dict fit, in place.

    Torchaudio's names are translated: ``*.window`` (of the spectrogram) becomes the two Fourier matrices, ``*.fb`` (of
    the mel scale) the mel matrix. Filters of another shape than the network's, of another number of bands or frame
    length that is, are replaced by the constructed ones, with a warning. Everything else is left as it is, so that
    strict loading still reports what it does not know.

    Args:
        state: the state dict to change.
        prefix: what the sound trunk's keys begin with, with the dot at the end.
        own: the network's own state dict under the same prefix; only shapes are read. Nothing happens if it has no
            front end.

    Returns:
        Keys of the filters that were replaced by the constructed ones.
    """
    keys = [prefix + key for key in (REAL_KEY, IMAG_KEY, MEL_KEY)]
    if not all(key in own for key in keys):
        return []
    real, imag, mel = keys
    n_fft, bands = own[real].shape[-1], own[mel].shape[-1]
    _rename_torchaudio(state, prefix, n_fft)
    misfits = {key: tuple(state[key].shape) for key in keys if key in state and state[key].shape != own[key].shape}
    built: dict[str, Tensor] = {}
    if real in misfits or imag in misfits:
        built[real], built[imag] = hann_filters(n_fft)
    if mel in misfits:
        built[mel] = mel_filters(n_fft, bands)
    if built:
        shapes = ", ".join(f"{key} {shape} instead of {tuple(own[key].shape)}" for key, shape in misfits.items())
        logger.warning("filters of the sound trunk computed anew, those in the checkpoint do not fit: %s", shapes)
        state.update(built)
    return list(built)


def _rename_torchaudio(state: MutableMapping[str, Any], prefix: str, n_fft: int) -> None:
    """A window or matrix of another shape is renamed as it is."""
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.rpartition(".")[2]
        if name == "fb" and prefix + MEL_KEY not in state:
            state[prefix + MEL_KEY] = state.pop(key)
        elif name == "window" and prefix + REAL_KEY not in state and prefix + IMAG_KEY not in state:
            window = state.pop(key)
            parts = dft_filters(window) if window.shape == (n_fft,) else (window, window)
            state[prefix + REAL_KEY], state[prefix + IMAG_KEY] = parts
