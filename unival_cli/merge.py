"""``unival merge``: makes one checkpoint of several."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from . import merge_sweep
from .light import light

# The methods' own register imports torch, which --help must not; a test compares the two.
METHODS = ("weighted", "task_arithmetic", "ties", "dare", "slerp")
MISSING = ("error", "renormalise", "running")

EPILOG = """methods (one tensor at a time; W: a file's tensor, c: its coefficient, B: the tensor in --base):
  weighted         sum of c W; by default all files count the same. Two files and c = L,1-L interpolate between
                   them (model soups, Wortsman et al. 2022; rewarded soups, Rame et al. 2023)
  task_arithmetic  B + sum of c (W - B) (Ilharco et al. 2022)
  ties             of each W - B only the largest --density stays; where signs differ, only elements of the heavier
                   side count (TIES, Yadav et al. 2023). Trimmed per tensor; density 1 is task_arithmetic
  dare             of each W - B a random --density stays, enlarged to make up for it (DARE, Yu et al. 2023).
                   Density 1 is task_arithmetic
  slerp            the arc between two files; c = 1-T,T goes the part T of the way (Shoemake 1985)

what becomes of the contents:
  The first file gives names, number formats, options and everything else of the result; the optimizer's state is left
  out. Integers (counters, tables of positions) are the first file's. Running statistics of batch norm are averaged
  with the same coefficients. Averages of weights (--store-ema) are merged as well if all files hold them, else left
  out. The entry "merge" of the result tells files, SHA-256, coefficients and method.

  fairseq-train --restore-file C.pt --reset-optimizer --reset-dataloader --reset-meters continues from the result;
  fairseq-validate, fairseq-generate and unival predict read it as any checkpoint.

examples:
  unival merge caption.pt vqa.pt --output half.pt
  unival merge caption.pt vqa.pt --coefficients 0.8,0.2 --output mostly_caption.pt
  unival merge caption.pt vqa.pt snli.pt --method ties --base pretrained.pt --density 0.2 --output ties.pt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unival merge``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG + merge_sweep.EXAMPLES
    parser.add_argument(
        "checkpoints", type=Path, nargs="+", metavar="CKPT", help="checkpoints to merge (.pt or .safetensors)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="OUT", help="file to write (.pt or .safetensors)")
    parser.add_argument("--method", choices=METHODS, default="weighted", help="see below (default: %(default)s)")
    parser.add_argument(
        "--coefficients",
        type=_numbers,
        metavar="C,C,...",
        help="one per file, as --coefficients=0.3,0.7 (default: all the same, with sum 1)",
    )
    parser.add_argument("--base", type=Path, metavar="CKPT", help="what the files were finetuned from")
    parser.add_argument("--density", type=float, help="part of the differences that stays, 0 to 1 (default: 0.2)")
    parser.add_argument("--seed", type=int, help="of what dare drops (default: 1)")
    parser.add_argument("--ema", action="store_true", help="merge the averages of weights; they become the model")
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="REGEX",
        help="keep these tensors of the first file: names that the expression matches at their beginning, or that "
        "contain its text; may be repeated",
    )
    parser.add_argument(
        "--missing",
        choices=MISSING,
        default="error",
        help="tensors that a later file lacks: stop; renormalise: the others' coefficients make up for it; running: "
        "UnIVAL's rule, the sum so far counts in its place. Tensors that only later files have: stop, or drop them "
        "with the other rules (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output file")
    merge_sweep.add_arguments(parser)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers like 0.5,0.5") from None


def plan_of(args: argparse.Namespace) -> Any:
    """The ``MergePlan`` that the arguments describe."""
    options = {"density": args.density, "seed": args.seed}
    return light("checkpoints.averaging").MergePlan(
        paths=tuple(args.checkpoints),
        method=args.method,
        coefficients=args.coefficients,
        base=args.base,
        options={name: value for name, value in options.items() if value is not None},
        source="ema" if args.ema else "model",
        missing=args.missing,
        skip=tuple(args.skip),
    )


def run(args: argparse.Namespace) -> int:
    """Merges, or hands evaluated merges over; what was done goes to the error stream."""
    plan = plan_of(args)
    if args.sweep or args.greedy:
        return merge_sweep.run(args, plan)
    if args.evaluate or args.metric or args.plot or args.minimise or args.keep_checkpoints:
        raise light("errors").ConfigError(
            "--evaluate, --metric, --plot, --minimise and --keep-checkpoints go with --sweep or --greedy"
        )
    report = light("checkpoints.averaging").merge(plan, args.output, overwrite=args.overwrite)
    for note in report["notes"]:
        print(note, file=sys.stderr)
    print(f"{args.output}: {summary(report)}", file=sys.stderr)
    return 0


def summary(report: dict[str, Any]) -> str:
    """Numbers of tensors, for people."""
    parts = [f"{report['merged']} tensors merged"]
    parts += [f"{report[kind]} {words}" for kind, words in _WORDS.items() if report[kind]]
    return ", ".join(parts) + f"; averages of weights: {report['averages']}"


_WORDS = {
    "copied": "that are no real numbers copied",
    "skipped": "skipped",
    "incomplete": "not in all files",
    "dropped": "dropped",
}
