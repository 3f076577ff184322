"""Opening sound files: every kind is read, and what cannot be used is refused with its place."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_sounds import RATES, loudest_hertz, made_film, noise, tone, written

from unival_plugin.data.audio import AudioLimits, SoundOptions, fit_length, read_clip, read_waveform
from unival_plugin.errors import DataError

pytest.importorskip("soundfile")

WHERE = "rows.tsv:row 3, column 5"
FORMATS = [
    ("wav", "PCM_U8"),
    ("wav", "PCM_16"),
    ("wav", "PCM_24"),
    ("wav", "PCM_32"),
    ("wav", "FLOAT"),
    ("wav", "DOUBLE"),
    ("flac", "PCM_16"),
    ("flac", "PCM_24"),
    ("ogg", "VORBIS"),
    ("mp3", "MPEG_LAYER_III"),
    ("aiff", "PCM_16"),
]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("suffix", "subtype"), FORMATS)
def test_formats_and_bit_depths_are_read(suffix: str, subtype: str, channels: int, tmp_path: Path) -> None:
    samples = np.stack([tone(44100)] * channels, axis=1)
    wave = read_waveform(written(tmp_path / f"sound.{suffix}", samples, 44100, subtype), WHERE)
    assert wave.dtype == torch.float32
    assert 24000 <= len(wave) <= 24000 + (4000 if suffix == "mp3" else 0)  # MP3 fills up its last frame
    assert loudest_hertz(wave) == pytest.approx(440, abs=2)
    assert wave[2000:-6000].abs().max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_other_sample_rates_are_converted(suffix: str, rate: int, tmp_path: Path) -> None:
    wave = read_waveform(written(tmp_path / f"sound.{suffix}", tone(rate), rate), WHERE)
    assert abs(len(wave) - 24000) <= 6
    assert loudest_hertz(wave) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_mp3_at_its_sample_rates(rate: int, tmp_path: Path) -> None:
    wave = read_waveform(written(tmp_path / "sound.mp3", tone(rate, 1.0), rate), WHERE)
    assert loudest_hertz(wave[:48000]) == pytest.approx(440, abs=2)


def refused(path: Path, **limits: Any) -> str:
    """Message about a file that cannot be used; also says that it names the place and stays on one line."""
    with pytest.raises(DataError) as caught:
        read_clip(path, WHERE, limits=AudioLimits(**limits))
    message = str(caught.value)
    assert message.startswith(f"{WHERE}: {path} ")
    assert "\n" not in message
    assert ": " in message.removeprefix(f"{WHERE}: {path}")  # what to do
    return message


def without_samples(path: Path) -> None:
    written(path, np.zeros(0))


def with_nan(path: Path) -> None:
    written(path, np.array([0.1, np.nan, 0.2]), subtype="FLOAT")


def with_infinity(path: Path) -> None:
    written(path, np.array([0.1, np.inf, 0.2]), subtype="DOUBLE")


def half(path: Path) -> None:
    half_of(written(path, noise(48000)))


def half_of(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribbled(path: Path) -> None:
    written(path, noise(48000))
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)


BAD_FILES = {
    "nothing": ("sound.wav", lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
    "header only": ("sound.wav", without_samples, "has a header but no samples"),
    "header only, aiff": ("sound.aiff", without_samples, "has a header but no samples"),
    "nan": ("sound.wav", with_nan, "holds NaN or infinite samples"),
    "infinity": ("sound.wav", with_infinity, "holds NaN or infinite samples"),
    "half a wav": ("sound.wav", half, "is truncated, at least 48022 bytes are missing"),
    "half an aiff": ("sound.aiff", half, "is truncated, at least"),
    "half an ogg": ("sound.ogg", half, "is truncated, at least"),
    "half an mp3": ("sound.mp3", half, r"is truncated, it ends after \d+ of 48000 samples"),
    "half a flac": ("sound.flac", half, "is (truncated|damaged)"),
    "scribbled flac": ("sound.flac", scribbled, "is (truncated|damaged)"),
    "text": ("sound.wav", lambda path: path.write_text("a dog barks\n" * 100), "is no known sound"),
    "text, raw": ("sound.raw", lambda path: path.write_text("a dog barks\n" * 100), "is no known sound"),
    "missing": ("sound.wav", lambda path: None, r"cannot be read \(No such file or directory\): correct the path"),
    "folder": ("sound.wav", lambda path: path.mkdir(), "is no file"),
    "slow": ("sound.wav", lambda path: written(path, noise(100), 500), "has 500 Hz, allowed are 1000 to 768000"),
    "odd rate": ("sound.wav", lambda path: written(path, noise(100), 47999), "has 47999 Hz, too odd a ratio to 48000"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    file, make, message = BAD_FILES[name]
    make(tmp_path / file)
    got = refused(tmp_path / file)
    assert re.search(message, got), got


def test_three_hours_are_refused_from_the_header(tmp_path: Path) -> None:
    path, samples = tmp_path / "sound.wav", 3 * 3600 * 8000
    sizes = struct.pack("<I", samples + 36), struct.pack("<I", samples)
    with path.open("wb") as file:
        file.write(b"RIFF" + sizes[0] + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8))
        file.write(b"data" + sizes[1])
        file.truncate(44 + samples)  # a hole: nothing is written, and nothing must be read
    assert "plays for 10800 seconds, allowed are 3600" in refused(path)


def test_limits_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "sound.flac", noise(48000, 2))
    assert "2 channels, allowed are 1" in refused(path, max_channels=1)
    assert "plays for 1 seconds, allowed are 0.5" in refused(path, max_seconds=0.5)
    assert "bytes, allowed are 1000" in refused(path, max_bytes=1000)


def test_a_wav_file_of_unknown_length_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "sound.wav", noise(4800))
    whole, data = read_waveform(path, WHERE), bytearray(path.read_bytes())
    place = data.index(b"data")
    data[4:8] = data[place + 4 : place + 8] = b"\xff" * 4  # what programs leave there that write into a pipe
    path.write_bytes(data)
    assert torch.equal(read_waveform(path, WHERE), whole)


def test_without_pyav_unknown_formats_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "sound.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    assert "films and M4A need PyAV" in refused(tmp_path / "sound.m4a")


@pytest.mark.parametrize(("name", "picture"), [("sound.m4a", False), ("film.mp4", True), ("film.mkv", True)])
def test_sound_tracks_are_read(name: str, picture: bool, tmp_path: Path) -> None:
    wave = read_waveform(made_film(tmp_path / name, picture=picture), WHERE)
    assert abs(len(wave) - 48000) < 5000  # AAC works in frames of 1024 samples
    assert loudest_hertz(wave) == pytest.approx(440, abs=2)
    assert wave[5000:-5000].abs().max() == pytest.approx(0.5, abs=0.05)


def test_clips_of_sound_tracks_are_cut_from_the_whole(tmp_path: Path) -> None:
    path = made_film(tmp_path / "sound.m4a", seconds=2)
    options = SoundOptions(length=20000)
    cut = fit_length(read_waveform(path, WHERE, options), 20000, rng=np.random.default_rng(1))
    torch.testing.assert_close(read_clip(path, WHERE, options, np.random.default_rng(1)), cut, rtol=0, atol=1e-4)


def test_a_film_without_sound_is_refused(tmp_path: Path) -> None:
    path = made_film(tmp_path / "film.mp4", sound=False, picture=True)
    assert "has no sound track" in refused(path)


def test_limits_hold_for_sound_tracks(tmp_path: Path) -> None:
    path = made_film(tmp_path / "sound.m4a", seconds=2)
    assert "plays for 2 seconds, allowed are 1.5" in refused(path, max_seconds=1.5)
    assert "2 channels, allowed are 1" in refused(path, max_channels=1)


@pytest.mark.parametrize("suffix", ["m4a", "mka"])
def test_a_truncated_sound_track_is_refused(suffix: str, tmp_path: Path) -> None:
    path = made_film(tmp_path / f"sound.{suffix}", seconds=2)
    half_of(path)
    assert re.search("damaged|is truncated, it ends after", refused(path))


def test_a_flac_file_of_unknown_length_is_read(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = written(tmp_path / "sound.flac", tone(seconds=1))
    whole, data = read_waveform(path, WHERE), bytearray(path.read_bytes())
    data[21] &= 0xF0  # the number of samples: 36 bits of the first block
    data[22:26] = bytes(4)
    path.write_bytes(data)
    torch.testing.assert_close(read_waveform(path, WHERE), whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("playlist", ["#EXTM3U\n#EXTINF:1,\n{path}\n", "ffconcat version 1.0\nfile {path}\n"])
def test_files_that_name_other_files_are_refused(playlist: str, tmp_path: Path) -> None:
    other = made_film(tmp_path / "other.m4a")
    path = tmp_path / "sound.wav"
    path.write_text(playlist.format(path=other))
    assert "is no known sound" in refused(path)
