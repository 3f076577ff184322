"""How long do a forward pass and a training step take, and what do the attention kernels give?

The same network with the same weights and one batch in turns, in three phases: "forward" (evaluation mode, no
gradients, loss included), "forward_backward", and "step" (with Adam). The ways:

    sdpa      what the package does by default: torch's fused attention, biases shared by the batch
    plain     softmax of written-out scores plus the same biases
    original  as plain, with position biases that are built for every sample, as the original code does
    xformers  that package's kernels; only where its operators load, else a line says why not
    compiled  sdpa under torch.compile (--compile)

All losses of a phase must be equal. With bf16 or fp16, which is autocast around fp32 weights, a line states the
relative errors of loss, scores and gradient against fp32 (TF32 is off). "utilisation" is the model's floating-point
operations, counted once on a real step with plain attention, over time and the peak of --device. Memory is the peak of
torch's allocations on a GPU, else of the resident memory of a process of its own for each way (0 s of compiling: only
there compiled is left out). Prints JSON lines.

    python -W ignore benchmarks/train_step.py --arch unival_base --threads 1       CPU
    python -W ignore benchmarks/train_step.py --device cuda --all                  everything about one GPU
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import (
    PRECISIONS,
    VOCABULARY,
    add_common_options,
    build_model,
    first_line,
    in_own_process,
    in_turns,
    picture_batch,
    ratio,
    report,
    report_machine,
    resident_bytes,
    spread,
    timed,
    why_no_kernel,
)
from reference import Reference

KERNELS = {"sdpa": "sdpa", "plain": "plain", "original": "plain", "xformers": "xformers", "compiled": "sdpa"}
"""Ways and the attention kernels they use."""

PEAKS = {
    "B200": (2250.0, 75.0),
    "H200 NVL": (835.0, 60.0),
    "H200": (989.0, 67.0),
    "H100 NVL": (835.0, 60.0),
    "H100 PCIe": (756.0, 51.0),
    "H100": (989.0, 67.0),
    "A100": (312.0, 19.5),
    "L40S": (362.0, 91.6),
    "L4": (121.0, 30.3),
    "A10": (125.0, 31.2),
    "RTX 4090": (165.2, 82.6),
    "RTX 3090": (71.0, 35.6),
}
"""Dense TFLOP/s of GPUs by the maker's data sheets: tensor cores with bf16 or fp16 and fp32 sums; fp32 without TF32."""

LARGEST_LOSS_DIFFERENCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 5e-3}
"""Between the ways, relative."""

SCALE_TRIALS = 24
"""fp16: how often the loss scale may be halved before gradients must be finite."""


class Trainer:
    """The phases of a training step on one batch, with the same result every time.

    The learning rate is zero: the optimizer does its work, but every step sees the same weights. Batch norms keep the
    statistics of a first pass for the same reason.

    Attributes:
        loss: of the last call.
    """

    def __init__(self, model: Any, settings: dict[str, Any]) -> None:
        self.device = torch.device(settings["device"])
        self.dtype = PRECISIONS[settings["precision"]]
        self.model = model.to(self.device)
        self.network: Callable[..., Any] = self.model
        names = ("seed", "batch", "size", "source", "target", "vocabulary")
        batch = picture_batch(*(settings[name] for name in names))
        self.batch = {key: value.to(self.device) for key, value in batch.items()}
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.0)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self._settle_norms()

    @torch.no_grad()
    def _settle_norms(self) -> None:
        norms = [module for module in self.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        self.model.train()(**self.batch)
        for norm in norms:
            norm.momentum = 0.0

    @cached_property
    def compiled(self) -> Any:
        return torch.compile(self.model, dynamic=False)

    def scores(self) -> Tensor:
        """B x T x V in fp32."""
        autocast = nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)
        with autocast:
            return self.network(**self.batch)[0].float()

    def loss_of(self, scores: Tensor) -> Tensor:
        return F.cross_entropy(scores.flatten(0, 1), self.batch["prev_output_tokens"].flatten())

    @torch.no_grad()
    def forward(self) -> None:
        self.loss = self.loss_of(self.scores()).item()

    def forward_backward(self) -> None:
        self.optimizer.zero_grad()
        loss = self.loss_of(self.scores())
        self.scaler.scale(loss).backward()
        self.loss = loss.item()

    def __call__(self) -> None:
        self.forward_backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def phase(self, name: str) -> Callable[[], None]:
        """The work of a phase; sets the network's mode, which is not to be timed."""
        self.model.train(name != "forward")
        return {"forward": self.forward, "forward_backward": self.forward_backward, "step": self}[name]

    def gradient(self) -> Tensor:
        """All gradients in one row, after as many halvings of the loss scale as fp16 needs.

        Raises:
            OverflowError: they are not finite at any scale.
        """
        for _ in range(SCALE_TRIALS):
            self.phase("forward_backward")()
            self.scaler.unscale_(self.optimizer)
            self.scaler.update()
            row = torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])
            if bool(row.isfinite().all()):
                return row
        raise OverflowError(f"gradients of {self.dtype} are not finite")

    def memory(self) -> float:
        """Peak GB of this process: on a GPU of torch's allocations since the last reset, else resident."""
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else resident_bytes()
        return round(peak / 1e9, 2)


