"""How fast are the attention kernels alone, and how much memory do they need?

At the shapes of unival_base (12 heads of 64): the encoder's self attention over the patches of a picture and 20 tokens,
the decoder's over 22 tokens with its causal mask, and the decoder's attention to the encoder. Every bias has entries of
-inf; "shared" biases are one for the whole batch, as position scores are without padding, the others one a sample. The
kernels (--backends) run in turns in this process, forward alone and forward with backward to queries, keys, values and
bias:

    sdpa             torch's fused attention, what the package does by default
    plain            softmax of written-out scores
    xformers         that package's kernels; only where its operators load, else a line says why not
    plain_compiled   plain under torch.compile (--compile)

"max_difference" is the largest one to plain in fp32 on the same numbers: of the output, then of the four gradients.
Memory is the peak above the inputs: of torch's allocations on a GPU, else of the resident memory of a process of its
own for each kernel. Prints JSON lines; "by_plain" is plain's time over the other's.

    python -W ignore benchmarks/attention.py --threads 1
    python -W ignore benchmarks/attention.py --device cuda --precision bf16 fp16 fp32 --compile
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import (
    PRECISIONS,
    add_common_options,
    first_line,
    in_own_process,
    in_turns,
    ratio,
    report,
    report_machine,
    resident_bytes,
    spread,
    timed,
    why_no_kernel,
)

HEADS, HEAD_WIDTH = 12, 64
SCALE = (2 * HEAD_WIDTH) ** -0.5
"""UnIVAL's, whose scores are the sum of two."""
SOURCE, TARGET = 20, 22
SIDE_OF_PATCH = 32
LEAST_SECONDS = 0.02
"""A measurement repeats short calls until about here."""
LARGEST_DIFFERENCE = 1e-4
"""Allowed in fp32; inputs are of size 1."""


@dataclass(frozen=True)
class Case:
    """Shapes of one attention."""

    name: str
    batch: int
    queries: int
    keys: int
    shared_bias: bool
    causal: bool = False

    def inputs(self, seed: int, device: str) -> list[Tensor]:
        """Queries, keys, values B x H x length x d and a bias (B or 1) x H x queries x keys with ``-inf`` entries."""
        generator = torch.Generator().manual_seed(seed)
        lengths = (self.queries, self.keys, self.keys)
        tensors = [torch.randn(self.batch, HEADS, n, HEAD_WIDTH, generator=generator) for n in lengths]
        rows = 1 if self.shared_bias else self.batch
        bias = torch.randn(rows, HEADS, self.queries, self.keys, generator=generator)
        for row in range(rows):
            bias[row, :, :, self.keys - row - 1 :] = -math.inf
        if self.causal:
            later = torch.ones(self.queries, self.keys, dtype=torch.bool).triu(1)
            bias.masked_fill_(later, -math.inf)
        return [tensor.to(device) for tensor in (*tensors, bias)]


