"""Short sounds that a program makes: beeps, tones and noise, one or two in a row, over a little background noise.

Pitch, length, loudness, overtones, beginning and background are drawn anew for every sound, within classes that are far
apart; a sound has one right sentence.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from digits_language import pick
from digits_plan import MAX_ROWS, Numbered
from digits_scenes import NAMES

MEDIUM_NUMBER = 12  # keeps the randomness of sounds apart from that of pictures and films
RATE = 48_000  # samples a second
SECONDS = 1.0
PITCHES = {"low": (150.0, 300.0), "middle": (600.0, 1100.0), "high": (2300.0, 4500.0)}  # Hz
GLIDES = (250.0, 900.0), (2.5, 4.0)  # lower end in Hz and how many times higher the other end is
BEEP, GAP, TONE, NOISE = (0.07, 0.1), (0.06, 0.1), (0.28, 0.38), (0.22, 0.38)  # shortest and longest, in seconds
PAUSE = (0.1, 0.16)  # between two different things
EDGE = 0.01  # seconds before the first and after the last thing, at least
FADE = 0.008  # seconds in which a tone or noise swells and ebbs
LOUDNESS = (-18.0, -4.0)  # peak in dB of full scale
BACKGROUND = (-80.0, -60.0)  # its standard deviation in dB of full scale
PAIR_SHARE = 0.5
MOST_BEEPS = 4
# How often a lone thing is of each kind.
KIND_SHARES = {"beeps": 0.5, "tone": 0.2, "rising tone": 0.1, "falling tone": 0.1, "noise": 0.1}


@dataclass(frozen=True)
class Event:
    """One thing that is heard: ``count`` beeps, or a tone, a rising or falling tone, or noise.

    ``spans`` are the seconds in which each of them begins and ends.
    """

    kind: str
    pitch: str | None = None
    count: int = 1
    spans: tuple[tuple[float, float], ...] = ()

    @property
    def phrase(self) -> str:
        """``three high beeps``, ``a low tone``, ``a rising tone``, ``noise``."""
        if self.kind == "beeps":
            return f"a {self.pitch} beep" if self.count == 1 else f"{NAMES[self.count]} {self.pitch} beeps"
        if self.kind == "noise":
            return self.kind
        return f"a {self.pitch} tone" if self.pitch else f"a {self.kind}"


@dataclass(frozen=True)
class Sound(Numbered):
    """A sound and all that is known about it."""

    events: tuple[Event, ...]
    data: bytes = field(repr=False)  # the flac file

    @property
    def path(self) -> str:
        """Where the sound lies in the folder of the build: ``sounds/train_1/000123.flac``."""
        return f"sounds/{self.stem}/{self.row:06d}.flac"

    @property
    def caption(self) -> str:
        """The one right sentence: ``a low tone then noise``."""
        return " then ".join(event.phrase for event in self.events)


def sound_caption_row(sound: Sound) -> list[str]:
    """Columns id, sound id, caption, nothing, path: read with ``--selected-cols 0,4,2``."""
    return [str(sound.number), sound.name, sound.caption, "", sound.path]


# -------------------------------------------------------------------------------- making


@dataclass(frozen=True)
class SoundMaker:
    """Makes sound number ``row`` of a stream (= one output file); the same arguments always give the same bytes."""

    seed: int
    max_events: int = 2

    def make(self, split: str, stream: int, row: int) -> Sound:
        """Sound ``row`` of ``stream`` (1, 2, ...: one number per file)."""
        rng = np.random.default_rng([self.seed, stream, row, MEDIUM_NUMBER])
        pair = self.max_events > 1 and rng.random() < PAIR_SHARE
        events = _timed(rng, _pair(rng) if pair else [_lone(rng)])
        number = stream * MAX_ROWS + row
        return Sound(number, f"sound_{split}_{number}", split, events, encode_sound(_samples(rng, events)))


def _lone(rng: np.random.Generator) -> Event:
    kinds = list(KIND_SHARES)
    return _event(rng, kinds[int(rng.choice(len(kinds), p=list(KIND_SHARES.values())))], MOST_BEEPS)


def _event(rng: np.random.Generator, kind: str, most_beeps: int) -> Event:
    pitch = pick(rng, list(PITCHES)) if kind in ("beeps", "tone") else None
    return Event(kind, pitch, int(rng.integers(1, most_beeps + 1)) if kind == "beeps" else 1)


def _pair(rng: np.random.Generator) -> list[Event]:
    """Two different things; beeps of one pitch do not follow each other, they would be one group."""
    while True:
        first, second = (_event(rng, pick(rng, list(KIND_SHARES)), 2) for _ in range(2))
        if (first.kind, first.pitch) != (second.kind, second.pitch):
            return [first, second]


def _timed(rng: np.random.Generator, events: Sequence[Event]) -> tuple[Event, ...]:
    """The events with their spans, one after the other, somewhere in the sound."""
    timed: list[Event] = []
    now = 0.0
    for event in events:
        if timed:
            now += rng.uniform(*PAUSE)
        length = rng.uniform(*{"beeps": BEEP, "noise": NOISE}.get(event.kind, TONE))
        gap = rng.uniform(*GAP)
        spans = [(now + k * (length + gap), now + k * (length + gap) + length) for k in range(event.count)]
        timed.append(replace(event, spans=tuple(spans)))
        now = spans[-1][1]
    onset = rng.uniform(EDGE, SECONDS - EDGE - now)
    return tuple(replace(e, spans=tuple((onset + begin, onset + end) for begin, end in e.spans)) for e in timed)


def _samples(rng: np.random.Generator, events: Sequence[Event]) -> np.ndarray:
    """The waveform as int16."""
    level = 10 ** (rng.uniform(*BACKGROUND) / 20)
    wave = rng.normal(0, level, round(SECONDS * RATE))
    for event in events:
        loudness = 10 ** (rng.uniform(*LOUDNESS) / 20)
        pitch = _hertz(rng, event)
        overtones = rng.uniform(0, 0.2, 2)
        for begin, end in event.spans:
            first, last = round(begin * RATE), round(end * RATE)
            burst = _noise(rng, last - first) if event.kind == "noise" else _tone(pitch, overtones, last - first)
            wave[first:last] += loudness * burst * _swell(last - first)
    return np.rint(np.clip(wave, -1, 1) * 32767).astype(np.int16)


def _hertz(rng: np.random.Generator, event: Event) -> tuple[float, float]:
    """Frequencies at the beginning and the end."""
    if event.pitch is not None:
        low, high = PITCHES[event.pitch]
        steady = float(low * (high / low) ** rng.random())
        return steady, steady
    lower, times = (float(rng.uniform(*limits)) for limits in GLIDES)
    return (lower, lower * times) if event.kind == "rising tone" else (lower * times, lower)


def _tone(hertz: tuple[float, float], overtones: np.ndarray, samples: int) -> np.ndarray:
    """A tone, with two weaker overtones, that glides evenly in pitch; its peak is at most 1."""
    heights = hertz[0] * (hertz[1] / hertz[0]) ** (np.arange(samples) / samples)
    phase = 2 * np.pi * np.cumsum(heights) / RATE
    wave = np.sin(phase)
    for k, amount in enumerate(overtones, start=2):
        wave += amount * np.sin(k * phase)
    return wave / (1 + overtones.sum())


def _noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Uniform white noise: no frequency stands out and its peak is 1."""
    return rng.uniform(-1, 1, samples)


def _swell(samples: int) -> np.ndarray:
    """1, but for a short rise from 0 and a short fall to 0."""
    edge = np.minimum(np.arange(samples), np.arange(samples)[::-1]) / (FADE * RATE)
    return np.minimum(1, edge)


def encode_sound(samples: np.ndarray) -> bytes:
    """A flac file (mono, 48 kHz, 16 bits) of int16 samples. Raises ValueError without soundfile."""
    try:
        import soundfile
    except ImportError as error:
        raise ValueError("sounds need the package soundfile: pip install soundfile") from error

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
