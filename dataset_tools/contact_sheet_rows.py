"""Rows and predictions of each task as items of a contact sheet: picture, text, and the text that would be right.

Films and sounds are shown as pictures, too: see ``contact_sheet_media``.
"""

from __future__ import annotations

import base64
import binascii
import io
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contact_sheet_media import film_strip, spectrogram
from PIL import Image, ImageDraw, UnidentifiedImageError
from tqdm import tqdm

Item = tuple[Image.Image, str, str | None]  # picture, text, reference (several joined with "&&") or None
Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]

RIGHT_BOX, PREDICTED_BOX = (0, 170, 0), (30, 90, 255)
BOX_CANVAS = 320  # boxes are drawn on pictures enlarged to at least this side, so that lines hide little
LINE = 3
MIN_IOU = 0.5
VERDICTS = {"yes": "entailment", "no": "contradiction", "maybe": "neutral"}


# A maker turns a picture, the cells behind the id and the picture, and the prediction (or None) into an item.
ItemMaker = Callable[[Image.Image, Sequence[str], Any], Item]
# A viewer turns the cell of a picture, film or sound into a picture; relative paths start in the folder.
Viewer = Callable[[str, Path], Image.Image]


@dataclass(frozen=True)
class SheetTask:
    """How one task is drawn.

    Attributes:
        make: see ItemMaker.
        view: see Viewer.
        selected_cols: the task's usual columns; the first is the id, the second the picture.
        names: for people, what the columns are.
        keys: which field of a prediction names its row.
        value: which field holds the prediction.
        columns, cell: how many pictures in a line and how many pixels wide each, unless flags say so.
    """

    make: ItemMaker
    view: Viewer
    selected_cols: str
    names: str
    keys: tuple[str, ...]
    value: str
    columns: int = 6
    cell: int = 160


def _decode(cell: str, folder: Path) -> Image.Image:
    """A picture in base64."""
    try:
        data = base64.b64decode(cell.replace("-", "+").replace("_", "/"), validate=True)
        with Image.open(io.BytesIO(data)) as picture:
            return picture.convert("RGB")
    except (binascii.Error, UnidentifiedImageError, OSError) as error:
        raise ValueError(f"no picture in base64 ({error})") from error


def _caption_item(picture: Image.Image, cells: Sequence[str], predicted: Any) -> Item:
    caption = cells[0]
    return (picture, caption, None) if predicted is None else (picture, str(predicted), caption)


def _question_item(picture: Image.Image, cells: Sequence[str], predicted: Any) -> Item:
    question = cells[0]
    parts = [part.partition("|!+") for part in cells[1].split("&&")]
    answers = [(confidence, answer) for confidence, _, answer in parts]
    if predicted is None:
        return picture, f"{question} {', '.join(f'{answer} {confidence}' for confidence, answer in answers)}", None
    best = max(answers, key=lambda pair: _number(pair[0], "confidence"))[1]
    return picture, f"{question} {predicted}", f"{question} {best}"


def _expression_item(picture: Image.Image, cells: Sequence[str], predicted: Any) -> Item:
    expression, reference = cells[0], _box(cells[1].split(","))
    if predicted is None:
        return with_boxes(picture, [(reference, RIGHT_BOX)]), expression, None
    box = _box(predicted)
    drawn = with_boxes(picture, [(reference, RIGHT_BOX), (box, PREDICTED_BOX)])
    share = overlap(box, reference)
    return drawn, expression, expression if share >= MIN_IOU else f"IoU {share:.2f}"


def _statement_item(picture: Image.Image, cells: Sequence[str], predicted: Any) -> Item:
    hypothesis, label = cells[0], cells[2]
    right = f"{hypothesis}: {label}"
    if predicted is None:
        return picture, right, None
    return picture, f"{hypothesis}: {VERDICTS.get(predicted, predicted)}", right


_QUESTION_KEYS = ("question_id", "uniq_id")
TASKS = {
    "caption": SheetTask(
        _caption_item, _decode, "0,4,2", "id, picture, caption", ("image_id", "image", "picture"), "caption"
    ),
    "vqa_gen": SheetTask(
        _question_item, _decode, "0,5,2,3", "id, picture, question, answers", _QUESTION_KEYS, "answer"
    ),
    "refcoco": SheetTask(_expression_item, _decode, "0,4,2,3", "id, picture, expression, box", ("uniq_id",), "box"),
    "snli_ve": SheetTask(
        _statement_item, _decode, "0,2,3,4,5", "id, picture, hypothesis, caption, label", ("uniq_id",), "answer"
    ),
    "video_caption": SheetTask(
        _caption_item, film_strip, "0,4,2", "id, film, caption", ("image_id", "image"), "caption", 3, 320
    ),
    "video_vqa_gen": SheetTask(
        _question_item, film_strip, "0,5,2,3", "id, film, question, answers", _QUESTION_KEYS, "answer", 3, 320
    ),
    "audio_caption": SheetTask(
        _caption_item, spectrogram, "0,4,2", "id, sound, caption", ("image_id", "image"), "caption", 4, 240
    ),
}


