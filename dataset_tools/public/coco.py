"""Captions of COCO (Karpathy's split) and NoCaps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from unival_cli.row_writer import Item, LeftOut, Record

from .parts import Builder, Entry, Split, below, captions_document, joined, read_json, sentence

KARPATHY = "dataset_coco.json"
TRAINING = ("train", "restval")
NOCAPS = "nocaps_val_4500_captions.json"
DOMAINS = {"indomain": ("in-domain", 648), "neardomain": ("near-domain", 2938), "outdomain": ("out-domain", 914)}
WITHOUT_CAPTION = "pictures without a caption"

COCO_FOLDER = "raw/coco"
"""Usual raw folder of all data sets about COCO's pictures."""
COCO_LICENCE = "annotations CC BY 4.0; pictures are Flickr's, under their own terms"

# -------------------------------------------------------------------------------- COCO


def _pictures(raw: Path, parts: tuple[str, ...]) -> Iterator[tuple[Entry, list[str]]]:
    """The pictures of these parts with their captions."""
    whole = Entry(read_json(raw / KARPATHY), str(raw / KARPATHY))
    for picture in whole.entries("images", "picture"):
        if picture.text("split") in parts:
            captions = [sentence(each.text("raw")) for each in picture.entries("sentences", "caption")]
            yield picture, [caption for caption in captions if caption]


def caption_rows(raw: Path, parts: tuple[str, ...], join: bool) -> Iterator[Item]:
    """A row a caption or, joined, a row a picture; the picture's id is COCO's."""
    number = 0
    for picture, captions in _pictures(raw, parts):
        if not captions:
            yield LeftOut(WITHOUT_CAPTION)
            continue
        name = str(picture.number("cocoid"))
        file = below(raw, f"{picture.text('filepath')}/{picture.text('filename')}")
        for caption in [joined(captions)] if join else captions:
            yield Record((str(number), name, caption, "", file), picture.where)
            number += 1


def coco_format(raw: Path, part: str) -> dict[str, Any]:
    """The captions of a part as COCO's own annotation files have them."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture, captions in _pictures(raw, (part,)):
        image = picture.number("cocoid")
        images.append({"id": image, "file_name": picture.text("filename")})
        for caption in captions:
            annotations.append({"id": len(annotations), "image_id": image, "caption": caption})
    return {"images": images, "annotations": annotations}


COCO_CAPTIONS = Builder(
    name="coco-captions",
    task="caption",
    title="COCO captions 2014 in Karpathy's split",
    licence=COCO_LICENCE,
    links=("karpathy-splits", "coco-train2014", "coco-val2014"),
    layout=f"""{KARPATHY}
train2014/COCO_train2014_000000000009.jpg ...
val2014/COCO_val2014_000000000042.jpg ...""",
    folder="data/ofa/caption_data",
    splits=(
        Split(
            "caption_stage1_train",
            partial(caption_rows, parts=TRAINING, join=False),
            (KARPATHY,),
            566_747,
            note="a row a caption",
        ),
        Split(
            "caption_stage2_train",
            partial(caption_rows, parts=TRAINING, join=True),
            (KARPATHY,),
            113_287,
            note="a row a picture",
        ),
        Split("caption_val", partial(caption_rows, parts=("val",), join=True), (KARPATHY,), 5000),
        Split("caption_test", partial(caption_rows, parts=("test",), join=True), (KARPATHY,), 5000),
    ),
    documents=(captions_document("test_caption_coco_format", partial(coco_format, part="test"), KARPATHY),),
    raw=COCO_FOLDER,
)

# -------------------------------------------------------------------------------- NoCaps


def nocaps_rows(raw: Path, domain: str = "") -> Iterator[Item]:
    """A row a picture (of this domain); the picture's id is NoCaps' number."""
    whole = Entry(read_json(raw / NOCAPS), str(raw / NOCAPS))
    captions: dict[int, list[str]] = {}
    for annotation in whole.entries("annotations", "caption"):
        captions.setdefault(annotation.number("image_id"), []).append(annotation.text("caption"))
    number = 0
    for image in whole.entries("images", "picture"):
        if domain and image.text("domain") != domain:
            continue
        name = image.number("id")
        if text := joined(captions.get(name, [])):
            yield Record((str(number), str(name), text, "", below(raw, f"val/{image.text('file_name')}")), image.where)
        else:
            yield LeftOut(WITHOUT_CAPTION)
        number += 1


def nocaps_captions(raw: Path) -> dict[str, Any]:
    """The file of captions, which has COCO's format already."""
    whole = Entry(read_json(raw / NOCAPS), str(raw / NOCAPS))
    return {**whole.value, "images": whole.array("images"), "annotations": whole.array("annotations")}


NOCAPS_BUILDER = Builder(
    name="nocaps",
    task="caption",
    title="NoCaps validation, whole and by domain",
    licence="captions: see the page; pictures are Open Images', CC BY 2.0",
    links=("nocaps-val-captions", "nocaps-images"),
    layout=f"""{NOCAPS}
val/0013ea2087020901.jpg ...""",
    folder="data/ofa/caption_data",
    splits=(
        Split("nocaps_val", nocaps_rows, (NOCAPS,), 4500),
        *(
            Split(f"nocaps_{name}_val", partial(nocaps_rows, domain=domain), (NOCAPS,), rows)
            for name, (domain, rows) in DOMAINS.items()
        ),
    ),
    documents=(captions_document("nocaps_val_caption_coco_format", nocaps_captions, NOCAPS),),
    flags="--paths",
)

BUILDERS: tuple[Builder, ...] = (COCO_CAPTIONS, NOCAPS_BUILDER)
