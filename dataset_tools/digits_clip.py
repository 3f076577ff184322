"""Train a small CLIP on pictures of digits and their captions, in minutes on two CPU cores.

    python dataset_tools/digits_clip.py --rows data/digits/train_1.tsv data/digits/train_2.tsv --selected-cols 0,4,2 \\
        --measure data/digits/val.tsv --output data/digits/clip

writes clip.safetensors and open_clip_config.json, laid out as open_clip's own files, and manifest.json with the
settings and how well the right captions of the pictures of --measure are told from wrong ones. What takes the large
CLIP takes this one: --clip-model-path data/digits/clip/clip.safetensors ranks and rewards generated pictures.

Half of the pictures are shown as dark ink on light paper, the way the codes of digits_tokenizer.py draw them, some are
blurred. The same flags, library versions and number of threads give byte-identical files. The folder appears when it is
complete, or not at all.

Source: Radford et al. 2021, "Learning transferable visual models from natural language supervision".
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Optional

from clip_training import HALVINGS, HEAD_WIDTH, Plan, configuration, measure, train
from digits_wrong_captions import all_captions
from output_folder import MANIFEST, check_free, complete_folder
from plan_flags import adds_flags
from square_pictures import read_squares
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.light import light

TOOL = "digits_clip.py"
VERSIONS = ("torch", "open_clip_torch")
WEIGHTS, CONFIG = "clip.safetensors", "open_clip_config.json"


def read_rows(paths: Sequence[Path], columns: tuple[int, int], size: int) -> tuple[Tensor, list[str]]:
    """The pictures of all rows, resized to squares, uint8 ``(N, 3, size, size)``, and their captions.

    Raises:
        DataError: a file or a picture cannot be used, or a caption is none of digits.py.
    """
    pictures, cells = read_squares(paths, columns, size, _check_caption)
    return pictures, [caption for (caption,) in cells]


def _check_caption(cells: list[str], where: str) -> None:
    if cells[0] not in all_captions():
        raise light("errors").DataError(
            f"{where}: {cells[0][:60]!r} is no caption of digits.py: give its rows and columns"
        )


def build(
    output: Path,
    rows: Sequence[Path],
    columns: tuple[int, int],
    plan: Plan,
    measured: Optional[Path] = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train and write the folder ``output``; returns its manifest.

    Args:
        output: the folder.
        rows: tables to train on.
        columns: of picture and caption.
        plan: how.
        measured: a table of other pictures, to measure the result.
        overwrite: replace a folder of an earlier call.

    Raises:
        FileExistsError: ``output`` exists, unless ``overwrite`` is given and it holds an earlier build.
        DataError: a file, picture or caption cannot be used, or there are too few.
        ConfigError: open_clip is missing.
    """
    check_free(output, TOOL, overwrite)
    metrics = light("metrics.pictures")
    open_clip = _open_clip()
    pictures, captions = read_rows(rows, columns, plan.image_size)
    if len(pictures) < plan.batch_size:
        raise light("errors").DataError(
            f"{len(pictures)} pictures are too few for a batch of {plan.batch_size}: add rows or lower --batch-size"
        )
    others = None if measured is None else read_rows([measured], columns, plan.image_size)
    network = train(open_clip, pictures, captions, plan)
    manifest: dict[str, Any] = {"tool": TOOL, "rows": [str(path) for path in rows], "columns": list(columns)}
    manifest |= {"settings": asdict(plan), "versions": {name: metadata.version(name) for name in VERSIONS}}
    with complete_folder(output) as folder:
        write_clip(network, configuration(plan), folder)
        if others is not None:
            found = measure(metrics.ClipScorer(folder / WEIGHTS), *others)
            manifest |= {"measured_on": str(measured), "measured": found}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _open_clip() -> Any:
    try:
        return import_module("open_clip")
    except ImportError as error:
        raise light("errors").ConfigError("CLIP needs open_clip_torch: pip install 'unival-plugin[images]'") from error


def write_clip(network: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Weights and configuration as open_clip publishes them."""
    from safetensors.torch import save_file

    beside = folder / CONFIG
    beside.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    (folder / WEIGHTS).chmod(beside.stat().st_mode)  # the library hides its files from other users


# -------------------------------------------------------------------------------- command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train a small CLIP on pictures of digits and their captions (rows of digits.py).",
        epilog="example: python dataset_tools/digits_clip.py --rows data/digits/train_1.tsv data/digits/train_2.tsv "
        "--measure data/digits/val.tsv --output data/digits/clip",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    add = adds_flags(parser, Plan())
    add("rows", "tables with pictures (base64) and captions", type=Path, nargs="+", required=True, metavar="FILE")
    add("selected-cols", "numbers of the columns (from 0) of id, picture and caption", type=_columns, default="0,4,2")
    add("measure", "table of other pictures, to measure how well right captions are told", type=Path, metavar="FILE")
    add("output", "folder to make", type=Path, required=True, metavar="DIR")
    add("image-size", f"side of the pictures in pixels, a multiple of {HALVINGS}")
    add("width", "channels of the picture tower; more take longer")
    add("text-width", f"of the text tower, a multiple of {HEAD_WIDTH}")
    add("updates", "length of the training")
    add("batch-size", "pictures of an update")
    add("lr", "highest learning rate", metavar="X")
    add("seed", "same seed, same bytes")
    add("overwrite", "replace an earlier build", action="store_true")
    return parser


def _columns(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not three column numbers, as in 0,4,2")
    return int(parts[1]), int(parts[2])


def _plan(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Plan:
    plan = Plan(**{name: getattr(args, name) for name in Plan.__dataclass_fields__})
    if plan.image_size < 1 or plan.image_size % HALVINGS:
        parser.error(f"--image-size must be a multiple of {HALVINGS}")
    if plan.text_width < 1 or plan.text_width % HEAD_WIDTH:
        parser.error(f"--text-width must be a multiple of {HEAD_WIDTH}")
    if plan.width < 2 or plan.width % 2:
        parser.error("--width must be an even number")
    if plan.updates < 1 or plan.batch_size < 2 or plan.seed < 0:
        parser.error("--updates must be at least 1, --batch-size at least 2, --seed at least 0")
    if not 0 < plan.lr < 1:
        parser.error("--lr must be above 0 and below 1")
    return plan


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    plan, start = _plan(args, parser), time.monotonic()
    try:
        manifest = build(args.output, args.rows, args.selected_cols, plan, args.measure, args.overwrite)
    except (OSError, ValueError) as error:
        print(f"{TOOL}: error: {error}", file=sys.stderr)
        return 2
    parts = [
        f"{100 * found['exchanged']:.1f} % of the {kind} fit their caption better than all with one digit exchanged"
        for kind, found in manifest.get("measured", {}).items()
    ]
    print(f"{args.output / WEIGHTS}: {'; '.join([*parts, f'{time.monotonic() - start:.0f} s'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
