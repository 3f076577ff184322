"""Entailment between a picture and a sentence: SNLI-VE."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from unival_cli.data_schemas import LABELS
from unival_cli.row_writer import Item, LeftOut, Record, clean_text

from .parts import Builder, Entry, Split, bad_file, below, read_jsonl

PICTURES = "flickr30k-images"
NO_LABEL = "sentences without an agreed label"
PICTURE_KEYS = ("Flickr30K_ID", "Flikr30kID", "Flickr30kID")
"""Names of the picture in the published versions of the files."""


def entailment_rows(raw: Path, part: str) -> Iterator[Item]:
    """A row a sentence; the caption is the one that the sentence was written for."""
    for where, value in read_jsonl(raw / f"snli_ve_{part}.jsonl"):
        entry = Entry(value, where)
        label = entry.text("gold_label")
        if label == "-":
            yield LeftOut(NO_LABEL)
            continue
        if label not in LABELS:
            raise bad_file(f"{where}: the label {label!r} is none of {', '.join(LABELS)}")
        picture = _picture(entry)
        cells = (clean_text(entry.text("sentence2")), clean_text(entry.text("sentence1")), label)
        yield Record((entry.text("pairID"), picture, below(raw, f"{PICTURES}/{picture}.jpg"), *cells), where)


def _picture(entry: Entry) -> str:
    for key in PICTURE_KEYS:
        if key in entry.value:
            return entry.text(key).removesuffix(".jpg")
    raise bad_file(f"{entry.where} names no picture ({PICTURE_KEYS[0]}): the file has another format")


BUILDERS: tuple[Builder, ...] = (
    Builder(
        name="snli-ve",
        task="snli_ve",
        title="SNLI-VE: sentences of SNLI with the pictures of Flickr30k",
        licence="SNLI CC BY-SA 4.0; SNLI-VE: see the page; pictures for non-commercial research and education",
        links=("snli-ve-train", "snli-ve-dev", "snli-ve-test", "flickr30k-images"),
        layout=f"""snli_ve_{{train,dev,test}}.jsonl
{PICTURES}/1000092795.jpg ...""",
        folder="data/ofa/snli_ve_data",
        splits=tuple(
            Split(f"snli_ve_{part}", partial(entailment_rows, part=part), (f"snli_ve_{part}.jsonl",), rows)
            for part, rows in (("train", 529_527), ("dev", 17_858), ("test", 17_901))
        ),
    ),
)