# -------------------------------------------------------------------------------- boxes


def with_boxes(picture: Image.Image, boxes: Sequence[tuple[Box, Colour]]) -> Image.Image:
    """The picture, enlarged if it is small, with frames around the boxes (pixels of the picture as given)."""
    scale = max(1, math.ceil(BOX_CANVAS / max(picture.size)))
    size = (picture.width * scale, picture.height * scale)
    drawn = picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(drawn)
    for box, colour in boxes:
        x0, y0, x1, y1 = (round(edge * scale) for edge in box)
        # A predicted box may be turned round or empty; it is drawn as the rectangle of its corners.
        left, top = min(x0, x1), min(y0, y1)
        right, bottom = max(left, max(x0, x1) - 1), max(top, max(y0, y1) - 1)
        draw.rectangle((left, top, right, bottom), outline=colour, width=LINE)
    return drawn


def overlap(a: Box, b: Box) -> float:
    """Intersection over union; 0 for boxes without area."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)]
    return width * height / (sum(areas) - width * height)


def _box(numbers: Any) -> Box:
    if not isinstance(numbers, Sequence) or len(numbers) != 4:
        raise ValueError(f"box {str(numbers)[:60]!r} is not four numbers x0,y0,x1,y1")
    x0, y0, x1, y1 = (_number(edge, "box") for edge in numbers)
    return x0, y0, x1, y1


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} {value!r} is not a number")
    return number


# -------------------------------------------------------------------------------- files


def read_predictions(path: Path, task: str = "caption") -> list[tuple[str, Any]]:
    """(id or picture path, prediction) pairs of a ``*_predict.json`` list or JSON lines.

    Raises ValueError that names a bad record.
    """
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        records = list(enumerate(json.loads(text), start=1))
    else:
        records = [(row, json.loads(line)) for row, line in enumerate(text.splitlines(), start=1) if line.strip()]
    return [_prediction(record, TASKS[task], f"{path}: record {row}") for row, record in records]


def _prediction(record: Any, task: SheetTask, where: str) -> tuple[str, Any]:
    fields = record if isinstance(record, Mapping) else {}
    key = next((fields[name] for name in task.keys if fields.get(name) is not None), None)
    if key is None or not isinstance(fields.get(task.value), list if task.value == "box" else str):
        keys = " or ".join(f'"{name}"' for name in task.keys)
        raise ValueError(f'{where} needs "{task.value}" and {keys}')
    return str(key), fields[task.value]


def items_from_table(
    tsv: Path,
    columns: Sequence[int],
    predictions: Sequence[tuple[str, Any]] | None,
    limit: int,
    task: str = "caption",
    folder: Path | None = None,
) -> list[Item]:
    """Pictures of a TSV in file order with predictions and what is right; without predictions what is right alone.

    Relative paths of films and sounds start in ``folder``, by default that of the TSV.
    """
    folder = tsv.parent if folder is None else folder
    predicted = None if predictions is None else dict(predictions)
    sheet_task = TASKS[task]
    items: list[Item] = []
    with tqdm(total=limit, desc="pictures", disable=None) as bar:
        for row, line in _table_rows(tsv, max(columns)):
            if len(items) == limit:
                break
            cells = [line[column] for column in columns]
            if predicted is not None and cells[0] not in predicted:
                continue
            try:
                picture = sheet_task.view(cells.pop(1), folder)
                items.append(sheet_task.make(picture, cells[1:], None if predicted is None else predicted[cells[0]]))
            except ValueError as error:
                raise ValueError(f"{tsv}:row {row}: {error}") from error
            bar.update()
    return items


def _table_rows(tsv: Path, last: int) -> Iterator[tuple[int, list[str]]]:
    with tsv.open(encoding="utf-8", newline="\n") as lines:
        for row, line in enumerate(lines, start=1):
            cells = line.rstrip("\r\n").split("\t")
            if len(cells) <= last:
                raise ValueError(f"{tsv}:row {row}: {len(cells)} columns, but column {last} (from 0) is needed")
            yield row, cells


def items_from_files(predictions: Sequence[tuple[str, Any]], folder: Path, limit: int) -> list[Item]:
    """Pictures named by predicted captions themselves; relative paths start at ``folder``."""
    items: list[Item] = []
    for name, caption in tqdm(itertools.islice(predictions, limit), desc="pictures", disable=None):
        with Image.open(folder / name) as picture:
            items.append((picture.convert("RGB"), caption, None))
    return items
