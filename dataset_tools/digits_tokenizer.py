"""Train a small image tokenizer (VQGAN with few codes) on the pictures of rows, in minutes on two CPU cores.

    python dataset_tools/digits_tokenizer.py --rows data/digits/train_2.tsv --selected-cols 0,4 \\
        --output data/digits/tokenizer

writes last.ckpt and model.yaml, laid out as the released files of the large tokenizer, and manifest.json with the
settings and how well pictures that were held out come back. A picture of 64 x 64 pixels becomes 8 x 8 codes.
encode_pictures.py turns rows with pictures into rows with codes.

What comes back is the drawing as dark ink on light paper: a few codes do not suffice for colours and noise as well, and
a network that is to write the codes from captions, which do not name these, would have to guess them. Code 0 is paper.

The same flags, library versions and number of threads give byte-identical files. The folder appears when it is
complete, or not at all.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

from output_folder import MANIFEST, check_free, complete_folder
from plan_flags import adds_flags
from square_pictures import read_squares
from tokenizer_training import CODE_SIDE, Plan, measure, train
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.light import light

TOOL = "digits_tokenizer.py"
WEIGHTS, CONFIG = "last.ckpt", "model.yaml"


# -------------------------------------------------------------------------------- pictures


def read_pictures(paths: Sequence[Path], column: int, size: int) -> Tensor:
    """The pictures of all rows, resized to squares: uint8 ``(N, 3, size, size)``.

    Raises:
        DataError: a file or a picture cannot be used.
    """
    return read_squares(paths, (column,), size)[0]


# -------------------------------------------------------------------------------- the folder


def build(output: Path, rows: Sequence[Path], column: int, plan: Plan, overwrite: bool = False) -> dict[str, Any]:
    """Train and write the folder ``output``; returns its manifest.

    Raises:
        FileExistsError: it exists, unless ``overwrite`` is given and it holds an earlier build.
        DataError: a file or a picture cannot be used, or there are too few.
    """
    check_free(output, TOOL, overwrite)
    pictures = read_pictures(rows, column, plan.image_size)
    if len(pictures) < plan.held_out + plan.batch_size:
        raise light("errors").DataError(
            f"{len(pictures)} pictures are too few for {plan.held_out} held-out ones and a batch of "
            f"{plan.batch_size}: give more rows or lower --held-out"
        )
    first_held_out = len(pictures) - plan.held_out
    tokenizer = train(pictures[:first_held_out], plan)
    found = measure(tokenizer, pictures[first_held_out:])
    manifest = {"tool": TOOL, "rows": [str(path) for path in rows], "column": column, "settings": asdict(plan)}
    manifest |= {"held_out": found, "versions": {"torch": metadata.version("torch")}}
    with complete_folder(output) as folder:
        light("checkpoints.image_tokenizer").write_image_tokenizer(tokenizer, folder / WEIGHTS, folder / CONFIG)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


# -------------------------------------------------------------------------------- command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train a small image tokenizer on the pictures of rows, such as those of digits.py.",
        epilog="example: python dataset_tools/digits_tokenizer.py --rows data/digits/train_2.tsv --selected-cols 0,4 "
        "--output data/digits/tokenizer",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    add = adds_flags(parser, Plan())
    needed: dict[str, Any] = {"required": True, "default": argparse.SUPPRESS}
    add("rows", "tables with pictures (base64)", type=Path, nargs="+", metavar="FILE", **needed)
    add(
        "selected-cols",
        "numbers of the columns (from 0) of id and picture",
        type=_columns,
        default="0,4",
        metavar="A,B",
    )
    add("output", "folder to make", type=Path, metavar="DIR", **needed)
    add("image-size", "side of the pictures in pixels, a multiple of 8")
    add("code-dict-size", "number of codes")
    add("channels", "channels of the network at full size; more take longer and give clearer pictures")
    add("updates", "length of the training")
    add("batch-size", "pictures of an update")
    add("lr", "highest learning rate", metavar="X")
    add("held-out", "rows at the end that are measured, not trained on")
    add("seed", "same seed, same bytes")
    add("overwrite", "replace an earlier build", action="store_true")
    return parser


def _columns(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not two column numbers, as in 0,4")
    return int(parts[0]), int(parts[1])


def _plan(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Plan:
    plan = Plan(**{name: getattr(args, name) for name in Plan.__dataclass_fields__})
    if plan.image_size < 1 or plan.image_size % CODE_SIDE:
        parser.error(f"--image-size must be a multiple of {CODE_SIDE}")
    if plan.code_dict_size < 2:
        parser.error("--code-dict-size must be at least 2")
    if min(plan.channels, plan.updates, plan.batch_size, plan.held_out) < 1 or plan.seed < 0:
        parser.error("--channels, --updates, --batch-size and --held-out must be at least 1, --seed at least 0")
    if not 0 < plan.lr < 1:
        parser.error("--lr must be above 0 and below 1")
    return plan


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    plan, start = _plan(args, parser), time.monotonic()
    try:
        found = build(args.output, args.rows, args.selected_cols[1], plan, args.overwrite)["held_out"]
    except (OSError, ValueError) as error:
        print(f"{TOOL}: error: {error}", file=sys.stderr)
        return 2
    print(
        f"{args.output}: {plan.held_out} held-out pictures come back with a mean error of {found['error']} of 255 and "
        f"use {found['codes_used']} of {plan.code_dict_size} codes (perplexity {found['perplexity']}); "
        f"{time.monotonic() - start:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
