"""``unival inspect``: what a checkpoint holds."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .light import light

EPILOG = """Nothing in the file is executed, and tensors are not loaded into memory. "tensors" counts names; a tensor
with several names counts once in MiB and in parameters. Exit status: 1 if the file asks for objects that safe reading
refuses (their names are listed), 2 if it cannot be read.

example:
  unival inspect checkpoint_best.pt
  unival inspect checkpoint_best.pt --json
  unival inspect checkpoint_best.pt --trainable"""
MIB = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unival inspect``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="checkpoint (.pt or .safetensors)")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.add_argument(
        "--trainable", action="store_true", help="also tell what its training trained and what it froze"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the facts; returns 1 if the file asks for objects that are refused, else 0."""
    adapter = _adapter(args.checkpoint)
    if adapter is not None:
        print(json.dumps(adapter, indent=2, ensure_ascii=False))
        return 0
    facts = light("checkpoints.summary").summarise(args.checkpoint)
    if args.trainable and not facts["refused"]:
        facts["trainable"] = _trainable(args.checkpoint, facts["model"]["vocabulary"])
    if args.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(facts)))
    return 1 if facts["refused"] else 0


def _adapter(checkpoint: Path) -> dict[str, Any] | None:
    """Facts about an adapter file (see ``unival convert --only-trained``); None if the file is none."""
    adapters, errors = light("checkpoints.adapters"), light("errors")
    try:
        if not adapters.is_adapter(light("checkpoints.reading").read_checkpoint(checkpoint, True)):
            return None
    except errors.CheckpointError:
        return None  # the summary tells more about files that cannot be read
    facts: dict[str, Any] = adapters.summary(adapters.read_adapter(checkpoint))
    return {"path": str(checkpoint), "bytes": checkpoint.stat().st_size, "format": "adapter file", **facts}


def _trainable(checkpoint: Path, symbols: int | None) -> list[dict[str, Any]]:
    """Parts of the checkpoint's network; needs the network's package, which loads fairseq."""
    options = light("checkpoints.reading").model_options(light("checkpoints.reading").read_checkpoint(checkpoint, True))
    if not options or symbols is None:
        raise light("errors").CheckpointError(f"{checkpoint}: does not tell what was trained; leave --trainable out")
    trained = importlib.import_module("unival_plugin.unival.model.trained")
    parts: list[dict[str, Any]] = trained.stored_parts(options, symbols)
    return parts


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """The facts for people."""
    yield f"{facts['path']}: {facts['format']}, {facts['bytes'] / MIB:.1f} MiB"
    if facts["refused"]:
        yield "refused, because it asks for more than plain data (nothing was executed):"
        yield from (f"  {name}" for name in facts["refused"])
        return
    for label, value in _facts(facts):
        yield f"{label:<13} {value}"
    yield from (f"{'tied':<13} {first} = {' = '.join(more)}" for first, more in facts["tied"].items())
    yield f"\n{'module':<40} {'tensors':>8} {'elements':>14} {'MiB':>9}"
    for name, row in facts["modules"].items():
        yield f"{name:<40} {row['tensors']:>8} {row['elements']:>14,} {row['bytes'] / MIB:>9.1f}"
    if "trainable" in facts:
        yield f"\n{'parameters of':<40} {'tensors':>8} {'elements':>14} {'trained':>14}"
    for row in facts.get("trainable", ()):
        yield f"{row['name']:<40} {row['tensors']:>8} {row['parameters']:>14,} {row['trainable']:>14,}"


def _facts(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    model = facts["model"]
    yield "layout", facts["layout"]
    yield "architecture", _or_unknown(facts["architecture"])
    yield "task", _or_unknown(facts["task"])
    yield "epoch", _or_unknown(facts["epoch"])
    yield "updates", _or_unknown(facts["updates"])
    yield "vocabulary", _or_unknown(model["vocabulary"])
    yield (
        "sizes",
        f"width {_or_unknown(model['width'])}, {model['encoder_layers']} encoder layers, "
        f"{model['decoder_layers']} decoder layers",
    )
    yield "parameters", f"{model['parameters']:,} ({model['elements']:,} elements by name)"
    yield "numbers", ", ".join(f"{kind} in {count} tensors" for kind, count in facts["numbers"].items())
    average = facts["average"]
    yield "average", ", ".join(f"{kind} ({dtype})" for kind, dtype in average.items()) if average else "none"
    if facts["merged"]:
        files = ", ".join(f"{file['coefficient']:g} x {file['path']}" for file in facts["merged"]["files"])
        yield "merged", f"{facts['merged']['method']}: {files}"
    yield "optimizer", "stored" if facts["optimizer"] else "not stored"
    mel = facts["mel_filters"]
    if mel:
        rate = f"made for {mel['sampling_rate']} Hz if they end at 14 kHz, " if mel["sampling_rate"] else "all zero, "
        hop = _or_unknown(mel["hop"])
        yield "mel filters", f"{mel['bands']} bands, window {mel['window']}, {rate}stored option for the hop: {hop}"
    yield "refused", "nothing"


def _or_unknown(value: Any) -> str:
    return "not stored" if value is None else str(value)