@contextmanager
def applied(way: str, step: Trainer) -> Iterator[None]:
    """A context in which ``step`` runs one way."""
    from unival_plugin.modules.attention import BACKENDS, MultiheadAttention

    attentions = [module for module in step.model.modules() if isinstance(module, MultiheadAttention)]
    before = [module.kernel for module in attentions]
    for module in attentions:
        module.kernel = BACKENDS[KERNELS[way]]
    if way == "compiled":
        step.network = step.compiled
    with biases_for_every_sample(step.model.encoder) if way == "original" else nullcontext():
        yield
    step.network = step.model
    for module, kernel in zip(attentions, before, strict=True):
        module.kernel = kernel


@contextmanager
def biases_for_every_sample(encoder: Any) -> Iterator[None]:
    """A context in which the encoder computes biases that all samples share once for each."""
    run_layers = encoder._run_layers

    def run(x: Tensor, positions: Tensor, patch_ids: list[Tensor], *others: Any) -> list[Tensor]:
        every_id = [ids.expand(len(x), -1).contiguous() for ids in patch_ids]
        return run_layers(x, positions.expand(len(x), -1, -1).contiguous(), every_id, *others)

    encoder._run_layers = run
    yield
    del encoder._run_layers


def own_model(settings: dict[str, Any]) -> Any:
    return build_model(settings["arch"], settings["vocabulary"], settings["seed"])


def peak_resident(way: str, settings: dict[str, Any]) -> dict[str, float]:
    """Peak GB after each phase of a process that runs one way; each phase needs more than the one before."""
    torch.set_num_threads(settings["threads"])
    step = Trainer(own_model(settings), settings)
    peaks = {}
    with applied(way, step):
        for name in settings["phases"]:
            for _ in range(2 if name == "step" else 1):  # the second step has Adam's moments from its start
                step.phase(name)()
            peaks[name] = step.memory()
    return peaks


def peak_tflops(device_name: str, precision: str) -> float | None:
    """The data sheet's peak of a GPU by its name, None if the table lacks it."""
    words = device_name.replace("-", " ").split()
    for name, (half, full) in PEAKS.items():
        if all(word in words for word in name.split()):
            return full if precision == "fp32" else half
    return None


