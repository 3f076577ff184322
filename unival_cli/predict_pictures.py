"""``unival predict --task image_gen``: pictures for captions, as PNG files, a sheet of them, and lines of JSON."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Optional

from .predict_rows import TEXT, Key, Row, rows_of_file

TASK = "image_gen"
FILES = ("vqgan_model_path", "vqgan_config_path", "clip_model_path")
SEARCH = ("sampling_topk", "sampling_topp", "temperature")
FLAGS = (*SEARCH, "seed", *FILES)
"""Arguments that mean nothing for other tasks."""
FOLDER = Path("drawn")
SEED = 1
SEED_DIGITS = 15
"""Of a hash: 60 bits, a seed may have 63."""
BATCH_SIZE = 4

SHEET = "contact_sheet.png"
SHEET_CAPTIONS, SHEET_PICTURES = 40, 16
CELL, CAPTION_WIDTH, MARGIN = 128, 200, 8
FONT_SIZE, LINE_HEIGHT = 14, 17
PAPER, INK, QUIET = (255, 255, 255), (20, 20, 20), (110, 110, 110)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that this task alone has."""
    group = parser.add_argument_group("pictures (image_gen)")
    group.add_argument("--sampling-topk", type=int, metavar="K", help="draw every code among the K most probable")
    group.add_argument(
        "--sampling-topp", type=float, metavar="P", help="draw every code among the most probable of total share P"
    )
    group.add_argument("--temperature", type=float, help="below 1 nearer to the most probable, above 1 more varied")
    group.add_argument(
        "--seed",
        type=int,
        help=f"other pictures for every seed; the same command draws the same (default: {SEED})",
    )
    group.add_argument("--vqgan-model-path", metavar="FILE", help="weights of the VQGAN, if they have moved")
    group.add_argument("--vqgan-config-path", metavar="FILE", help="sizes of the VQGAN, if they have moved")
    group.add_argument(
        "--clip-model-path",
        metavar="FILE",
        help='weights of CLIP that ranks the pictures; "" for none: their scores are then log-probabilities',
    )


def rows_of(args: argparse.Namespace) -> list[Row]:
    """The captions.

    Raises:
        ConfigError: none, or arguments that do not go together.
    """
    from unival_plugin.errors import ConfigError

    if args.media:
        raise ConfigError(
            f"--task {TASK} draws what texts say and takes no files, such as {args.media[0]}; put a text in quotes"
        )
    if args.text is not None and args.input is not None:
        raise ConfigError("give either --text or --input FILE, which has its own texts")
    if args.input is not None:
        return rows_of_file(args.input, TEXT)
    if args.text is None or not args.text.strip():
        raise ConfigError(f'--task {TASK} needs a caption: --text "…", or --input FILE with a "text" a row')
    return [Row(TEXT, args.text, Path())]


def search_flags(given: dict[str, Any]) -> dict[str, Any]:
    """Flags of the search; --sampling-topk or --sampling-topp takes the place of what the checkpoint has of both."""
    other = {"sampling_topk": "sampling_topp", "sampling_topp": "sampling_topk"}
    off = {other[name]: -1 for name in other if given.get(name, -1) != -1}
    return {**off, **given}


@dataclass(frozen=True)
class _Request:
    """A row with its number, from 1, and how many rows with the same caption come before it."""

    row: Row
    number: int
    turn: int


