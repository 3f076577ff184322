"""Sound files made for tests, in real formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

RATES = [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000]


def tone(rate: int = 48000, seconds: float = 0.5, hertz: float = 440.0, height: float = 0.5) -> np.ndarray:
    return height * np.sin(np.arange(round(rate * seconds)) * (2 * np.pi * hertz / rate))


def noise(frames: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(-0.5, 0.5, (frames, channels))
    return values[:, 0] if channels == 1 else values


def written(path: Path, samples: np.ndarray, rate: int = 48000, subtype: str | None = None) -> Path:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def loudest_hertz(wave: Tensor, rate: int = 48000) -> float:
    return float(torch.fft.rfft(wave).abs().argmax()) * rate / len(wave)


def made_film(path: Path, seconds: float = 1.0, sound: bool = True, picture: bool = False) -> Path:
    """A file made by PyAV, with a tone of 440 Hz at 44.1 kHz on two channels and black pictures."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p") if picture else None
        track = container.add_stream("aac", rate=44100, layout="stereo") if sound else None
        if pictures:
            for _ in range(round(10 * seconds)):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode(None))
        if track:
            samples = np.stack([tone(44100, seconds)] * 2).astype(np.float32)
            for start in range(0, samples.shape[1], 1024):
                part = np.ascontiguousarray(samples[:, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = 44100, start
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path
