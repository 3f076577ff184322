"""Expressions that refer to one object of a picture: RefCOCO, RefCOCO+, RefCOCOg."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from unival_cli.plain_pickle import read_plain_pickle
from unival_cli.row_writer import Item, LeftOut, Record, clean_text

from .coco import COCO_FOLDER, COCO_LICENCE
from .parts import Builder, Entry, Split, bad_file, below, read_json

INSTANCES = "instances.json"
PICTURES = "train2014"
WITHOUT_AREA = "expressions whose box has no area"
WITHOUT_TEXT = "expressions without a word"


def expression_rows(raw: Path, folder: str, partition: str, part: str) -> Iterator[Item]:
    """A row an expression.

    Args:
        folder: where refs(...).p and instances.json are.
        partition: who divided the data: unc, umd, google.
        part: train, val, test, testA or testB.
    """
    names, boxes = _instances(raw / folder / INSTANCES)
    for ref in _refs(raw / folder / f"refs({partition}).p", part):
        picture, annotation = ref.number("image_id"), ref.number("ann_id")
        if picture not in names or annotation not in boxes:
            raise bad_file(f"{ref.where}: its picture or box is not in {raw / folder / INSTANCES}")
        box, file = _corners(boxes[annotation]), below(raw, f"{PICTURES}/{names[picture]}")
        for each in ref.entries("sentences", "sentence"):
            text = clean_text(each.text("sent"))
            if box and text:
                yield Record((str(each.number("sent_id")), str(picture), text, box, file), ref.where)
            else:
                yield LeftOut(WITHOUT_TEXT if box else WITHOUT_AREA)


def _instances(path: Path) -> tuple[dict[int, str], dict[int, Entry]]:
    """File names of the pictures and annotations with their boxes, by number."""
    whole = Entry(read_json(path), str(path))
    names = {image.number("id"): image.text("file_name") for image in whole.entries("images", "picture")}
    return names, {entry.number("id"): entry for entry in whole.entries("annotations", "annotation")}


def _refs(path: Path, part: str) -> Iterator[Entry]:
    try:
        content = read_plain_pickle(path)
    except OSError as error:
        raise bad_file(f"{path} cannot be read ({error.strerror})") from error
    if not isinstance(content, list):
        raise bad_file(f"{path} holds no list: the file has another format")
    for number, value in enumerate(content, start=1):
        ref = Entry(value, f"{path}: reference {number}")
        if ref.text("split") == part:
            yield ref


def _corners(annotation: Entry) -> str:
    """``x0,y0,x1,y1`` of a box ``[x, y, width, height]``; empty if it has no area."""
    box = annotation.array("bbox")
    if len(box) != 4 or not all(isinstance(value, (int, float)) for value in box):
        raise bad_file(f"{annotation.where}: its box is not four numbers")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return ""
    # COCO gives hundredths of a pixel; adding must not make more digits of them.
    return ",".join(f"{value:.2f}".rstrip("0").rstrip(".") for value in (x, y, x + width, y + height))


def _builder(
    name: str, title: str, folder: str, links: str, partition: str, rows: Mapping[str, int | None], output: str = ""
) -> Builder:
    output = output or name
    files = (f"{folder}/refs({partition}).p", f"{folder}/{INSTANCES}")
    return Builder(
        name=name,
        task="refcoco",
        title=title,
        licence=f"expressions: see the page; {COCO_LICENCE}",
        links=(links, "coco-train2014"),
        layout=f"""{files[0]}
{files[1]}
{PICTURES}/COCO_{PICTURES}_000000000009.jpg ...""",
        folder=f"data/ofa/{output}_data",
        splits=tuple(
            Split(
                f"{output}_{part}",
                partial(expression_rows, folder=folder, partition=partition, part=part),
                files,
                number,
            )
            for part, number in rows.items()
        ),
        raw=COCO_FOLDER,
    )


BUILDERS: tuple[Builder, ...] = (
    _builder(
        "refcoco",
        "RefCOCO, UNC's partition",
        "refcoco",
        "refcoco-annotations",
        "unc",
        {"train": 120_624, "val": 10_834, "testA": 5657, "testB": 5095},
    ),
    _builder(
        "refcocoplus",
        "RefCOCO+, UNC's partition",
        "refcoco+",
        "refcocoplus-annotations",
        "unc",
        {"train": 120_191, "val": 10_758, "testA": 5726, "testB": 4889},
    ),
    _builder(
        "refcocog",
        "RefCOCOg, UMD's partition",
        "refcocog",
        "refcocog-annotations",
        "umd",
        {"train": 80_512, "val": 4896, "test": 9602},
    ),
    _builder(
        "refcocog-google",
        "RefCOCOg, Google's partition (pictures of training and validation overlap)",
        "refcocog",
        "refcocog-annotations",
        "google",
        {"train": None, "val": None},
        output="refcocog_google",
    ),
)