class Painter:
    """Draws captions and writes the pictures.

    What chance decides depends on seed, caption and the other captions of the batch, not on what was drawn before, so
    that a command that continues an interrupted one draws what that would have drawn.

    Args:
        predictor: for task ``image_gen``.
        args: of the command.
        generation: options of the search.

    Raises:
        ConfigError: a bad option, or no VQGAN is known.
        CheckpointError: VQGAN or CLIP cannot be used.
    """

    unit = "caption"
    failure = "captions could not be drawn"

    def __init__(self, predictor: Any, args: argparse.Namespace, generation: dict[str, Any]) -> None:
        from unival_plugin.errors import ConfigError

        self._predictor, self._generation = predictor, generation
        self._folder = FOLDER if args.draw is None else args.draw
        self._batch_size = BATCH_SIZE if args.batch_size is None else args.batch_size
        self._seed = SEED if args.seed is None else args.seed
        if self._batch_size < 1:
            raise ConfigError(f"--batch-size {self._batch_size}: must be at least 1")
        drawn = predictor.task.answer_options(generation).beam_size * predictor.task.cfg.sampling_times
        self._kept = drawn if args.n_best is None else args.n_best
        if not 1 <= self._kept <= drawn:
            raise ConfigError(
                f"--n-best {self._kept}: give 1 to {drawn}, the pictures of a caption, or a larger --beam"
            )
        predictor.draw_each([], 1, **generation)  # reads the files, so that a missing one is told before drawing
        self._written: list[dict[str, Any]] = []

    def how(self) -> dict[str, Any]:
        """What besides checkpoint and search decides about the pictures."""
        from unival_plugin.checkpoints.reading import sha256 as sha256_of

        files = {name: self._predictor.task.cfg[name] for name in FILES}
        return {
            "n_best": self._kept,
            "seed": self._seed,
            "batch_size": self._batch_size,
            **{name: sha256_of(Path(path)) if path else None for name, path in files.items()},
        }

    def lines(self, rows: Sequence[Row], done: Counter[Key], how: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A line for every row that is not answered yet, once its pictures are written.

        Args:
            rows: all of the command.
            done: how many of them are answered, by key.
            how: everything that decides about the pictures; files of other settings have other names.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        requests = list(_requests(rows))
        for start in range(0, len(requests), self._batch_size):
            batch = requests[start : start + self._batch_size]
            left = [request.turn >= done[request.row.key] for request in batch]
            if not any(left):
                continue
            captions = [[request.row.name, request.turn] for request in batch]
            for request, wanted, found in zip(batch, left, self._drawn(batch, captions), strict=True):
                if wanted:
                    yield self._line(request, found, [how, captions])

    def _drawn(self, batch: list[_Request], captions: list[list[Any]]) -> Iterator[Any]:
        import torch

        good = [request.row.name for request in batch if not request.row.error]
        torch.manual_seed(int(_digest([self._seed, captions])[:SEED_DIGITS], 16))
        found = self._predictor.draw_each(good, max(len(good), 1), **self._generation)
        for request in batch:
            yield request.row.error or next(found)

    def _line(self, request: _Request, found: Any, drawn_so: Any) -> dict[str, Any]:
        from unival_plugin.unival.tasks.drawing import file_name, save_png

        line = request.row.line()
        if isinstance(found, str):
            return {**line, "error": found}
        name = file_name(f"{request.number:04d}", json.dumps([drawn_so, request.row.name, request.turn]))
        pictures = found.pictures[: self._kept]
        paths = [self._folder / f"{name}_{rank}.png" for rank in range(len(pictures))]
        for picture, path in zip(pictures, paths, strict=True):
            save_png(picture, path)
        scores = [round(score, 4) for score in found.scores[: self._kept]]
        line |= {"pictures": [str(path) for path in paths], "score": scores[0], "scores": scores}
        self._written.append(line)
        return line

    def finish(self, output: Optional[Path]) -> str:
        """Writes the sheet, of all that ``output`` holds if there is one; what there is to say about it."""
        from unival_plugin.unival.tasks.drawing import save_png

        lines = self._written if output is None else _drawn_lines(output)
        if not lines:
            return ""
        sheet, gone = contact_sheet(lines[:SHEET_CAPTIONS])
        save_png(sheet, self._folder / SHEET)
        return f"pictures on one sheet: {self._folder / SHEET}" + _remarks(lines, gone)


def _requests(rows: Iterable[Row]) -> Iterator[_Request]:
    turns = Counter[Key]()
    for number, row in enumerate(rows, start=1):
        yield _Request(row, number, turns[row.key])
        turns[row.key] += 1


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _drawn_lines(output: Path) -> list[dict[str, Any]]:
    with output.open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [line for line in lines if "pictures" in line]


# ---- the sheet


def contact_sheet(lines: Sequence[dict[str, Any]]) -> tuple[Any, int]:
    """A white RGB picture, and how many files are gone, whose cells stay empty.

    A row of the sheet is a caption and its pictures, best first, with their scores below.

    Args:
        lines: of the answer, at least one.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    height = CELL + LINE_HEIGHT + MARGIN
    columns = min(max(len(line["pictures"]) for line in lines), SHEET_PICTURES)
    size = (CAPTION_WIDTH + 2 * MARGIN + columns * (CELL + MARGIN), MARGIN + len(lines) * height)
    sheet, gone = Image.new("RGB", size, PAPER), 0
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        top = MARGIN + row * height
        for number, text in enumerate(_wrapped(font, line[TEXT], CAPTION_WIDTH, (height - MARGIN) // LINE_HEIGHT)):
            draw.text((MARGIN, top + number * LINE_HEIGHT), text, fill=INK, font=font)
        for column, (name, score) in enumerate(zip(line["pictures"][:columns], line["scores"], strict=False)):
            left = CAPTION_WIDTH + 2 * MARGIN + column * (CELL + MARGIN)
            if Path(name).is_file():
                sheet.paste(_enlarged(Path(name)), (left, top))
            else:
                gone += 1
            draw.text((left, top + CELL), f"{score:.4f}", fill=QUIET, font=font)
    return sheet, gone


def _enlarged(path: Path) -> Any:
    from PIL import Image

    from unival_plugin.data.image import decode_image

    picture = decode_image(path.read_bytes(), str(path))
    # enlarged pixels stay visible as squares: what was drawn, not a smoothed guess
    method = Image.Resampling.NEAREST if max(picture.size) < CELL else Image.Resampling.LANCZOS
    return picture.resize((CELL, CELL), method)


def _wrapped(font: Any, text: str, width: int, most: int) -> list[str]:
    """Lines of a text, at most ``most``; what does not fit is cut off behind "…"."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]} …"]
    return [_cut(font, line, width) for line in lines]


def _cut(font: Any, line: str, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    end = len(line)
    while end and font.getlength(f"{line[:end]}…") > width:
        end -= 1
    return f"{line[:end]}…"


def _remarks(lines: Sequence[dict[str, Any]], gone: int) -> str:
    most = max(len(line["pictures"]) for line in lines[:SHEET_CAPTIONS])
    remarks = [
        f"the first {SHEET_CAPTIONS} of {len(lines)} captions" if len(lines) > SHEET_CAPTIONS else "",
        f"the best {SHEET_PICTURES} of {most} pictures" if most > SHEET_PICTURES else "",
        f"files that are gone: {gone}" if gone else "",
    ]
    told = ", ".join(remark for remark in remarks if remark)
    return f" ({told})" if told else ""
