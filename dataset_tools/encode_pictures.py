"""Turn rows with pictures into rows for making pictures from text: the codes of an image tokenizer for each picture.

    python dataset_tools/encode_pictures.py --tsv data/digits/train_2.tsv --selected-cols 0,4,2 \\
        --vqgan-model-path data/digits/tokenizer/last.ckpt --vqgan-config-path data/digits/tokenizer/model.yaml \\
        --code-image-size 64 --output data/digits/image_gen_train_2.tsv

reads id, picture and caption and writes

    id <tab> 3 17 60 ... <tab> caption

which the task image_gen reads with --selected-cols 0,2,1. With --selected-cols for id and picture only, there is no
caption to write. A picture is resized (bicubic) to a square of --code-image-size pixels; the codes stand line by line,
from the upper left corner to the lower right one. Where a cell holds several captions joined by "&&", each gives a row
(--captions first: only the first one).

The output appears when it is complete. What is done of it stays in .NAME.part beside it when the tool is stopped, and
the same command goes on from there; the rows are the same as without a stop. Rows that cannot be used stop the tool, or
are named and left out with --on-bad-row skip.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Optional

import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.data_schemas import SEPARATOR
from unival_cli.files import refuse_existing
from unival_cli.light import light
from unival_cli.unfinished_output import State, UnfinishedOutput, fingerprint

TOOL = "encode_pictures.py"
SHOWN_BAD_ROWS = 20
"""How many bad rows are named; all are counted."""
NOTE_SECONDS = 5.0
"""How often the state of an unfinished output is noted."""


@dataclass(frozen=True)
class Settings:
    """What the rows depend on, beside the files; the fields are the flags of the command."""

    selected_cols: tuple[int, ...] = (0, 4, 2)
    code_image_size: int = 256
    batch_size: int = 16
    captions: str = "each"
    image_dir: Optional[str] = None
    read_from_img_path: bool = False


# -------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Picture:
    """A row: float32 pixels ``(3, size, size)`` in [-1, 1], the row's id and captions (none: two columns)."""

    name: str
    pixels: Tensor
    captions: Optional[list[str]]

    def lines(self, codes: Sequence[int]) -> str:
        """The rows of the output, each with its line end."""
        cells = f"{self.name}\t{' '.join(map(str, codes))}"
        return "".join(f"{cells}\t{text}\n" for text in self.captions) if self.captions else f"{cells}\n"


