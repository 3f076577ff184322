"""Rows and predictions of each task as items of a contact sheet: picture, text, and the text that would be right.

Films and sounds are shown as pictures, too: see ``sheet_media``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from .data_schemas import MARK, SEPARATOR
from .light import light
from .sheet_media import film_strip, spectrogram

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
    return light("data.picture_cells").read_cell_image(cell, "the picture")


def picture_file(cell: str, folder: Path) -> Image.Image:
    """A picture whose path the cell holds."""
    return light("data.picture_cells").read_cell_image(cell, "the picture", folder, from_path=True)


def _caption_item(picture: Image.Image, cells: Sequence[str], predicted: Any) -> Item:
    caption = cells[0]
    return (picture, caption, None) if predicted is None else (picture, str(predicted), caption)


def _question_item(picture: Image.Image, cells: Sequence[str], predicted: Any) -> Item:
    question = cells[0]
    parts = [part.partition(MARK) for part in cells[1].split(SEPARATOR)]
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
_TYPES = {"qa": "vqa_gen", "visual_grounding": "refcoco", "video_qa": "video_vqa_gen"} | {
    name: name for name in ("caption", "video_caption", "audio_caption")
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
    rows: Iterable[int] | None = None,
    from_path: bool = False,
) -> list[Item]:
    """Pictures of a TSV with predictions and what is right; without predictions what is right alone.

    Args:
        tsv: the table.
        columns: those of the task's cells.
        predictions: pairs of id and prediction; rows without one are left out.
        limit: most pictures.
        task: what the rows are for; those of unify_task are shown as their types are.
        folder: where relative paths start; that of the TSV by default.
        rows: numbers of rows (from 0); all by default.
        from_path: pictures are paths, too.

    Raises ValueError that names the row.
    """
    folder = tsv.parent if folder is None else folder
    predicted = None if predictions is None else dict(predictions)
    table = light("data.tsv").TsvTable(tsv, columns)
    items: list[Item] = []
    with _bar(limit) as bar:
        for row in range(len(table)) if rows is None else rows:
            if len(items) == limit:
                break
            name, cells = shown_as(task, table.row(row), table.where(row))
            if predicted is not None and cells[0] not in predicted:
                continue
            sheet_task = TASKS[name]
            view = picture_file if from_path and sheet_task.view is _decode else sheet_task.view
            try:
                picture = view(cells[1], folder)
                items.append(sheet_task.make(picture, cells[2:], None if predicted is None else predicted[cells[0]]))
            except ValueError as error:
                raise ValueError(f"{table.where(row)}: {error}") from error
            bar.update()
    return items


def _bar(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="pictures", disable=None)


def shown_as(task: str, cells: list[str], where: str) -> tuple[str, list[str]]:
    """The task and cells that a row is shown as: a row of unify_task as one of its type's task."""
    if task != "unify_task":
        return task, cells
    row_id, medium, caption, question, refs, *_, row_type = cells
    if row_type not in _TYPES:
        raise ValueError(f"{where}: type {row_type[:40]!r} is none of {', '.join(_TYPES)}")
    name = _TYPES[row_type]
    texts = {"refcoco": [caption, refs]}.get(name, [question, refs] if "vqa" in name else [caption])
    return name, [row_id, medium, *texts]


def items_from_files(predictions: Sequence[tuple[str, Any]], folder: Path, limit: int) -> list[Item]:
    """Pictures named by predicted captions themselves; relative paths start at ``folder``."""
    items: list[Item] = []
    with _bar(min(limit, len(predictions))) as bar:
        for name, caption in predictions[:limit]:
            with Image.open(folder / name) as picture:
                items.append((picture.convert("RGB"), caption, None))
            bar.update()
    return items