def count_operations(step: Trainer) -> dict[str, int]:
    """Floating-point operations of each phase, a multiplication and an addition being two; Adam's do not count."""

    def count(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return int(counter.get_total_flops())

    step.model.train()
    with applied("plain", step):  # whose products the counter sees on every device
        forward = count(step.scores)  # not step.forward: the counter fails on parameters' views without gradients
        both = count(step.forward_backward)
    return {"forward": forward, "forward_backward": both, "step": both}


class Comparison:
    """One network, picture size and precision: every way in turns, phase by phase."""

    def __init__(self, args: argparse.Namespace, settings: dict[str, Any], step: Trainer) -> None:
        self.args, self.settings, self.step = args, settings, step
        self.on_gpu = step.device.type == "cuda"
        self.common = {name: settings[name] for name in ("arch", "size", "batch", "source", "target", "precision")}
        self.losses: dict[str, float] = {}
        self.memory: dict[str, float | None] = {}

    def run(self, operations: dict[str, int], reference: Reference | None) -> None:
        ways = [way for way in self.settings["ways"] if self._kernel_loads(way)]
        if self.settings["precision"] in self.args.compile:
            ways.append("compiled")
        resident = {} if self.on_gpu else self._resident_memory(ways)
        for phase in self.settings["phases"]:
            self.losses, self.memory = {}, {way: resident.get(way, {}).get(phase) for way in ways}
            first = {way: self._first_seconds(way, phase) for way in ways}
            ways = [way for way in ways if first[way] is not None]
            timings = {way: partial(self._seconds, way, phase) for way in ways}
            if reference is not None and phase == "step":
                timings["reference"] = partial(self._reference_seconds, reference)
            seconds = in_turns(self.args.rounds, timings)
            self._check_losses()
            self._report(phase, seconds, operations[phase], first.get("compiled"))

    def _kernel_loads(self, way: str) -> bool:
        why = why_no_kernel(KERNELS[way], self.settings["device"], self.step.dtype)
        if why:
            report(left_out=way, **self.common, why=why)
        return why is None

    def _resident_memory(self, ways: list[str]) -> dict[str, dict[str, float]]:
        return {way: in_own_process(peak_resident, way, self.settings) for way in ways if way != "compiled"}

    def _first_seconds(self, way: str, phase: str) -> float | None:
        """Seconds of the first call, compiling included; None with a line that says why it fails."""
        try:
            return self._seconds(way, phase)
        except RuntimeError as error:  # out of memory, a compiler's or a foreign kernel's refusal
            if way in ("sdpa", "plain") and not isinstance(error, torch.OutOfMemoryError):
                raise
            report(left_out=way, **self.common, phase=phase, why=first_line(error))
            return None

    def _seconds(self, way: str, phase: str) -> float:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        with applied(way, self.step):
            seconds = timed(self.step.phase(phase), self.args.clock)
        self.losses[way] = self.step.loss
        if self.on_gpu:
            self.memory[way] = self.step.memory()
        return seconds

    def _reference_seconds(self, reference: Reference) -> float:
        answer = reference.ask()
        self.losses["reference"], self.memory["reference"] = answer["loss"], answer["memory_GB"]
        return answer["seconds"]

    def _check_losses(self) -> None:
        smallest, largest = min(self.losses.values()), max(self.losses.values())
        allowed = LARGEST_LOSS_DIFFERENCE[self.settings["precision"]] * abs(largest)
        assert largest - smallest < allowed, f"different losses: {self.losses}"

    def _report(self, phase: str, seconds: dict[str, list[float]], operations: int, compiling: float | None) -> None:
        medians = {way: spread(each, digits=9)["median"] for way, each in seconds.items()}
        rates = {way: operations / median / 1e12 for way, median in medians.items()}
        peak, source = peak_of(self.args, self.settings["precision"])
        report(
            question="training step",
            phase=phase,
            **self.common,
            seconds={way: spread(each, digits=5) for way, each in seconds.items()},
            by_sdpa={way: ratio(each, seconds["sdpa"]) for way, each in seconds.items() if way != "sdpa"},
            images_per_second={way: round(self.settings["batch"] / median, 2) for way, median in medians.items()},
            peak_GB=self.memory,
            tera_operations=round(operations / 1e12, 4),
            tflops={way: round(rate, 4) for way, rate in rates.items()},
            utilisation=None if peak is None else {way: round(rate / peak, 4) for way, rate in rates.items()},
            peak_tflops=peak,
            peak_source=source,
            **({} if compiling is None else {"first_compiled_call_seconds": round(compiling, 1)}),
        )


def peak_of(args: argparse.Namespace, precision: str) -> tuple[float | None, str]:
    """The peak that utilisation refers to, and where it comes from."""
    if args.peak_tflops is not None:
        return args.peak_tflops, "--peak-tflops"
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else "the CPU"
    peak = peak_tflops(name, precision)
    return peak, f"unknown for {name}: give --peak-tflops" if peak is None else f"data sheet of {name}, {precision}"


def report_parity(exact: Trainer, rough: Trainer, settings: dict[str, Any]) -> None:
    """Relative errors of a half precision against fp32: same weights, same batch, training mode."""

    def error(a: Tensor, b: Tensor) -> float:
        return float(f"{float((a - b).norm() / b.norm()):.3g}")

    results = []
    for step in (rough, exact):
        with torch.no_grad():
            scores = step.model.train() and step.scores()
        results.append((torch.tensor(float(step.loss_of(scores))), scores, step.gradient()))
    (rough_loss, rough_scores, rough_gradient), (loss, scores, gradient) = results
    report(
        question="precision parity",
        **{name: settings[name] for name in ("arch", "size", "batch", "precision")},
        against="fp32",
        relative_error={
            "loss": error(rough_loss, loss),
            "scores": error(rough_scores, scores),
            "gradient_norm": error(rough_gradient.norm(), gradient.norm()),
            "gradient": error(rough_gradient, gradient),
        },
    )


def start_reference(args: argparse.Namespace, settings: dict[str, Any], model: Any) -> Reference | None:
    if not args.reference:
        return None
    reference = Reference(args.reference, args.reference_python, {**settings, "question": "train"}, model.state_dict())
    if reference.why_not:
        report(reference=f"not runnable: {reference.why_not}")
        return None
    return reference


def compare(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """All precisions of one network and picture size."""
    torch.compiler.reset()
    model = own_model(settings)
    exact = Trainer(model, {**settings, "precision": "fp32"})
    operations = count_operations(exact)
    for precision in args.precision:
        own = {**settings, "precision": precision}
        step = exact if precision == "fp32" else Trainer(model, own)
        if precision != "fp32":
            report_parity(exact, step, own)
        reference = start_reference(args, own, model) if "step" in settings["phases"] else None
        Comparison(args, own, step).run(operations, reference)
        if reference is not None:
            reference.close()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, rounds=5)
    parser.add_argument("--arch", nargs="+", default=["unival_base"], choices=sorted(VOCABULARY))
    parser.add_argument("--patch-image-size", type=int, nargs="+", default=[224, 480])
    parser.add_argument("--batch-size", type=int, help="default: 2, on a GPU 16")
    parser.add_argument("--source", type=int, default=20, help="source tokens")
    parser.add_argument("--target", type=int, default=16, help="target tokens")
    parser.add_argument("--vocabulary", type=int, help="symbols (default: the published size)")
    parser.add_argument("--device", default="cpu")
    phases = ["forward", "forward_backward", "step"]
    parser.add_argument("--phases", nargs="+", default=phases, choices=phases)
    ways = [way for way in KERNELS if way != "compiled"]
    parser.add_argument("--ways", nargs="+", choices=ways, help="default: all, on the CPU without xformers")
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=sorted(PRECISIONS))
    parser.add_argument(
        "--compile", nargs="+", default=[], choices=sorted(PRECISIONS), help="precisions to run under torch.compile too"
    )
    parser.add_argument("--peak-tflops", type=float, help="of the device, for utilisation (default: a table of GPUs)")
    parser.add_argument("--all", action="store_true", help="as --precision fp32 bf16 fp16 --compile bf16")
    args = parser.parse_args()
    on_gpu = args.device.startswith("cuda")
    if args.all:
        args.precision, args.compile = ["fp32", "bf16", "fp16"], ["bf16"]
    args.batch_size = args.batch_size or (16 if on_gpu else 2)
    args.ways = args.ways or [way for way in ways if on_gpu or way != "xformers"]
    return args


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False
    report_machine(args.clock, args.device)
    for arch in args.arch:
        for size in args.patch_image_size:
            settings = {
                "arch": arch,
                "vocabulary": args.vocabulary or VOCABULARY[arch],
                "size": size,
                "batch": args.batch_size,
                "source": args.source,
                "target": args.target,
                "phases": args.phases,
                "ways": ["sdpa", *(way for way in args.ways if way != "sdpa")],
                "device": args.device,
                "threads": args.threads,
                "seed": args.seed,
                "clock": args.clock,
            }
            compare(args, settings)


if __name__ == "__main__":
    main()
