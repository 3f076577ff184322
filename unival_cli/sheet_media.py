"""Films and sounds as pictures: four frames side by side, a spectrogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .light import light

SHOWN_FRAMES = 4
GAP = 2  # white pixels between frames
WINDOW, COLUMNS, BANDS = 2048, 160, 80  # samples of a spectrum; size of a spectrogram in pixels
LOWEST, HIGHEST = 50.0, 14_000.0  # Hz; bottom and top of a spectrogram, which ends at half the sampling rate anyway
RANGE = 70.0  # dB between white and black


def film_strip(path: str, folder: Path) -> Image.Image:
    """Four frames of a film, from the middle of each quarter, side by side.

    Raises ValueError for a file that is no film or not below the folder, or if the package av is not there to read it.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError("films need the package av: pip install av") from error

    file = str(light("data.picture_cells").path_below(path, path, folder))
    try:
        # The film is decoded twice, so that no more than the frames that are shown are ever in memory.
        with av.open(file) as container:
            count = sum(1 for _ in container.decode(video=0)) if container.streams.video else 0
        if count == 0:
            raise ValueError(f"{path} has no frames")
        wanted = middles(count)
        with av.open(file) as container:
            frames = {k: frame.to_image() for k, frame in enumerate(container.decode(video=0)) if k in wanted}
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} is no film that can be read ({error})") from error
    shown = [frames[k] for k in wanted]
    width, height = shown[0].size
    strip = Image.new("RGB", (len(shown) * (width + GAP) - GAP, height), "white")
    for k, frame in enumerate(shown):
        strip.paste(frame, (k * (width + GAP), 0))
    return strip


def middles(frames: int) -> list[int]:
    """Numbers of the frames in the middle of each quarter of a film; a film of one frame shows it four times."""
    edges = np.linspace(0, frames, SHOWN_FRAMES + 1).astype(int).tolist()
    return [(first + max(first, end - 1)) // 2 for first, end in zip(edges[:-1], edges[1:], strict=True)]


def spectrogram(path: str, folder: Path) -> Image.Image:
    """Loudness of a sound over time (to the right) and pitch (upwards, logarithmic); black is loud.

    Raises ValueError for a file that is no sound, or if the package soundfile is not there to read it.
    """
    try:
        import soundfile
    except ImportError as error:
        raise ValueError("sounds need the package soundfile: pip install soundfile") from error

    file = str(light("data.picture_cells").path_below(path, path, folder))
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is no sound that can be read ({error})") from error
    if not len(samples):
        raise ValueError(f"{path} is empty")
    power = _bands(_power(samples.mean(axis=1)), rate)
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    darkness = np.clip(1 + (decibels - decibels.max()) / RANGE, 0, 1)
    return Image.fromarray(np.rint(255 * (1 - darkness[::-1])).astype(np.uint8)).convert("RGB")


def _power(wave: np.ndarray) -> np.ndarray:
    """Power spectra (WINDOW // 2 + 1, COLUMNS) of windows spread over the wave."""
    wave = np.pad(wave, WINDOW // 2)
    starts = np.linspace(0, len(wave) - WINDOW, COLUMNS).astype(int)
    pieces = wave[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    return np.abs(np.fft.rfft(pieces, axis=1).T) ** 2


def _bands(power: np.ndarray, rate: int) -> np.ndarray:
    """Power (BANDS, COLUMNS) in bands that are equally wide on a logarithmic scale; narrow ones share a value."""
    edges = np.geomspace(LOWEST, min(HIGHEST, rate / 2), BANDS + 1) * WINDOW / rate
    firsts = np.rint(edges[:-1]).astype(int)
    ends = np.maximum(firsts + 1, np.rint(edges[1:]).astype(int))
    return np.stack([power[first:end].mean(axis=0) for first, end in zip(firsts, ends, strict=True)])
