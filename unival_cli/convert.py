"""``unival convert``: rewrites a checkpoint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .light import light

EPILOG = """The endings of the names say which format is read and written: .safetensors comes with a .json of the same
name, which holds everything but the tensors; keep the two together. Both formats are accepted wherever a checkpoint is
read (--restore-file, --path, unival predict, unival inspect). Tensors, averages and options come through bit for bit.

examples:
  unival convert checkpoint_best.pt model.safetensors
  unival convert model.safetensors checkpoint.pt
  unival convert checkpoint_best.pt average_fp16.pt --ema --dtype fp16"""


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
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output file")


def run(args: argparse.Namespace) -> int:
    """Runs ``unival convert``; progress goes to the error stream."""
    export = light("checkpoints.export")
    wish = export.Export(average=args.ema, dtype=args.dtype, optimizer=args.keep_optimizer)
    export.convert(args.source, args.target, wish, args.overwrite, say=lambda line: print(line, file=sys.stderr))
    return 0
