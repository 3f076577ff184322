"""Sounds: files of all kinds become mono waveforms of a fixed length, and what cannot be used is refused."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sounds import RATES, noise, tone, written
from torch import Tensor

from unival_plugin.data import audio
from unival_plugin.data.audio import (
    SoundOptions,
    fit_length,
    read_clip,
    read_waveform,
    through_int16,
)
from unival_plugin.errors import ConfigError, DataError
from unival_plugin.modules import logmel

pytest.importorskip("soundfile")

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "unival_tasks"
WHERE = "rows.tsv:row 3, column 5"
STEP = 1 / 32767
PLAIN = SoundOptions(int16=False)


def resampled(samples: np.ndarray, rate: int) -> Tensor:
    transforms = pytest.importorskip("torchaudio.transforms")
    return transforms.Resample(rate, 48000)(torch.from_numpy(samples).float())


class GlobalNumbers:
    """numpy's global generator, which the references were drawn from."""

    def __init__(self, seed: int) -> None:
        self.state = np.random.RandomState(seed)

    def integers(self, low: int, high: int) -> int:
        return int(self.state.randint(low, high))


GOLDEN_CASES = {
    "short_repeatpad": ("repeatpad", None),
    "short_pad": ("pad", None),
    "short_repeat": ("repeat", None),
    "equal": ("repeatpad", None),
    "long_seed0": ("repeatpad", 0),
    "long_seed7": ("repeatpad", 7),
}


@pytest.fixture(scope="module")
def golden_waves() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "audio_wave.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_lengths_are_fitted_as_in_the_reference(golden_waves: dict[str, np.ndarray], name: str) -> None:
    fill, seed = GOLDEN_CASES[name]
    wave = torch.from_numpy(through_int16(golden_waves[f"in_{name}"]))
    rng: Any = None if seed is None else GlobalNumbers(seed)
    got = fit_length(wave, 4800, fill, rng)
    np.testing.assert_allclose(got.numpy(), golden_waves[f"wave_{name}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_files_become_the_waveforms_of_the_reference(
    golden_waves: dict[str, np.ndarray], name: str, tmp_path: Path
) -> None:
    fill, seed = GOLDEN_CASES[name]
    path = written(tmp_path / "sound.wav", golden_waves[f"in_{name}"], subtype="FLOAT")
    rng: Any = None if seed is None else GlobalNumbers(seed)
    got = read_clip(path, WHERE, SoundOptions(length=4800, fill=fill), rng)
    # the references' samples were rounded to float32 before they were multiplied, a file's are not: one step of 16 bits
    np.testing.assert_allclose(got.numpy(), golden_waves[f"wave_{name}"], rtol=0, atol=1.01 * STEP)


def test_16_bit_rounding_is_the_references(golden_waves: dict[str, np.ndarray]) -> None:
    got = through_int16(golden_waves["quant_in"])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(np.rint(got * 32767), golden_waves["quant_int16"])
    np.testing.assert_allclose(got, golden_waves["quant_out"], rtol=0, atol=1e-6)


def test_waveforms_of_files_have_the_references_log_mel(tmp_path: Path) -> None:
    with np.load(GOLDEN / "audio_mel.npz") as file:
        golden = dict(file)
    paths = [written(tmp_path / f"{i}.wav", wave, subtype="FLOAT") for i, wave in enumerate(golden["wave"])]
    waves = torch.stack([read_waveform(path, WHERE, PLAIN) for path in paths])
    power = logmel.Spectrogram(480)(waves)
    bands = logmel.LogMel(64)
    np.testing.assert_allclose(power[..., :64], golden["power_spec"][:, 0], rtol=1e-3, atol=1e-3)
    decibels, wanted = bands(power).numpy(), golden["logmel"][:, 0]
    loud = wanted > -50  # 80 dB below the tone's peak both sides are rounding errors of float32
    np.testing.assert_allclose(decibels[loud], wanted[loud], rtol=0, atol=1e-3)
    np.testing.assert_allclose(decibels, wanted, rtol=0, atol=0.03)
    np.testing.assert_allclose(bands.melW.sum(0), golden["melW_sum"], rtol=1e-4, atol=1e-6)


def test_the_sample_rate_is_the_one_of_the_networks_front_end() -> None:
    assert SoundOptions().sample_rate == logmel.SAMPLE_RATE


def test_another_rate_is_mixed_resampled_clipped_and_rounded_in_this_order(tmp_path: Path) -> None:
    samples = 2.5 * noise(4410, 2)
    wanted = through_int16(resampled(samples.mean(axis=1), 44100).numpy())
    got = read_waveform(written(tmp_path / "sound.wav", samples, 44100, "DOUBLE"), WHERE)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=1.01 * STEP)
    assert got.abs().max() == 1


def test_the_originals_way_without_a_sample_rate_takes_samples_as_they_are(tmp_path: Path) -> None:
    samples = 2 * noise(4410, 2)
    path = written(tmp_path / "sound.wav", samples, 44100, "DOUBLE")
    got = read_waveform(path, WHERE, SoundOptions(sample_rate=None))
    steps = (np.clip(samples.mean(axis=1), -1, 1) * 32767.0).astype(np.int16)
    np.testing.assert_array_equal(got.numpy(), (steps / 32767.0).astype(np.float32))


