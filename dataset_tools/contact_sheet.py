"""Draw a grid of pictures with their captions; captions that differ from the reference are red.

    python dataset_tools/contact_sheet.py --tsv data/digits/test.tsv --selected-cols 0,4,2 \\
        --predictions results/test_predict.json --output sheet.png --limit 36
"""

from __future__ import annotations

import argparse
import base64
import binascii
import io
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from tqdm import tqdm

Item = tuple[Image.Image, str, str | None]  # picture, caption, reference (several joined with "&&") or None

PAPER = (255, 255, 255)
INK = (20, 20, 20)
WRONG = (200, 0, 0)
QUIET = (110, 110, 110)
FONT_SIZE = 14
MARGIN = 8


def contact_sheet(items: Sequence[Item], columns: int = 6, cell: int = 160) -> Image.Image:
    """A white RGB sheet: each picture enlarged or shrunk into a square of ``cell`` pixels, its caption below.

    A wrong caption is red with the first reference below it in grey. Raises ValueError if there is nothing to draw.
    """
    if not items:
        raise ValueError("there is no picture to draw")
    columns = min(columns, len(items))
    font = ImageFont.load_default(FONT_SIZE)
    texts = [_lines(font, caption, reference, cell) for _, caption, reference in items]
    line_height = FONT_SIZE + 3
    grid = [texts[start : start + columns] for start in range(0, len(items), columns)]
    heights = [cell + 3 * MARGIN // 2 + line_height * max(map(len, row)) for row in grid]
    sheet = Image.new("RGB", (MARGIN + columns * (cell + MARGIN), MARGIN + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, ((picture, _, _), lines) in enumerate(zip(items, texts, strict=True)):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * (cell + MARGIN), MARGIN + sum(heights[:row])
        _paste(sheet, picture, x, y, cell)
        for offset, (text, colour) in enumerate(lines):
            draw.text((x, y + cell + MARGIN // 2 + offset * line_height), text, fill=colour, font=font)
    return sheet


def is_right(caption: str, reference: str) -> bool:
    """Whether the caption equals one of the references joined with ``&&``, white space aside."""
    return " ".join(caption.split()) in {" ".join(text.split()) for text in reference.split("&&")}


def _paste(sheet: Image.Image, picture: Image.Image, x: int, y: int, cell: int) -> None:
    scale = cell / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Enlarged pixels stay visible as squares: what the model saw, not a smoothed guess.
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    shown = picture.convert("RGB").resize(size, method)
    sheet.paste(shown, (x + (cell - size[0]) // 2, y + (cell - size[1]) // 2))


def _lines(
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont, caption: str, reference: str | None, width: int
) -> list[tuple[str, tuple[int, int, int]]]:
    """The lines below a picture with their colours."""
    right = reference is None or is_right(caption, reference)
    lines = [(line, INK if right else WRONG) for line in _wrap(font, caption or "(empty)", width)]
    if reference is not None and not right:
        lines += [(line, QUIET) for line in _wrap(font, reference.split("&&")[0], width)]
    return lines


def _wrap(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


# -------------------------------------------------------------------------------- input


def read_predictions(path: Path) -> list[tuple[str, str]]:
    """(picture id or path, caption) pairs of a ``*_predict.json`` list or JSON lines; ValueError names a bad record."""
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        records = list(enumerate(json.loads(text), start=1))
    else:
        records = [(row, json.loads(line)) for row, line in enumerate(text.splitlines(), start=1) if line.strip()]
    pairs = []
    for row, record in records:
        key = record.get("image_id", record.get("image")) if isinstance(record, dict) else None
        if key is None or not isinstance(record.get("caption"), str):
            raise ValueError(f'{path}: record {row} needs "caption" and "image_id" or "image"')
        pairs.append((str(key), record["caption"]))
    return pairs


def items_from_table(
    tsv: Path, columns: Sequence[int], predictions: Sequence[tuple[str, str]] | None, limit: int
) -> list[Item]:
    """Pictures of a TSV in file order with predicted captions and references; without predictions the references."""
    captions = None if predictions is None else dict(predictions)
    id_column, image_column, text_column = columns
    items: list[Item] = []
    with tqdm(total=limit, desc="pictures", disable=None) as bar:
        for row, cells in _table_rows(tsv, max(columns)):
            if len(items) == limit:
                break
            caption = cells[text_column] if captions is None else captions.get(cells[id_column])
            if caption is None:
                continue
            reference = None if captions is None else cells[text_column]
            items.append((_decode(cells[image_column], f"{tsv}:row {row}"), caption, reference))
            bar.update()
    return items


def _table_rows(tsv: Path, last: int) -> Iterator[tuple[int, list[str]]]:
    with tsv.open(encoding="utf-8", newline="\n") as lines:
        for row, line in enumerate(lines, start=1):
            cells = line.rstrip("\r\n").split("\t")
            if len(cells) <= last:
                raise ValueError(f"{tsv}:row {row}: {len(cells)} columns, but column {last} (from 0) is needed")
            yield row, cells


def _decode(cell: str, where: str) -> Image.Image:
    try:
        data = base64.b64decode(cell.replace("-", "+").replace("_", "/"), validate=True)
        with Image.open(io.BytesIO(data)) as picture:
            return picture.convert("RGB")
    except (binascii.Error, UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{where}: no picture in base64 ({error})") from error


def items_from_files(predictions: Sequence[tuple[str, str]], folder: Path, limit: int) -> list[Item]:
    """Pictures named by the predictions themselves; relative paths start at ``folder``."""
    items: list[Item] = []
    for name, caption in tqdm(itertools.islice(predictions, limit), desc="pictures", disable=None):
        with Image.open(folder / name) as picture:
            items.append((picture.convert("RGB"), caption, None))
    return items


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Draw a grid of pictures with their captions as one PNG file; wrong captions are red.",
        epilog="example: python dataset_tools/contact_sheet.py --tsv data/digits/test.tsv "
        "--predictions results/test_predict.json --output sheet.png",
    )
    parser.add_argument(
        "--tsv",
        type=Path,
        help="table with the pictures (base64) and references; without it the predictions name picture files",
    )
    parser.add_argument("--selected-cols", default="0,4,2", help="columns of id, picture and caption (default: 0,4,2)")
    parser.add_argument(
        "--predictions", type=Path, help="*_predict.json or JSON lines; without it the captions of the table are drawn"
    )
    parser.add_argument(
        "--image-dir", type=Path, default=Path(), help="where relative picture paths of the predictions start"
    )
    parser.add_argument("--output", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--limit", type=int, default=36, help="most pictures (default: 36)")
    parser.add_argument("--columns", type=int, default=6, help="pictures in a line (default: 6)")
    parser.add_argument("--cell", type=int, default=160, help="side of a picture in pixels (default: 160)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.tsv is None and args.predictions is None:
        parser.error("give --tsv, --predictions or both")
    columns = [int(column) for column in args.selected_cols.split(",") if column.isdigit()]
    if len(columns) != 3:
        parser.error("--selected-cols needs three column numbers: id, picture, caption")
    if min(args.limit, args.columns, args.cell) < 1:
        parser.error("--limit, --columns and --cell must be at least 1")
    try:
        predictions = None if args.predictions is None else read_predictions(args.predictions)
        if args.tsv is not None:
            items = items_from_table(args.tsv, columns, predictions, args.limit)
        else:
            items = items_from_files(predictions or [], args.image_dir, args.limit)
        contact_sheet(items, args.columns, args.cell).save(args.output, "PNG")
    except (OSError, ValueError) as error:
        print(f"contact_sheet.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
