"""Averages checkpoints under the parameters of UnIVAL's script of this name, and gives its numbers.

`--num-models 1` makes one file, the sum of lambda x model over all checkpoints. Any other number interpolates between
two checkpoints: one file per lambda, the weight of the first. `unival merge` can do more, and by default takes missing
tensors for mistakes; here they are treated as in the original (--missing) and counted in a warning.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.light import light

MANY = 1
"""What ``num_models`` is called with for a sum over all checkpoints; strange, but the original's."""

KEPT = {"model": ("averages",), "ema": ("model",)}
"""What the original leaves as it is in the first checkpoint, by what it averages."""


def average(
    checkpoints: Sequence[str | Path],
    lambdas: Sequence[float] = (0.5, 0.5),
    num_models: int = 6,
    output_dir: str | Path = ".",
    filename: str = "average",
    skip_keys: Optional[Sequence[str]] = None,
    ema: bool = False,
    missing: Optional[str] = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Writes ``<output_dir>/<filename>.pt``, or ``<filename>_l<lambda>.pt`` for every lambda.

    Args:
        checkpoints: all, or two to interpolate between.
        lambdas: one per checkpoint, or weights of the first of two.
        num_models: 1: one sum over all checkpoints; any other number: interpolation.
        skip_keys: patterns of names that are treated as missing in later checkpoints.
        ema: average ``extra_state``'s ``ema`` instead of ``model``, which stays the first checkpoint's.
        missing: a rule of `unival merge`. Default, as in the original: ``running`` for a sum (the sum so far counts in
            the place of a missing tensor), the first checkpoint's tensor for an interpolation.

    Returns:
        The reports of the merges.

    Raises:
        ConfigError: numbers of lambdas or checkpoints that do not go together, or a file in the way.
        CheckpointError: a file cannot be read, or shapes differ between two files to interpolate.
    """
    averaging = light("checkpoints.averaging")
    many = num_models == MANY
    if not many and len(checkpoints) != 2:
        raise light("errors").ConfigError(
            f"checkpoints: interpolation needs two, not {len(checkpoints)}; num_models 1 averages any number"
        )
    source = "ema" if ema else "model"
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    points = [tuple(lambdas)] if many else [(weight, 1 - weight) for weight in lambdas]
    reports = []
    for point in points:
        plan = averaging.MergePlan(
            paths=tuple(Path(path) for path in checkpoints),
            coefficients=tuple(float(weight) for weight in point),
            source=source,
            missing=missing or ("running" if many else "renormalise"),
            skip=tuple(skip_keys or ()),
            keep=KEPT[source],
        )
        name = f"{filename}.pt" if many else f"{filename}_l{point[0]:.2f}.pt"
        reports.append(averaging.merge(plan, folder / name, progress))
    return reports


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", nargs="+", required=True, metavar="CKPT", help="checkpoints, the first leads")
    parser.add_argument(
        "--lambdas",
        nargs="+",
        type=float,
        default=[0.5, 0.5],
        help="coefficients of all checkpoints, or weights of the first of two (default: 0.5 0.5)",
    )
    parser.add_argument(
        "--num-models", type=int, default=6, help="1: one sum of all checkpoints; else interpolate (default: 6)"
    )
    parser.add_argument("--output-dir", default=".", help="folder of the results (default: this one)")
    parser.add_argument("--filename", default="average", help="name of the results without .pt (default: average)")
    parser.add_argument("--skip-keys", nargs="+", metavar="REGEX", help="names to treat as missing in later files")
    parser.add_argument("--ema", action="store_true", help="average extra_state's ema; the model stays the first's")
    parser.add_argument(
        "--missing",
        choices=("error", "renormalise", "running"),
        help="rule for tensors that a later file lacks (default: the original's)",
    )
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs the command; 2: the input does not allow it."""
    args = build_parser().parse_args(argv)
    try:
        reports = average(**vars(args))
    except (OSError, light("errors").UnivalError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for report in reports:
        for note in report["notes"]:
            print(f"warning: {note}", file=sys.stderr)
        print(report["output"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