def cases(sizes: list[int], batches: list[int]) -> list[Case]:
    """All cases for pictures of these sizes in pixels and these batch sizes."""
    found = []
    for batch in batches:
        for size in sizes:
            length = (size // SIDE_OF_PATCH) ** 2 + SOURCE
            found.append(Case(f"encoder, {size} px", batch, length, length, shared_bias=True))
            found.append(Case(f"encoder, {size} px", batch, length, length, shared_bias=False))
            found.append(Case(f"decoder to encoder, {size} px", batch, TARGET, length, shared_bias=False))
        found.append(Case("decoder", batch, TARGET, TARGET, shared_bias=True, causal=True))
    return found


class Attention:
    """One kernel on the inputs of a case.

    Attributes:
        results: the output, and after :meth:`forward_backward` the gradients of all inputs.
    """

    def __init__(self, backend: str, case: Case, settings: dict[str, Any]) -> None:
        from unival_plugin.modules.attention import BACKENDS

        name, _, compiled = backend.partition("_")
        self.kernel = torch.compile(BACKENDS[name], dynamic=False) if compiled else BACKENDS[name]
        self.on_gpu = settings["device"].startswith("cuda")
        dtype = PRECISIONS[settings["precision"]]
        inputs = [tensor.to(dtype) if dtype else tensor for tensor in case.inputs(settings["seed"], settings["device"])]
        if settings["exact"]:
            inputs = [tensor.float() for tensor in inputs]
        self.constants = inputs  # apart, because a bias that wants a gradient decides which of torch's kernels runs
        self.inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        self.upstream = torch.ones_like(inputs[0])

    @torch.no_grad()
    def forward(self) -> None:
        self.results = [self.kernel(*self.constants, SCALE, 0.0)]

    def forward_backward(self) -> None:
        output = self.kernel(*self.inputs, SCALE, 0.0)
        self.results = [output.detach(), *torch.autograd.grad(output, self.inputs, self.upstream)]

    def several(self, phase: str, calls: int) -> None:
        work = getattr(self, phase)
        for _ in range(calls):
            work()

    def peak_bytes(self, phase: str) -> int:
        """Peak of torch's allocations on a GPU above what is allocated before."""
        self.results = []
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        getattr(self, phase)()
        return torch.cuda.max_memory_allocated() - before


PHASES = ("forward", "forward_backward")


def peak_resident(backend: str, case: Case, settings: dict[str, Any]) -> dict[str, float]:
    """Peak MB above the inputs after each phase of a process that runs one kernel."""
    torch.set_num_threads(settings["threads"])
    small = Attention(backend, Case("small", 1, 8, 8, True), settings)
    for phase in PHASES:  # loads the code that it runs
        small.several(phase, 1)
    attention = Attention(backend, case, settings)
    before = resident_bytes("VmRSS")
    peaks = {}
    for phase in PHASES:
        attention.several(phase, 2)
        peaks[phase] = round(max(0, resident_bytes() - before) / 1e6, 2)
    return peaks


def differences(results: dict[str, list[Tensor]], exact: list[Tensor]) -> dict[str, list[float]]:
    """The largest difference of output (and gradients of queries, keys, values, bias) to ``exact``."""

    def largest(a: Tensor, b: Tensor) -> float:
        return float(f"{(a.float() - b).abs().max().item():.3g}")

    return {name: [largest(a, b) for a, b in zip(own, exact, strict=True)] for name, own in results.items()}


def compare(args: argparse.Namespace, case: Case, precision: str, backends: list[str]) -> None:
    """All kernels on one case in one precision, phase by phase."""
    torch.compiler.reset()  # the compiler gives up on a function after a number of shapes
    settings = {"precision": precision, "device": args.device, "seed": args.seed, "threads": args.threads}
    own = {**settings, "exact": False}
    ways = {backend: Attention(backend, case, own) for backend in backends}
    exact = Attention("plain", case, {**settings, "exact": True})
    memory = {} if exact.on_gpu else {b: in_own_process(peak_resident, b, case, own) for b in uncompiled(backends)}
    for phase in PHASES:
        ways = {name: way for name, way in ways.items() if runs(name, way, case, phase, precision)}
        calls = max(1, math.ceil(LEAST_SECONDS / timed(partial(ways["plain"].several, phase, 1), args.clock)))
        work = {name: partial(way.several, phase, calls) for name, way in ways.items()}
        seconds = in_turns(args.rounds, {name: partial(timed, each, args.clock) for name, each in work.items()})
        exact.several(phase, 1)
        difference = differences({name: way.results for name, way in ways.items()}, exact.results)
        if precision == "fp32":
            assert max(max(each) for each in difference.values()) < LARGEST_DIFFERENCE, f"different: {difference}"
        peaks = {b: memory[b][phase] if b in memory else peak_of_gpu(ways[b], phase) for b in ways}
        report(
            question="attention",
            **described(case, phase, precision),
            milliseconds={name: spread((s / calls * 1e3 for s in each), digits=4) for name, each in seconds.items()},
            by_plain={name: ratio(seconds["plain"], each) for name, each in seconds.items() if name != "plain"},
            peak_MB=peaks,
            max_difference=difference,
        )


def uncompiled(backends: list[str]) -> list[str]:
    """Those whose resident memory tells something: the compiler's own would count with the others."""
    return [backend for backend in backends if "_" not in backend]


def peak_of_gpu(attention: Attention, phase: str) -> float | None:
    return round(attention.peak_bytes(phase) / 1e6, 2) if attention.on_gpu else None


def runs(name: str, attention: Attention, case: Case, phase: str, precision: str) -> bool:
    """Whether an optional kernel can do this case; else a line says why not."""
    try:
        attention.several(phase, 1)
    except RuntimeError as error:  # a compiler's or a foreign kernel's refusal
        if name in ("sdpa", "plain"):
            raise
        report(left_out=name, **described(case, phase, precision), why=first_line(error))
        return False
    return True


def described(case: Case, phase: str, precision: str) -> dict[str, Any]:
    return {
        "case": case.name,
        "batch": case.batch,
        "queries": case.queries,
        "keys": case.keys,
        "shared_bias": case.shared_bias,
        "precision": precision,
        "phase": phase,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, rounds=7, reference=False)
    parser.add_argument("--patch-image-size", type=int, nargs="+", default=[224, 480])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[2, 8])
    kernels = ["sdpa", "plain", "xformers"]
    parser.add_argument("--backends", nargs="+", default=kernels, choices=kernels, help="plain always runs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", choices=sorted(PRECISIONS), help="default: fp32, on a GPU bf16")
    parser.add_argument("--compile", action="store_true", help="also run plain under torch.compile")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report_machine(args.clock, args.device)
    for precision in args.precision or ["bf16" if args.device.startswith("cuda") else "fp32"]:
        backends = ["plain"]
        for backend in sorted({*args.backends} - {"plain"}):
            why = why_no_kernel(backend, args.device, PRECISIONS[precision])
            if why:
                report(left_out=backend, precision=precision, why=why)
            else:
                backends.append(backend)
        if args.compile:
            backends.append("plain_compiled")
        for case in cases(args.patch_image_size, args.batch_size):
            compare(args, case, precision, backends)


if __name__ == "__main__":
    main()
