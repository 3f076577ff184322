"""What the model benchmarks share: networks, inputs, and timing of several ways in turns.

Importing this file imports torch but neither fairseq nor the package, so that a foreign checkout can use it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

BOS, PAD, EOS = 0, 1, 2
FIRST_WORD = 4

RELEASED_FLAGS = {
    "scale_attn": True,
    "scale_fc": True,
    "scale_heads": True,
    "disable_entangle": True,
    "image_encoder_name": "timm_resnet",
}
"""What the released scripts pass on top of ``unival_base``; ``unival_tiny`` has its own."""

VOCABULARY = {"unival_base": 59457, "unival_large": 59457, "unival_tiny": 480}


def add_common_options(parser: argparse.ArgumentParser, rounds: int) -> None:
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=rounds, help="measured rounds; every way runs once a round")
    parser.add_argument(
        "--clock",
        choices=sorted(CLOCKS),
        default="wall",
        help="cpu: count the processor's seconds of all threads, for machines that do other work at the same time",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reference", metavar="DIR", help="an UnIVAL checkout to run beside ours, unchanged")
    parser.add_argument(
        "--reference-python",
        metavar="PYTHON",
        help="interpreter that has the packages the checkout imports (default: this one)",
    )


def build_model(arch: str, vocabulary: int, seed: int) -> Any:
    """Our network as a fairseq model, with made weights."""
    import unival_plugin  # noqa: F401  (mends fairseq first)
    from unival_plugin.unival.model.config import from_preset
    from unival_plugin.unival.model.registration import UnIVALModel

    flags = {} if arch == "unival_tiny" else RELEASED_FLAGS
    model = UnIVALModel(from_preset(arch, flags), vocabulary, PAD)
    fill(model, seed)
    return model


@torch.no_grad()
def fill(model: nn.Module, seed: int) -> None:
    """Random weights that keep the size of what flows through: the network behaves as if trained on something."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(dict(model.named_parameters()).items()):
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
        else:
            tensor.copy_(1 + 0.1 * noise if name.endswith(("weight", "c_attn")) else 0.02 * noise)
        if "layernorm_embedding" in name:  # tied embeddings would otherwise repeat the last token for ever
            tensor.mul_(0.2)


def picture_batch(seed: int, batch: int, size: int, source: int, target: int, vocabulary: int) -> dict[str, Tensor]:
    """Inputs of a batch: ``batch`` pictures of ``size`` x ``size`` pixels, texts without padding."""
    generator = torch.Generator().manual_seed(seed)

    def words(length: int) -> Tensor:
        text = torch.randint(FIRST_WORD, vocabulary, (batch, length), generator=generator)
        text[:, 0] = BOS
        return text

    return {
        "src_tokens": words(source),
        "src_lengths": torch.full((batch,), source),
        "prev_output_tokens": words(target),
        "patch_images": torch.randn(batch, 3, size, size, generator=generator),
        "patch_masks": torch.ones(batch, dtype=torch.bool),
    }


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def timed(work: Callable[[], object], clock: str = "wall") -> float:
    """Seconds of one call, the accelerator's queue included."""
    start = CLOCKS[clock]()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return CLOCKS[clock]() - start


def in_turns(rounds: int, ways: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Seconds of every way in every round; each way reports its own seconds, the first round is thrown away.

    The order turns round from one round to the next, so that no way always runs behind the same neighbour.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds + 1):
        for name in list(ways)[:: 1 if index % 2 else -1]:
            seconds[name].append(ways[name]())
    return {name: values[1:] for name, values in seconds.items()}


def spread(values: Iterable[float], digits: int = 3) -> dict[str, float]:
    """Median and extremes."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), digits),
        "min": round(ordered[0], digits),
        "max": round(ordered[-1], digits),
    }


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """How many times faster ``fast`` is, round by round: neighbours in time share the machine's other load."""
    return spread((a / b for a, b in zip(slow, fast, strict=True)), digits=2)


def report(**values: Any) -> None:
    """One JSON line."""
    print(json.dumps(values), flush=True)


def report_machine(clock: str, device: str = "cpu") -> None:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    report(machine=name, **versions, threads=torch.get_num_threads(), clock=clock)
