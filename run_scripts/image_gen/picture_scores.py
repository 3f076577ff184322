"""What fid_score.py and inception_score.py have in common."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

from unival_cli.files import atomic_output
from unival_cli.light import light

Scores = dict[str, float]


def parser(description: str | None) -> argparse.ArgumentParser:
    """The flags that both have."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    found.add_argument("--path1", required=True, type=Path, metavar="FOLDER", help="generated pictures")
    found.add_argument(
        "--weights", required=True, type=Path, metavar="FILE", help="pt_inception-2015-12-05-6726825d.pth, a local file"
    )
    found.add_argument("--batch-size", type=_count, default=128, metavar="N", help="pictures at a time")
    where = found.add_mutually_exclusive_group()
    where.add_argument("--gpu", type=int, default=argparse.SUPPRESS, metavar="N", help="the GPU that computes")
    where.add_argument("--device", default=argparse.SUPPRESS, help="what computes: cpu (if neither is given), cuda, …")
    found.add_argument("--output", type=Path, metavar="FILE", help="also write the scores to this JSON file")
    return found


def device_of(options: argparse.Namespace) -> str:
    """Name of the device.

    Raises:
        ConfigError: there is no such device.
    """
    import torch

    name = f"cuda:{options.gpu}" if "gpu" in options else getattr(options, "device", "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise light("errors").ConfigError(f"{name}: no such device here; use --device cpu") from error
    return name


def show(tool: str, options: argparse.Namespace, compute: Callable[[], Scores]) -> int:
    """Prints the scores in one line, writes them where --output says; returns the exit status."""
    try:
        scores = compute()
        if options.output is not None:
            with atomic_output(options.output, overwrite=True) as handle:
                handle.write((json.dumps(scores, indent=2) + "\n").encode())
    except (OSError, ValueError) as error:
        print(f"{tool}: error: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{name}: {score:.4f}" for name, score in scores.items()))
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)
