"""Rows for multitask pretraining from the web: CC3M, CC12M, SBU (pictures), WebVid (films).

The sets of pictures are published as lists of addresses with captions. What is read here is what img2dataset makes of
such a list: shards that are folders or tar files, with a picture, its caption and a JSON file under each key. Pictures
in tar files are read where they are. Millions of rows go by one after the other; memory holds one shard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from unival_cli.pack_sources import Found
from unival_cli.pack_tar import read_shard
from unival_cli.predict_rows import SUFFIXES
from unival_cli.row_writer import Cell, Item, LeftOut, Medium, Record

from .media_parts import WITHOUT_CAPTION, plain_name
from .parts import Builder, Split, bad_file, read_csv

FOLDER = "data/ofa/pretrain_ours"
"""Where the scripts look for rows."""

NOT_DOWNLOADED = "that could not be downloaded"
INCOMPLETE = "without a picture or a text, or damaged"

AGAIN = "start the same img2dataset again, which makes unfinished shards anew, or remove it"
"""What to do about a shard that is cut off, as when writing was stopped."""


def _row(name: str, medium: Cell, caption: str, dataset: str, kind: str) -> tuple[Cell, ...]:
    return name, medium, caption, "", "", "", dataset, kind


# -------------------------------------------------------------------------------- pictures


def picture_rows(raw: Path, folder: str, dataset: str) -> Iterator[Item]:
    """A row for each picture that img2dataset has downloaded; ids are shard and key.

    Raises DataError if there is no shard, or one is damaged.
    """
    empty = True
    for shard in shards(raw / folder):
        empty = False
        name = shard.relative_to(raw / folder).with_suffix("").as_posix()
        for found in read_shard(shard, AGAIN) if shard.is_file() else read_folder(shard, raw):
            yield _picture_row(found, name, dataset)
    if empty:
        raise bad_file(f"{raw / folder} has no shards of img2dataset (00000.tar, 00000/): download the pictures first")


def _picture_row(found: Found, shard: str, dataset: str) -> Item:
    if found.fields.get("status", "success") != "success":
        return LeftOut(NOT_DOWNLOADED)
    if found.fault:
        return LeftOut(INCOMPLETE)
    caption = found.fields.get("caption")
    if not isinstance(caption, str) or not any(letter.isalnum() for letter in caption):
        return LeftOut(WITHOUT_CAPTION)
    picture = found.fields["image"]
    name = picture.path.name if isinstance(picture, Medium) else picture.cell
    cells = _row(f"{shard}/{PurePosixPath(name).with_suffix('')}", picture, caption, dataset, "caption")
    return Record(cells, found.where)


def shards(folder: Path) -> Iterator[Path]:
    """Tar files, and folders whose name is a number, at any depth, always in the same order.

    Raises DataError if a shard is there in both forms.
    """
    for place, folders, files in os.walk(folder):
        here = Path(place)
        numbers = [name for name in folders if name.isdecimal()]
        tars = [name for name in files if name.endswith(".tar") and not name.startswith(".")]
        if both := sorted(set(numbers) & {name.removesuffix(".tar") for name in tars}):
            raise bad_file(f"{here / both[0]} is both a folder and a tar file: remove one of them")
        yield from (here / name for name in sorted(numbers + tars))
        folders[:] = sorted(name for name in folders if not name.isdecimal() and name != "_tmp")


def read_folder(shard: Path, raw: Path) -> Iterator[Found]:
    """The samples of a shard that is a folder, by key. Rows name pictures by their paths in ``raw``.

    Raises DataError if it is a link to somewhere outside.
    """
    if not shard.resolve().is_relative_to(raw.resolve()):
        raise bad_file(f"{shard} is a link that leaves {raw}, where the paths of rows start: move it there")
    samples: dict[str, dict[str, str]] = {}
    with os.scandir(shard) as entries:
        for entry in entries:
            name = Path(entry.name)
            kind = "picture" if name.suffix.lower() in SUFFIXES["image"] else name.suffix
            if entry.is_file(follow_symlinks=False) and kind in ("picture", ".txt", ".json"):
                samples.setdefault(name.stem, {})[kind] = entry.name
    for key, names in sorted(samples.items()):
        yield _sample(key, names, shard, raw)


def _sample(key: str, names: dict[str, str], shard: Path, raw: Path) -> Found:
    fields: dict[str, object] = {}
    try:
        if ".txt" in names:
            fields["caption"] = (shard / names[".txt"]).read_text(encoding="utf-8-sig")
        if ".json" in names:
            facts = json.loads((shard / names[".json"]).read_text(encoding="utf-8-sig"))
            fields = {**facts, **fields}
    except (ValueError, TypeError):
        return Found({}, f"{shard}: {key}", "damaged")
    if "picture" in names:
        path = shard / names["picture"]
        fields["image"] = Medium(path, path.relative_to(raw).as_posix())
    return Found(fields, f"{shard}: {key}", "" if "picture" in names else "has no picture")


def _img2dataset(header: str, source: str, folder: str) -> str:
    """How the pictures are downloaded; ``source`` prints the list, whose columns are ``header``."""
    return (
        f"(printf '{header}\\n'; {source}) > {folder}.tsv\n"
        f"img2dataset --url_list {folder}.tsv --input_format tsv --url_col url --caption_col caption \\\n"
        f"    --output_format webdataset --output_folder {folder} --image_size 512 --resize_mode keep_ratio_largest"
    )


PICTURE_NOTE = """Shards are tar files (--output_format webdataset) or, as --paths needs, folders (files), at any depth.
Rows hold the pictures: pretrain with MEDIA_FLAGS= (with --paths: IMAGE_DIR=RAW, or the folder that --image-dir named).
They also serve for captions: --task caption --selected-cols 0,1,2."""

CC_LICENCE = 'captions for any purpose, "as is", with Google named; pictures are their owners\''

CC3M = Builder(
    name="cc3m",
    task="unify_task",
    title="Conceptual Captions (CC3M)",
    licence=CC_LICENCE,
    links=("cc3m", "img2dataset"),
    layout="\n".join(
        [
            "training/00000.tar ..., validation/00000.tar ..., made in this folder by",
            _img2dataset("caption\\turl", "cat Train_GCC-training.tsv", "training"),
            "and the same with Validation_GCC-1.1.0-Validation.tsv and validation. Many pictures are no longer there.",
            PICTURE_NOTE,
        ]
    ),
    folder=FOLDER,
    splits=(
        Split("cc3m", partial(picture_rows, folder="training", dataset="cc3m"), ("training",), 3_318_333),
        Split(
            "cc3m_val", partial(picture_rows, folder="validation", dataset="cc3m"), ("validation",), 15_840, usual=False
        ),
    ),
)
CC12M = Builder(
    name="cc12m",
    task="unify_task",
    title="Conceptual 12M (CC12M)",
    licence=CC_LICENCE,
    links=("cc12m", "img2dataset"),
    layout="\n".join(
        [
            "pictures/00000.tar ..., made in this folder by",
            _img2dataset("url\\tcaption", "cat cc12m.tsv", "pictures"),
            "Many pictures are no longer there.",
            PICTURE_NOTE,
        ]
    ),
    folder=FOLDER,
    splits=(Split("cc12m", partial(picture_rows, folder="pictures", dataset="cc12m"), ("pictures",), 12_423_374),),
)
SBU = Builder(
    name="sbu",
    task="unify_task",
    title="SBU captioned photos",
    licence="captions and pictures are their owners' (Flickr)",
    links=("sbu-captions", "sbu-photos-list", "img2dataset"),
    layout="\n".join(
        [
            "pictures/00000.tar ..., made in this folder by",
            _img2dataset(
                "url\\tcaption",
                "paste SBU_captioned_photo_dataset_urls.txt SBU_captioned_photo_dataset_captions.txt",
                "pictures",
            ),
            "or from the newer list: --url_list sbu-captions-all.json --input_format json --url_col image_urls",
            "--caption_col captions. Many pictures are no longer there.",
            PICTURE_NOTE,
        ]
    ),
    folder=FOLDER,
    splits=(Split("sbu", partial(picture_rows, folder="pictures", dataset="sbu"), ("pictures",), 1_000_000),),
)

# -------------------------------------------------------------------------------- WebVid

WEBVID_COLUMNS = ("videoid", "page_dir", "name")


@dataclass(frozen=True)
class FilmBuilder(Builder):
    """A builder of rows of pretraining whose media are films."""

    @property
    def media(self) -> str:
        return "films"


def webvid_rows(raw: Path, source: str) -> Iterator[Item]:
    """A row a film."""
    for where, row in read_csv(raw / source, WEBVID_COLUMNS):
        caption = row["name"]
        if not any(letter.isalnum() for letter in caption):
            yield LeftOut(WITHOUT_CAPTION)
            continue
        page, name = row["page_dir"], plain_name(row["videoid"], where)
        film = _webvid_film(raw, [plain_name(page, where)] if page else [], f"{name}.mp4")
        yield Record(_row(f"{page}/{name}" if page else name, film, caption, "webvid", "video_caption"), where)


def _webvid_film(raw: Path, page: list[str], file: str) -> Medium:
    """Where the set's own downloader puts a film, or, if only there is one, without the folder of its page."""
    places = ["/".join(["videos", *page, file]), "/".join([*page, file]), f"videos/{file}", file]
    found = next((place for place in dict.fromkeys(places) if (raw / place).is_file()), places[0])
    return Medium(raw / found, found)


WEBVID = FilmBuilder(
    name="webvid",
    task="unify_task",
    title="WebVid-2M and WebVid-10M",
    licence="research inside an institution, not commercial; its lists are no longer given out by its makers",
    links=("webvid",),
    layout="""results_2M_train.csv, results_2M_val.csv, results_10M_train.csv, results_10M_val.csv
videos/000001_000050/1006461238.mp4 ... (page_dir and videoid), also without videos/ or without page_dir; many films are
no longer there: --on-missing skip
Rows have paths that start in the raw folder: pretrain with IMAGE_DIR=RAW. With pictures and other films: build all with
--image-dir. They also serve for captions: --task video_caption --selected-cols 0,1,2.""",
    folder=FOLDER,
    splits=tuple(
        Split(name, partial(webvid_rows, source=file), (file,), usual=name == "webvid2m")
        for name, file in {
            "webvid2m": "results_2M_train.csv",
            "webvid2m_val": "results_2M_val.csv",
            "webvid10m": "results_10M_train.csv",
            "webvid10m_val": "results_10M_val.csv",
        }.items()
    ),
)

BUILDERS: tuple[Builder, ...] = (CC3M, CC12M, SBU, WEBVID)
