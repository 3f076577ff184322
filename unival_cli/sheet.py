"""A grid of pictures with their texts (and boxes) as one picture; texts that differ from the right one are red."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .sheet_rows import Item

PAPER = (255, 255, 255)
INK = (20, 20, 20)
WRONG = (200, 0, 0)
QUIET = (110, 110, 110)
FONT_SIZE = 14
MARGIN = 8


def contact_sheet(items: Sequence[Item], columns: int = 6, cell: int = 160) -> Image.Image:
    """A white RGB sheet: each picture enlarged or shrunk to a longer side of ``cell`` pixels, its caption below.

    A wrong caption is red with the first reference below it in grey. Raises ValueError if there is nothing to draw.
    """
    if not items:
        raise ValueError("there is no picture to draw")
    columns = min(columns, len(items))
    font = ImageFont.load_default(FONT_SIZE)
    texts = [_lines(font, caption, reference, cell) for _, caption, reference in items]
    line_height = FONT_SIZE + 3
    starts = range(0, len(items), columns)
    grid = [texts[start : start + columns] for start in starts]
    shown = [_resized(picture, cell) for picture, _, _ in items]
    tallest = [max(picture.height for picture in shown[start : start + columns]) for start in starts]
    heights = [
        height + 3 * MARGIN // 2 + line_height * max(map(len, row)) for height, row in zip(tallest, grid, strict=True)
    ]
    sheet = Image.new("RGB", (MARGIN + columns * (cell + MARGIN), MARGIN + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (picture, lines) in enumerate(zip(shown, texts, strict=True)):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * (cell + MARGIN), MARGIN + sum(heights[:row])
        sheet.paste(picture, (x + (cell - picture.width) // 2, y + (tallest[row] - picture.height) // 2))
        for offset, (text, colour) in enumerate(lines):
            draw.text((x, y + tallest[row] + MARGIN // 2 + offset * line_height), text, fill=colour, font=font)
    return sheet


def is_right(caption: str, reference: str) -> bool:
    """Whether the caption equals one of the references joined with ``&&``, white space aside."""
    return " ".join(caption.split()) in {" ".join(text.split()) for text in reference.split("&&")}


def _resized(picture: Image.Image, cell: int) -> Image.Image:
    scale = cell / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Enlarged pixels stay visible as squares: what the model saw, not a smoothed guess.
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize(size, method)


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
