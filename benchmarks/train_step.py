"""How long does a training step take, and what do the fused attention kernels give?

Forward and backward pass and optimizer step of the same network in turns: "ours"; "plain_attention", whose attention is
written out as in the original (softmax of scores plus a bias that is built for every sample and cloned in every layer);
on a CPU also "torch_products", ours without :mod:`unival_plugin.modules.cpu_kernels`. The losses must be equal. Memory
is the peak of a process of its own for each way. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import (
    VOCABULARY,
    add_common_options,
    build_model,
    in_turns,
    picture_batch,
    ratio,
    report,
    report_machine,
    spread,
    timed,
)
from reference import Reference


class Trainer:
    """One training step a call, always on the same batch."""

    def __init__(self, model: Any, settings: dict[str, Any]) -> None:
        self.device = torch.device(settings["device"])
        self.autocast = settings["autocast"]
        self.model = model.to(self.device).train()
        names = ("seed", "batch", "size", "source", "target", "vocabulary")
        batch = picture_batch(*(settings[name] for name in names))
        self.batch = {key: value.to(self.device) for key, value in batch.items()}
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5)
        self.losses: list[float] = []

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            scores = self.model(**self.batch)[0]
        loss = F.cross_entropy(scores.float().flatten(0, 1), self.batch["prev_output_tokens"].flatten())
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    @property
    def loss(self) -> float:
        """Before the first update."""
        return self.losses[0]

    def memory(self) -> float:
        """Peak GB of this process: on a GPU of its memory, else resident."""
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated() / 1e9, 2)
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def write_out_attention(model: Any) -> Any:
    """Our network with the original's way to compute attention, equal in its results."""
    from unival_plugin.modules.attention import MultiheadAttention

    class PlainAttention(MultiheadAttention):
        def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
            scores = self.split_heads(self.q_proj(x) * self.scaling) @ keys.transpose(2, 3)
            if bias is not None:
                scores = scores + bias
            weights = F.dropout(F.softmax(scores.float(), dim=-1).type_as(scores), self.dropout, self.training)
            context = weights.to(values.dtype) @ values
            if self.c_attn is not None:
                context = context * self.c_attn[:, None, None]
            return self.out_proj(context.transpose(1, 2).flatten(2))

    class PlainEncoder(type(model.encoder)):  # type: ignore[misc]
        def _run_layers(self, x: Tensor, positions: Tensor, patch_ids: Any, *others: Any) -> list[Tensor]:
            ids = patch_ids.expand(len(x), -1).contiguous()
            return super()._run_layers(x, positions.expand(len(x), -1, -1).contiguous(), ids, *others)

        def _layer_bias(self, index: int, shared: Tensor, token_buckets: Tensor, patch_buckets: Tensor) -> Tensor:
            bias = shared.clone()
            text = self.token_relative_scores(index, token_buckets)
            patches = self.patch_relative_scores(index, patch_buckets)
            bias[:, :, -text.shape[-1] :, -text.shape[-1] :] += text
            bias[:, :, : patches.shape[-1], : patches.shape[-1]] += patches
            return bias

    for module in model.modules():
        if type(module) is MultiheadAttention:
            module.__class__ = PlainAttention
    model.encoder.__class__ = PlainEncoder
    return model


def trainer_of(way: str, model: Any, settings: dict[str, Any]) -> Any:
    """The step of one way; takes the model over."""
    from unival_plugin.unival.model import network

    if way == "plain_attention":
        return Trainer(write_out_attention(model), settings)
    step = Trainer(model, settings)
    if way != "torch_products":
        return step

    def without_kernels() -> None:
        with mock.patch.object(network, "fast_cpu_kernels", lambda wanted: nullcontext()):
            step()

    without_kernels.trainer = step  # type: ignore[attr-defined]
    return without_kernels


def peak_memory(way: str, settings: dict[str, Any]) -> float:
    command = [sys.executable, "-W", "ignore", __file__, "--only-memory", way, json.dumps(settings)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_memory(way: str, settings: dict[str, Any]) -> None:
    torch.set_num_threads(settings["threads"])
    step = trainer_of(way, build_model(settings["arch"], settings["vocabulary"], settings["seed"]), settings)
    step()
    step()
    print(getattr(step, "trainer", step).memory())


def compare(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    ways = ["ours", "plain_attention"] + (["torch_products"] if args.device == "cpu" else [])
    model = build_model(settings["arch"], settings["vocabulary"], args.seed)
    reference = start_reference(args, settings, model)
    steps = {way: trainer_of(way, copy.deepcopy(model), settings) for way in ways}
    timings = {way: lambda step=step: timed(step, args.clock) for way, step in steps.items()}
    if reference is not None:
        answers: list[dict[str, Any]] = []
        timings["reference"] = lambda: answers.append(reference.ask("train")) or answers[-1]["seconds"]
    seconds = in_turns(args.rounds, timings)
    losses = {way: getattr(step, "trainer", step).loss for way, step in steps.items()}
    memory = {way: peak_memory(way, settings) for way in ways}
    if reference is not None:
        losses["reference"], memory["reference"] = answers[0]["loss"], answers[-1]["memory_GB"]
        reference.close()
    allowed = 0.05 if args.autocast else 1e-3
    assert max(losses.values()) - min(losses.values()) < allowed, f"different losses: {losses}"
    report(
        question="training step",
        **{name: settings[name] for name in ("arch", "size", "batch", "source", "target", "autocast")},
        images_per_second={way: round(settings["batch"] / spread(each)["median"], 2) for way, each in seconds.items()},
        peak_GB=memory,
        seconds={way: spread(each) for way, each in seconds.items()},
        by_ours={way: ratio(each, seconds["ours"]) for way, each in seconds.items() if way != "ours"},
    )


def start_reference(args: argparse.Namespace, settings: dict[str, Any], model: Any) -> Reference | None:
    if not args.reference:
        return None
    reference = Reference(args.reference, args.reference_python, {**settings, "question": "train"}, model.state_dict())
    if reference.why_not:
        report(reference=f"not runnable: {reference.why_not}")
        return None
    return reference


def main() -> None:
    if sys.argv[1:2] == ["--only-memory"]:
        print_memory(sys.argv[2], json.loads(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_options(parser, rounds=5)
    parser.add_argument("--arch", nargs="+", default=["unival_tiny", "unival_base"], choices=sorted(VOCABULARY))
    parser.add_argument("--patch-image-size", type=int, nargs="+", default=[224, 480])
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--source", type=int, default=20, help="source tokens")
    parser.add_argument("--target", type=int, default=16, help="target tokens")
    parser.add_argument("--autocast", choices=["bf16"], help="default: fp32")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report_machine(args.clock, args.device)
    for arch in args.arch:
        for size in args.patch_image_size:
            settings = {
                "arch": arch,
                "vocabulary": VOCABULARY[arch],
                "size": size,
                "batch": args.batch_size,
                "source": args.source,
                "target": args.target,
                "autocast": args.autocast,
                "device": args.device,
                "threads": args.threads,
                "seed": args.seed,
                "clock": args.clock,
            }
            compare(args, settings)


if __name__ == "__main__":
    main()
