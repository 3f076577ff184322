"""What the model benchmarks share: networks, inputs, timing of several ways in turns, and memory.

Importing this file imports torch but neither fairseq nor the package, so that a foreign checkout can use it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
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

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What autocast computes in; None: no autocast."""

VOCABULARY = {"unival_base": 59457, "unival_large": 59457, "unival_tiny": 480}


def add_common_options(parser: argparse.ArgumentParser, rounds: int, reference: bool = True) -> None:
    """Adds what every benchmark understands; ``reference``: and the options of one that a checkout can run beside."""
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=rounds, help="measured rounds; every way runs once a round")
    parser.add_argument(
        "--clock",
        choices=sorted(CLOCKS),
        default="wall",
        help="cpu: count the processor's seconds of all threads, for machines that do other work at the same time",
    )
    parser.add_argument("--seed", type=int, default=1)
    if not reference:
        return
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
    wait_for_accelerator()
    start = CLOCKS[clock]()
    work()
    wait_for_accelerator()
    return CLOCKS[clock]() - start


def wait_for_accelerator() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


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


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` in a process that has the package's imports and has computed nothing yet.

    Linux's peak of resident memory never falls, so whatever ran before in the same process would count.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unival_plugin"])
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def resident_bytes(field: str = "VmHWM") -> int:
    """What this process holds in memory: at most so far (``VmHWM``) or now (``VmRSS``)."""
    # not getrusage's ru_maxrss: it starts at what the parent process holds
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024


def why_no_kernel(backend: str, device: str, dtype: torch.dtype | None) -> str | None:
    """Why an attention kernel of the package cannot run on the device, or None when it can."""
    from unival_plugin.errors import ConfigError
    from unival_plugin.modules.attention import BACKENDS

    tensor = torch.zeros(1, 1, 8, 64, device=device, dtype=dtype)
    try:
        BACKENDS[backend](tensor, tensor, tensor, None, 1.0, 0.0)
    except (ConfigError, NotImplementedError) as error:
        return first_line(error)
    return None


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def report(**values: Any) -> None:
    """One JSON line."""
    print(json.dumps(values), flush=True)


def report_machine(clock: str, device: str = "cpu") -> None:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    report(machine=name, **versions, threads=torch.get_num_threads(), clock=clock)