class Rows:
    """Reads rows with their pictures; threads may share it.

    Args:
        path: the table.
        settings: columns and how pictures are read.

    Raises:
        DataError: the table is missing or empty, or a column does not exist.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.table = light("data.tsv").TsvTable(path, settings.selected_cols)
        self.settings = settings
        self._bad = light("errors").DataError
        self._images = light("data.image")
        self._transform = self._images.eval_transform(settings.code_image_size)
        if len(self.table) == 0:
            raise self._bad(f"{path} is empty: give a table with at least one row")

    def __len__(self) -> int:
        return len(self.table)

    def read(self, i: int) -> Picture | ValueError:
        """Row ``i`` (from 0), or why it cannot be used."""
        try:
            return self._read(i)
        except self._bad as error:
            return error

    def _read(self, i: int) -> Picture:
        name, picture, *caption = self.table.row(i)
        if not name.strip():
            raise self._bad(f"{self.table.where(i, 0)}: the id is empty: fill in the cell or remove the row")
        captions = self._captions(caption[0], self.table.where(i, 2)) if caption else None
        folder = Path(self.settings.image_dir) if self.settings.image_dir else None
        where = self.table.where(i, 1)
        image = self._images.read_cell_image(picture, where, folder, self.settings.read_from_img_path)
        return Picture(name, self._transform(image), captions)

    def _captions(self, cell: str, where: str) -> list[str]:
        captions = [text.strip() for text in cell.split(SEPARATOR)]
        if not all(captions):
            raise self._bad(f"{where}: the caption, or one between {SEPARATOR}, is empty: write it or remove the row")
        return captions[:1] if self.settings.captions == "first" else captions


# -------------------------------------------------------------------------------- encoding


class Encoder:
    """Batches of pictures -> codes.

    Args:
        weights, config: files of the image tokenizer.
        size: side of the pictures in pixels.
        device: where to compute.

    Raises:
        CheckpointError, ConfigError: the files cannot be used, or the size does not fit.
    """

    def __init__(self, weights: Path, config: Path, size: int, device: torch.device) -> None:
        tokenizer = light("checkpoints.image_tokenizer").read_image_tokenizer(weights, config)
        if size % tokenizer.factor:
            raise light("errors").ConfigError(
                f"--code-image-size {size} is no multiple of {tokenizer.factor}, the pixels that a code of {weights} "
                "spans along a side"
            )
        self.tokenizer, self.device = tokenizer.to(device).eval(), device

    @torch.inference_mode()
    def codes(self, pictures: Sequence[Picture]) -> list[list[int]]:
        """The codes of each picture, line by line. Raises ConfigError if the memory does not do."""
        pixels = torch.stack([picture.pixels for picture in pictures])
        try:
            found: list[list[int]] = self.tokenizer.encode(pixels.to(self.device)).flatten(1).tolist()
        except torch.OutOfMemoryError as error:
            raise light("errors").ConfigError(
                f"{len(pictures)} pictures at a time need more memory than {self.device} has: lower --batch-size"
            ) from error
        return found


class Writer:
    """Encodes batch by batch, reading the next pictures meanwhile.

    Args:
        rows: where the pictures come from.
        encoder: what turns them into codes.
        batch_size: rows at a time.
        skip: leave bad rows out and count them instead of stopping.
    """

    def __init__(self, rows: Rows, encoder: Encoder, batch_size: int, skip: bool) -> None:
        self.rows, self.encoder, self.batch_size, self.skip = rows, encoder, batch_size, skip

    def run(self, part: UnfinishedOutput, handle: BinaryIO, state: State, threads: int) -> None:
        """Write all rows from ``state.rows`` on. Raises DataError."""
        noted = time.monotonic()
        with (
            tqdm(total=len(self.rows), initial=state.rows, desc="pictures", unit="row", disable=None) as bar,
            ThreadPoolExecutor(threads) as pool,
        ):
            for batch in self._batches(pool, state.rows):
                self._write(batch, handle, state)
                bar.update(len(batch))
                if time.monotonic() - noted >= NOTE_SECONDS:
                    part.note(handle, state)
                    noted = time.monotonic()

    def _batches(self, pool: ThreadPoolExecutor, first: int) -> Iterator[list[Picture | ValueError]]:
        # Starts are multiples of the batch size, also after a stop: a picture always meets the same others, so that
        # rounding, which depends on the number of pictures, cannot change its codes.
        ahead = self._read(pool, first)
        for start in range(first, len(self.rows), self.batch_size):
            current, ahead = ahead, self._read(pool, start + self.batch_size)
            yield [future.result() for future in current]

    def _read(self, pool: ThreadPoolExecutor, start: int) -> list[Future[Picture | ValueError]]:
        numbers = range(start, min(start + self.batch_size, len(self.rows)))
        return [pool.submit(self.rows.read, i) for i in numbers]

    def _write(self, batch: Sequence[Picture | ValueError], handle: BinaryIO, state: State) -> None:
        pictures = [row for row in batch if isinstance(row, Picture)]
        bad = [row for row in batch if isinstance(row, ValueError)]
        if bad and not self.skip:
            raise bad[0]
        found = self.encoder.codes(pictures) if pictures else []
        data = "".join(picture.lines(codes) for picture, codes in zip(pictures, found, strict=True)).encode("utf-8")
        handle.write(data)
        state.rows += len(batch)
        state.written += data.count(b"\n")
        state.size += len(data)
        for error in bad:
            self._leave_out(error, state)

    def _leave_out(self, error: ValueError, state: State) -> None:
        state.bad_rows += 1
        if state.bad_rows <= SHOWN_BAD_ROWS:
            tqdm.write(f"{TOOL}: row left out: {error}", file=sys.stderr)
        elif state.bad_rows == SHOWN_BAD_ROWS + 1:
            tqdm.write(f"{TOOL}: further bad rows are counted, not named", file=sys.stderr)


# -------------------------------------------------------------------------------- command


def _parser() -> argparse.ArgumentParser:
    settings = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add(name: str, text: str, **options: Any) -> None:
        # The original's tool has names with underscores.
        parser.add_argument(*dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}")), help=text, **options)

    add("tsv", "rows with pictures", type=Path, required=True, metavar="FILE")
    add(
        "selected-cols",
        "numbers of the columns (from 0): id, picture and, if wanted, caption (default: 0,4,2)",
        type=_columns,
        default=settings.selected_cols,
        metavar="A,B,C",
    )
    add("vqgan-model-path", "weights of the tokenizer (last.ckpt)", type=Path, required=True, metavar="FILE")
    add("vqgan-config-path", "its settings (model.yaml)", type=Path, required=True, metavar="FILE")
    add(
        "code-image-size",
        "side of the pictures in pixels when they are encoded (default: 256)",
        type=int,
        default=settings.code_image_size,
        metavar="N",
    )
    add("output", "rows to write", type=Path, required=True, metavar="FILE")
    add(
        "captions",
        "of several captions joined by &&, write each as a row of its own or only the first (default: each)",
        choices=("each", "first"),
        default=settings.captions,
    )
    add("batch-size", "pictures at a time (default: 16)", type=int, default=settings.batch_size, metavar="N")
    add(
        "num-workers",
        "threads that read pictures (default: one a core, 8 at most)",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
    )
    add("device", "cpu, cuda, cuda:1 ... (default: the GPU if there is one)")
    add("image-dir", "folder that paths of pictures are relative to", metavar="DIR")
    add("read-from-img-path", "the picture column holds a path, not base64", action="store_true")
    add(
        "on-bad-row",
        "stop at a bad row, or leave it out and count it (default: raise)",
        choices=("raise", "skip"),
        default="raise",
    )
    add("overwrite", "replace the output of an earlier call", action="store_true")
    return parser


def _columns(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) not in (2, 3) or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not two or three column numbers, as in 0,4,2")
    return tuple(int(part) for part in parts)


def _device(name: Optional[str]) -> torch.device:
    """The device of this name, or the usual one. Raises ConfigError if it cannot be used."""
    error = light("errors").ConfigError
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as fault:
        raise error(f"--device {name!r} is no device: say cpu, cuda or cuda:1") from fault
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise error(f"--device {name}: there are {torch.cuda.device_count()} GPUs: choose another one or cpu")
    return device


def encode(args: argparse.Namespace) -> State:
    """What the command does; returns the numbers of rows. Raises OSError or ValueError."""
    settings = Settings(**{name: getattr(args, name) for name in Settings.__dataclass_fields__})
    weights, config = args.vqgan_model_path, args.vqgan_config_path
    refuse_existing(args.output, args.overwrite)
    rows = Rows(args.tsv, settings)
    encoder = Encoder(weights, config, settings.code_image_size, _device(args.device))
    files = {"tsv": args.tsv, "weights": weights, "config": config}
    inputs = {name: fingerprint(path) for name, path in files.items()}
    inputs |= {"settings": {**asdict(settings), "selected_cols": list(settings.selected_cols)}}
    part = UnfinishedOutput(args.output, TOOL)
    with part.open(inputs) as (handle, state):
        Writer(rows, encoder, settings.batch_size, args.on_bad_row == "skip").run(part, handle, state, args.num_workers)
        if state.written == 0:
            state.rows = 0  # nothing that is worth going on from
            raise light("errors").DataError("none of the rows can be used; see the messages above")
    return state


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if min(args.code_image_size, args.batch_size, args.num_workers) < 1:
        parser.error("--code-image-size, --batch-size and --num-workers must be at least 1")
    if args.read_from_img_path and args.image_dir is None:
        parser.error("--read-from-img-path needs --image-dir, the folder in which the paths start")
    try:
        state = encode(args)
    except (OSError, ValueError) as error:
        print(f"{TOOL}: error: {error}", file=sys.stderr)
        return 2
    left_out = f" ({state.bad_rows} bad ones left out)" if state.bad_rows else ""
    print(f"{args.output}: {state.written} rows of {state.rows} pictures{left_out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
