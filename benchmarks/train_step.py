"""How long does a training step take, and what do the fused attention kernels give?

Forward and backward pass and optimizer step of the same network in turns: "ours"; "plain_attention", whose attention is
written out as in the original (softmax of scores plus a bias that is built for every sample and cloned in every
layer). The losses must be equal. Memory is the peak of a process of its own for each way. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

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
    """One training step a call, always on the same batch.

    The learning rate is zero: the optimizer does its work, but every step sees the same weights and has the same loss.
    """

    def __init__(self, model: Any, settings: dict[str, Any]) -> None:
        self.device = torch.device(settings["device"])
        self.autocast = settings["autocast"]
        self.model = model.to(self.device).train()
        names = ("seed", "batch", "size", "source", "target", "vocabulary")
        batch = picture_batch(*(settings[name] for name in names))
        self.batch = {key: value.to(self.device) for key, value in batch.items()}
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.0)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            scores = self.model(**self.batch)[0]
        loss = F.cross_entropy(scores.float().flatten(0, 1), self.batch["prev_output_tokens"].flatten())
        loss.backward()
        self.optimizer.step()
        self.loss = loss.item()

    def memory(self) -> float:
        """Peak GB of this process: on a GPU of its memory, else resident."""
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated() / 1e9, 2)
        # not getrusage's ru_maxrss: it starts at what the parent process holds
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return round(int(status["VmHWM"].split()[0]) / 1e6, 2)


@contextmanager
def plain_attention(model: Any) -> Iterator[None]:
    """A context in which our network computes attention as the original does, with equal results."""
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

    plain = {MultiheadAttention: PlainAttention, type(model.encoder): PlainEncoder}
    changed = [module for module in model.modules() if type(module) in plain]
    classes = [type(module) for module in changed]
    for module, own in zip(changed, classes, strict=True):
        module.__class__ = plain[own]
    yield
    for module, own in zip(changed, classes, strict=True):
        module.__class__ = own


def as_way(way: str, step: Trainer) -> AbstractContextManager[Any]:
    """The context in which ``step`` runs one way."""
    if way == "plain_attention":
        return plain_attention(step.model)
    return nullcontext()


def peak_memory(way: str, settings: dict[str, Any]) -> float:
    command = [sys.executable, "-W", "ignore", __file__, "--only-memory", way, json.dumps(settings)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_memory(way: str, settings: dict[str, Any]) -> None:
    torch.set_num_threads(settings["threads"])
    step = Trainer(build_model(settings["arch"], settings["vocabulary"], settings["seed"]), settings)
    with as_way(way, step):
        step()
        step()
    print(step.memory())


def compare(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    ways = ["ours", "plain_attention"]
    memory = {way: peak_memory(way, settings) for way in ways}
    model = build_model(settings["arch"], settings["vocabulary"], args.seed)
    reference = start_reference(args, settings, model)
    step = Trainer(model, settings)
    losses: dict[str, float] = {}

    def own_seconds(way: str) -> float:
        with as_way(way, step):
            seconds = timed(step, args.clock)
        losses[way] = step.loss
        return seconds

    def reference_seconds() -> float:
        answer = reference.ask()
        losses["reference"], memory["reference"] = answer["loss"], answer["memory_GB"]
        return answer["seconds"]

    timings = {way: partial(own_seconds, way) for way in ways}
    if reference is not None:
        timings["reference"] = reference_seconds
    seconds = in_turns(args.rounds, timings)
    if reference is not None:
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
