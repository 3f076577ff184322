"""The log-mel front end: its filters, its number format, and filters of other origin."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unival_plugin.errors import DataError
from unival_plugin.modules.logmel import (
    IMAG_KEY,
    MEL_KEY,
    N_FFT,
    REAL_KEY,
    LogMel,
    Spectrogram,
    dft_filters,
    hann_filters,
    mel_filters,
    translate_filters,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "unival_model" / "mel_matrices.npz"


class FrontEnd(nn.Module):
    """The two halves under the names that a sound trunk gives them."""

    def __init__(self, hop: int = 480, bands: int = 64) -> None:
        super().__init__()
        self.spectrogram_extractor = Spectrogram(hop)
        self.logmel_extractor = LogMel(bands)

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.logmel_extractor(self.spectrogram_extractor(waveforms))


def sound(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_constructed_filters_are_the_references() -> None:
    state = FrontEnd().state_dict()
    with np.load(GOLDEN) as golden:
        wanted = {name: golden[name] for name in ("conv_real", "conv_imag", "melW", "melW_sum")}
    got = {
        "conv_real": state[REAL_KEY][::64, 0, ::32],
        "conv_imag": state[IMAG_KEY][::64, 0, ::32],
        "melW": state[MEL_KEY][:330],
        "melW_sum": state[MEL_KEY].sum(0),
    }
    for name, tensor in got.items():
        np.testing.assert_allclose(tensor.numpy(), wanted[name], atol=1e-6, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("bands", [64, 128])
def test_mel_filters_equal_torchaudios(bands: int) -> None:
    functional = pytest.importorskip("torchaudio.functional")
    other = functional.melscale_fbanks(513, 50.0, 14000.0, bands, 48000, norm="slaney", mel_scale="slaney")
    torch.testing.assert_close(mel_filters(N_FFT, bands), other, atol=1e-6, rtol=1e-4)


def test_filters_are_parameters_that_are_not_trained() -> None:
    parameters = dict(FrontEnd().named_parameters())
    assert {name: tuple(p.shape) for name, p in parameters.items()} == {
        REAL_KEY: (513, 1, 1024),
        IMAG_KEY: (513, 1, 1024),
        MEL_KEY: (513, 64),
    }
    assert not any(p.requires_grad for p in parameters.values())


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(33, 500), hop=st.integers(1, 100))
def test_spectrogram_is_the_centred_short_time_fourier_transform(samples: int, hop: int) -> None:
    waveforms = sound(2, samples, seed=samples)
    power = Spectrogram(hop, n_fft=64)(waveforms)
    wanted = torch.stft(waveforms, 64, hop, window=torch.hann_window(64), return_complex=True).abs().square()
    assert power.shape == (2, samples // hop + 1, 33)
    torch.testing.assert_close(power, wanted.transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_log_mel_of_silence_is_minus_100_decibels() -> None:
    assert FrontEnd()(torch.zeros(1, 4800)).eq(-100).all()


def test_a_tone_is_loudest_in_the_band_around_its_frequency() -> None:
    tone = torch.sin(torch.arange(48000) * (2 * torch.pi * 1000 / 48000))[None]
    loudest = FrontEnd()(tone)[0].mean(0).argmax()
    assert mel_filters(N_FFT, 64)[:, loudest].argmax().item() == pytest.approx(1000 / (48000 / N_FFT), abs=1)


def test_bins_without_a_filter_may_be_left_out() -> None:
    front = FrontEnd()
    bins = front.logmel_extractor.bins()
    power = front.spectrogram_extractor(sound(2, 9600), bins)
    assert power.shape[2] == bins.stop - bins.start < 300
    torch.testing.assert_close(front.logmel_extractor(power, bins), front(sound(2, 9600)), atol=1e-4, rtol=1e-5)


def test_all_bins_count_when_no_filter_looks_at_any() -> None:
    front = LogMel(64)
    front.melW.zero_()
    assert front.bins() == slice(None)


@pytest.mark.parametrize(
    "cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.double, lambda m: m.to("cpu", torch.half)]
)
def test_casting_the_network_leaves_the_filters_in_full_precision(cast: object) -> None:
    network = nn.Sequential(FrontEnd(), nn.Linear(64, 2))
    before = {name: value.clone() for name, value in network[0].state_dict().items()}
    assert callable(cast)
    cast(network)
    assert network[1].weight.dtype != torch.float32
    for name, value in network[0].state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_the_front_end_moves_between_devices() -> None:
    assert {p.device.type for p in FrontEnd().to("meta", torch.half).parameters()} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_waveforms_of_low_precision_are_computed_in_float32(dtype: torch.dtype) -> None:
    waveforms = sound(1, 4800).to(dtype)
    out = FrontEnd()(waveforms)
    assert out.dtype == torch.float32
    assert torch.equal(out, FrontEnd()(waveforms.float()))


def test_autocast_does_not_lower_the_precision() -> None:
    front, waveforms = FrontEnd(), sound(1, 4800)
    with torch.autocast("cpu", torch.bfloat16):
        out = front(waveforms)
    assert out.dtype == torch.float32
    assert torch.equal(out, front(waveforms))


def test_loaded_filters_are_used_and_recompute_brings_back_the_constructed_ones() -> None:
    front, waveforms = FrontEnd(), sound(1, 4800)
    constructed = front(waveforms)
    front.load_state_dict({name: 2 * value for name, value in front.state_dict().items()})
    torch.testing.assert_close(front(waveforms), constructed + 10 * np.log10(8))  # 2 * 2**2
    front.spectrogram_extractor.recompute()
    front.logmel_extractor.recompute()
    assert torch.equal(front(waveforms), constructed)


@pytest.mark.parametrize("samples", [0, 1, 512])
def test_short_waveforms_are_refused(samples: int) -> None:
    with pytest.raises(DataError, match=f"{samples} samples is too short: the spectrogram needs at least 513"):
        Spectrogram(480)(torch.zeros(2, samples))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    waveforms = sound(3, 4800)
    waveforms[1, 17] = value
    with pytest.raises(DataError, match="sound 1 of the batch holds NaN or infinite"):
        Spectrogram(480)(waveforms)


@pytest.mark.parametrize(
    "waveforms", [torch.zeros(4800), torch.zeros(1, 1, 4800), torch.zeros(1, 4800, dtype=torch.int16)]
)
def test_only_batches_of_float_waveforms_are_taken(waveforms: Tensor) -> None:
    with pytest.raises(DataError, match="waveforms must be floats, batch x samples"):
        Spectrogram(480)(waveforms)


def own(prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: value for name, value in FrontEnd().state_dict().items()}


def test_a_fitting_state_is_left_alone() -> None:
    state = {name: 3 * value for name, value in own("trunk.").items()}
    before = dict(state)
    assert translate_filters(state, "trunk.", own("trunk.")) == []
    assert state == before


def test_nothing_happens_without_a_front_end() -> None:
    state: dict[str, Tensor] = {"trunk.mel_scale.fb": torch.zeros(3, 2)}
    assert translate_filters(state, "trunk.", {}) == []
    assert list(state) == ["trunk.mel_scale.fb"]


@pytest.mark.parametrize(
    "names", [("mel.spectrogram.window", "mel.mel_scale.fb"), ("spectrogram_extractor.window", "logmel_extractor.fb")]
)
def test_torchaudios_names_are_translated(names: tuple[str, str]) -> None:
    window, filters = torch.hamming_window(1024), torch.rand(513, 64)
    state = {f"trunk.{names[0]}": window, f"trunk.{names[1]}": filters, "other.window": window}
    assert translate_filters(state, "trunk.", own("trunk.")) == []
    real, imag = dft_filters(window)
    assert torch.equal(state.pop("other.window"), window)
    assert torch.equal(state.pop("trunk." + REAL_KEY), real)
    assert torch.equal(state.pop("trunk." + IMAG_KEY), imag)
    assert torch.equal(state.pop("trunk." + MEL_KEY), filters)
    assert not state


def test_translated_filters_give_torchaudios_mel_spectrogram() -> None:
    transforms = pytest.importorskip("torchaudio.transforms")
    other = transforms.MelSpectrogram(32000, 1024, hop_length=480, f_min=50.0, f_max=14000.0, n_mels=64)
    state = other.state_dict()
    translate_filters(state, "", own())
    front = FrontEnd()
    front.load_state_dict(state, strict=True)
    wanted = 10 * other(sound(2, 9600)).clamp(min=1e-10).log10().transpose(1, 2)
    torch.testing.assert_close(front(sound(2, 9600)), wanted, atol=1e-3, rtol=1e-4)


def test_torchaudios_names_beside_ours_stay_for_strict_loading_to_refuse() -> None:
    state = {**own(), "mel_scale.fb": torch.rand(513, 64)}
    assert translate_filters(state, "", own()) == []
    assert "mel_scale.fb" in state


def test_filters_of_other_sizes_are_computed_anew_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    state = {REAL_KEY: torch.zeros(257, 1, 512), IMAG_KEY: torch.zeros(257, 1, 512), MEL_KEY: torch.zeros(257, 80)}
    with caplog.at_level(logging.WARNING):
        assert translate_filters(state, "", own()) == [REAL_KEY, IMAG_KEY, MEL_KEY]
    assert len(caplog.records) == 1
    assert f"{REAL_KEY} (257, 1, 512) instead of (513, 1, 1024)" in caplog.text
    assert f"{MEL_KEY} (257, 80) instead of (513, 64)" in caplog.text
    assert all(torch.equal(state[name], value) for name, value in own().items())


def test_only_what_does_not_fit_is_computed_anew(caplog: pytest.LogCaptureFixture) -> None:
    window = torch.hann_window(400)
    state = {"m.spectrogram.window": window, "m.mel_scale.fb": torch.ones(513, 64)}
    assert translate_filters(state, "", own()) == [REAL_KEY, IMAG_KEY]
    assert "(400,) instead of (513, 1, 1024)" in caplog.text
    assert torch.equal(state[REAL_KEY], hann_filters()[0])
    assert state[MEL_KEY].eq(1).all()