def test_the_originals_way_with_a_sample_rate_resamples_the_first_channel_only(tmp_path: Path) -> None:
    samples = 2.5 * noise(4410, 2)
    path = written(tmp_path / "sound.wav", samples, 44100, "FLOAT")
    got = read_waveform(path, WHERE, SoundOptions(channels="first", int16=False))
    torch.testing.assert_close(got, resampled(samples[:, 0], 44100), rtol=0, atol=1e-6)
    assert got.abs().max() > 1


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_files_at_48_khz_are_the_same_in_the_originals_way_and_ours(subtype: str, tmp_path: Path) -> None:
    path = written(tmp_path / "sound.wav", noise(4800, 2), subtype=subtype)
    assert torch.equal(read_waveform(path, WHERE), read_waveform(path, WHERE, SoundOptions(sample_rate=None)))


def test_long_files_are_resampled_in_pieces_without_seams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = noise(9000)
    path = written(tmp_path / "sound.wav", samples, 22050, "DOUBLE")
    monkeypatch.setattr(audio, "_PIECE", 1000)
    got = read_waveform(path, WHERE, PLAIN)
    torch.testing.assert_close(got, resampled(samples, 22050), rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from(RATES),
    wanted=st.sampled_from([16000, 48000]),
    frames=st.integers(1, 4000),
    length=st.integers(1, 3000),
    seed=st.one_of(st.none(), st.integers(0, 9)),
)
def test_a_clip_equals_the_cut_of_the_whole(
    rate: int, wanted: int, frames: int, length: int, seed: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.mktemp("clips") / "sound.wav", noise(frames, seed=frames), rate, "FLOAT")
    options = SoundOptions(length=length, sample_rate=wanted)
    clip = read_clip(path, WHERE, options, None if seed is None else np.random.default_rng(seed))
    whole = read_waveform(path, WHERE, options)
    assert len(whole) == math.ceil(frames * wanted / rate)
    cut = fit_length(whole, length, options.fill, None if seed is None else np.random.default_rng(seed))
    torch.testing.assert_close(clip, cut, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_compressed_files_are_cut_at_the_same_place(suffix: str, rate: int, tmp_path: Path) -> None:
    path = written(tmp_path / f"sound.{suffix}", noise(6 * rate, 2), rate)
    options = SoundOptions(length=48000)
    for seed in range(5):
        clip = read_clip(path, WHERE, options, np.random.default_rng(seed))
        cut = fit_length(read_waveform(path, WHERE, options), 48000, rng=np.random.default_rng(seed))
        torch.testing.assert_close(clip, cut, rtol=0, atol=1e-4)


def test_what_lies_outside_the_clip_is_not_read(tmp_path: Path) -> None:
    samples = tone(44100, 5)
    samples[[0, -1]] = np.nan
    path = written(tmp_path / "sound.wav", samples, 44100, "FLOAT")
    assert read_clip(path, WHERE, SoundOptions(length=48000)).isfinite().all()
    with pytest.raises(DataError, match="NaN"):
        read_waveform(path, WHERE)


def test_without_a_generator_the_middle_is_kept() -> None:
    wave = torch.arange(11.0)
    assert fit_length(wave, 4).tolist() == [3, 4, 5, 6]
    assert torch.equal(fit_length(wave, 4), fit_length(wave, 4))


def test_random_cuts_reach_every_place() -> None:
    rng = np.random.default_rng(0)
    starts = {int(fit_length(torch.arange(7.0), 4, rng=rng)[0]) for _ in range(100)}
    assert starts == {0, 1, 2, 3}


@given(samples=st.integers(1, 50), length=st.integers(1, 120), fill=st.sampled_from(audio.FILLS))
def test_short_sounds_are_filled_up(samples: int, length: int, fill: str) -> None:
    wave = torch.arange(1.0, samples + 1)
    got = fit_length(wave, length, fill)
    assert len(got) == length
    if samples > length:
        return
    copies = {"pad": 1, "repeatpad": length // samples, "repeat": length / samples}[fill]
    filled = round(copies * samples)
    assert torch.equal(got[:filled], wave.repeat(length // samples + 1)[:filled])
    assert not got[filled:].any()


def test_an_empty_waveform_cannot_be_filled_up() -> None:
    with pytest.raises(DataError, match="without samples"):
        fit_length(torch.zeros(0), 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fill": "mirror"}, "fill 'mirror' of sounds is not known: choose from repeatpad, pad, repeat"),
        ({"channels": "left"}, "channels 'left' of sounds is not known: choose from mean, first"),
        ({"length": 0}, "a waveform of 0 samples"),
        ({"sample_rate": 1}, "a sample rate of 1 Hz"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SoundOptions(**options)


@pytest.mark.parametrize("package", ["soundfile", "torchaudio"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "sound.wav", noise(100), 12000)
    for name in (package, f"{package}.transforms"):
        monkeypatch.setitem(sys.modules, name, None)
    audio._resampler.cache_clear()
    with pytest.raises(ConfigError, match=rf"need {package}.*pip install 'unival-plugin\[audio\]'"):
        read_waveform(path, WHERE)
