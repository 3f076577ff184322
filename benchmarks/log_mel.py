"""How fast are log-mel frames made of waveforms and waveforms of sound files, and does memory stay the same?

Front end: ours against torchaudio's MelSpectrogram and torchlibrosa (where installed) with the same parameters, in
turns; the results must agree. Reading: a clip of 10 seconds at 48 kHz out of files of 10 seconds and of several
minutes, against reading and resampling the whole file and cutting afterwards. Memory: what the process holds while it
reads clip after clip. Files are made for the occasion. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    add_common_options,
    first_line,
    in_turns,
    ratio,
    report,
    report_machine,
    resident_bytes,
    spread,
    timed,
)
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_plugin.data.audio import SoundOptions, fit_length, read_clip, through_int16
from unival_plugin.modules.logmel import HIGHEST_HZ, LOWEST_HZ, N_FFT, SAMPLE_RATE, LogMel, Spectrogram

FrontEnd = Callable[[Tensor], Tensor]
CLIP = 10 * SAMPLE_RATE


class Ours(nn.Module):
    """The front end as the sound trunk calls it."""

    def __init__(self, hop: int, bands: int) -> None:
        super().__init__()
        self.spectrogram, self.bands = Spectrogram(hop), LogMel(bands)

    def forward(self, waves: Tensor) -> Tensor:
        bins = self.bands.bins()
        return self.bands(self.spectrogram(waves, bins), bins)


def torchaudios(hop: int, bands: int) -> FrontEnd:
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    mel = MelSpectrogram(
        SAMPLE_RATE,
        N_FFT,
        hop_length=hop,
        f_min=LOWEST_HZ,
        f_max=HIGHEST_HZ,
        n_mels=bands,
        norm="slaney",
        mel_scale="slaney",
    )
    decibels = AmplitudeToDB("power")
    return lambda waves: decibels(mel(waves)).transpose(1, 2)


def torchlibrosas(hop: int, bands: int) -> FrontEnd:
    from torchlibrosa.stft import LogmelFilterBank
    from torchlibrosa.stft import Spectrogram as Theirs

    spectrogram = Theirs(n_fft=N_FFT, hop_length=hop)
    log_mel = LogmelFilterBank(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=bands, fmin=LOWEST_HZ, fmax=HIGHEST_HZ, top_db=None)
    return lambda waves: log_mel(spectrogram(waves))[:, 0]


def front_ends(hop: int, bands: int) -> dict[str, FrontEnd]:
    """Ours and those of others that are installed; why another one is left out, a line says."""
    ways: dict[str, FrontEnd] = {"ours": Ours(hop, bands)}
    for name, make in (("torchaudio", torchaudios), ("torchlibrosa", torchlibrosas)):
        try:
            ways[name] = make(hop, bands)
        except ImportError as error:
            report(left_out=name, why=first_line(error))
    return ways


@torch.no_grad()
def measure_front_end(waves: Tensor, hop: int, bands: int, rounds: int, clock: str) -> None:
    ways = front_ends(hop, bands)
    wanted = ways["ours"](waves)
    differences = {name: (way(waves) - wanted).abs().max().item() for name, way in ways.items()}

    def once(way: FrontEnd) -> Callable[[], float]:
        return lambda: timed(lambda: way(waves), clock)

    seconds = in_turns(rounds, {name: once(way) for name, way in ways.items()})
    others = [name for name in ways if name != "ours"]
    report(
        question="front end",
        clips=len(waves),
        hop=hop,
        bands=bands,
        seconds={name: spread(values, 4) for name, values in seconds.items()},
        **{f"{name}_by_ours": ratio(seconds[name], seconds["ours"]) for name in others},
        largest_difference_dB={name: round(differences[name], 6) for name in others},
    )


def made_file(folder: Path, suffix: str, rate: int, seconds: int, seed: int) -> Path:
    """Stereo noise that fades in and out, so that compressed files have a natural size."""
    import soundfile

    path = folder / f"{suffix}_{rate}_{seconds}_{seed}.{suffix}"
    rng = np.random.default_rng(seed)
    with soundfile.SoundFile(path, "w", rate, 2) as file:
        for _ in range(seconds):
            file.write(rng.uniform(-0.3, 0.3, (rate, 2)) * np.hanning(rate)[:, None])
    return path


def whole_file(path: Path) -> Tensor:
    """Everything read, mixed, resampled and rounded before the middle is cut out."""
    import soundfile
    from torchaudio.transforms import Resample

    samples, rate = soundfile.read(path, always_2d=True)
    mono = torch.from_numpy(samples.mean(axis=1)).float()
    if rate != SAMPLE_RATE:
        mono = Resample(rate, SAMPLE_RATE)(mono)
    return fit_length(torch.from_numpy(through_int16(mono.numpy())), CLIP)


def measure_reading(path: Path, seconds: int, rate: int, rounds: int, clock: str) -> None:
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: read_clip(path, path.name, SoundOptions(length=CLIP)),
        "whole_file": lambda: whole_file(path),
    }
    difference = (ways["ours"]() - ways["whole_file"]()).abs().max().item()

    def once(way: Callable[[], Tensor]) -> Callable[[], float]:
        return lambda: timed(way, clock)

    taken = in_turns(rounds, {name: once(way) for name, way in ways.items()})
    report(
        question="reading",
        format=path.suffix[1:],
        file_seconds=seconds,
        rate=rate,
        milliseconds={name: spread((1000 * value for value in values), 2) for name, values in taken.items()},
        whole_file_by_ours=ratio(taken["whole_file"], taken["ours"]),
        largest_difference=round(difference, 6),
    )


def measure_memory(paths: list[Path], clips: int, seed: int) -> None:
    """Resident memory after a tenth of the clips and after all."""
    rng = np.random.default_rng(seed)
    early = 0
    for index in range(clips):
        read_clip(paths[index % len(paths)], paths[index % len(paths)].name, SoundOptions(length=CLIP), rng)
        if index == max(clips // 10, 1) - 1:
            early = held()
    late = held()
    report(
        question="memory",
        clips=clips,
        resident_MB={"after_a_tenth": round(early / 1e6, 1), "after_all": round(late / 1e6, 1)},
        growth=round(late / early, 3),
    )


def held() -> int:
    gc.collect()
    return resident_bytes("VmRSS")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=8, help="clips of 10 seconds that the front end gets at once")
    parser.add_argument("--hops", type=int, nargs="+", default=[480, 200], help="samples between two frames")
    parser.add_argument("--bands", type=int, default=64)
    parser.add_argument("--formats", nargs="+", default=["wav", "flac", "mp3", "ogg"])
    parser.add_argument("--file-seconds", type=int, nargs="+", default=[10, 300])
    parser.add_argument("--rates", type=int, nargs="+", default=[44100, 48000])
    parser.add_argument("--clips", type=int, default=2000, help="clips read for the memory; 0: leave it out")
    add_common_options(parser, rounds=5, reference=False)
    return parser.parse_args()


def main() -> None:
    args: Any = options()
    torch.set_num_threads(args.threads)
    report_machine(args.clock)
    waves = 0.1 * torch.randn(args.batch_size, CLIP, generator=torch.Generator().manual_seed(args.seed))
    for hop in args.hops:
        measure_front_end(waves, hop, args.bands, args.rounds, args.clock)
    with tempfile.TemporaryDirectory() as folder:
        shortest: list[Path] = []
        for suffix in args.formats:
            for seconds in args.file_seconds:
                for rate in args.rates:
                    path = made_file(Path(folder), suffix, rate, seconds, args.seed)
                    measure_reading(path, seconds, rate, args.rounds, args.clock)
                    shortest += [path] if seconds == min(args.file_seconds) else []
        if args.clips:
            measure_memory(shortest, args.clips, args.seed)


if __name__ == "__main__":
    main()
