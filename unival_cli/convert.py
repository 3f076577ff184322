"""``unival convert``: rewrites a checkpoint."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from .light import light

EPILOG = """The endings of the names say which format is read and written: .safetensors comes with a .json of the same
name, which holds everything but the tensors; keep the two together. Both formats are accepted wherever a checkpoint is
read (--restore-file, --path, unival predict, unival inspect). Tensors, averages and options come through bit for bit.

examples:
  unival convert checkpoint_best.pt model.safetensors
  unival convert model.safetensors checkpoint.pt
  unival convert checkpoint_best.pt average_fp16.pt --ema --dtype fp16

What was trained of a frozen network (LoRA, adapters, prompts, biases, projections) fits in a few MB:
  unival convert checkpoint_best.pt adapter.pt --only-trained --base pretrained.pt
  unival convert pretrained.pt whole.pt --adapter adapter.pt
  unival convert checkpoint_best.pt plain.pt --fold-adapters"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unival convert``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("source", type=Path, metavar="IN", help="checkpoint (.pt or .safetensors)")
    parser.add_argument("target", type=Path, metavar="OUT", help="file to write (.pt or .safetensors)")
    parser.add_argument(
        "--ema", action="store_true", help="write the averaged weights as the model (drops the optimizer's state)"
    )
    parser.add_argument(
        "--dtype",
        choices=("fp16", "bf16", "fp32"),
        help="type of the model's numbers (the sound front end and the precise average stay as they are)",
    )
    parser.add_argument(
        "--keep-optimizer", action="store_true", help="keep the optimizer's state, which continuing a training needs"
    )
    parser.add_argument(
        "--fold-adapters", action="store_true", help="add LoRA's updates to the weights they belong to, and drop them"
    )
    parser.add_argument("--adapter", type=Path, metavar="FILE", help="put an adapter file on IN, its base")
    parser.add_argument(
        "--only-trained", action="store_true", help="write an adapter file: only what was trained of a frozen network"
    )
    parser.add_argument(
        "--base", type=Path, metavar="FILE", help="with --only-trained: what the training started from, to be compared"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output file")


def run(args: argparse.Namespace) -> int:
    """Runs ``unival convert``; progress goes to the error stream."""
    wish = _wish(args)
    export = light("checkpoints.export")
    export.convert(args.source, args.target, wish, args.overwrite, say=lambda line: print(line, file=sys.stderr))
    return 0


def _wish(args: argparse.Namespace) -> Any:
    if not args.only_trained:
        _refuse(args, "goes with --only-trained", "base")
        return light("checkpoints.adapters").WholeExport(
            args.ema, args.dtype, args.keep_optimizer, adapter=args.adapter, fold=args.fold_adapters
        )
    _refuse(args, "does not go with --only-trained", "adapter", "fold_adapters", "keep_optimizer")
    # which parameters are trained is a matter of the network, whose package loads fairseq
    trained = importlib.import_module("unival_plugin.unival.model.trained")
    return light("checkpoints.adapters").AdapterExport(
        args.ema, args.dtype, names=trained.trained_names, base=args.base
    )


def _refuse(args: argparse.Namespace, why: str, *names: str) -> None:
    for name in names:
        if getattr(args, name):
            raise light("errors").ConfigError(f"--{name.replace('_', '-')} {why}; leave it out")
