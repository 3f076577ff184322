"""What the builders of films and sounds share: files found by their names, and captions for COCO's evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unival_cli.data_schemas import SEPARATOR
from unival_cli.predict_rows import SUFFIXES
from unival_cli.row_writer import Item, Medium, Record

from .parts import bad_file

FILMS = (".mp4", *sorted(SUFFIXES["video"] - {".mp4"}))
SOUNDS = (".wav", *sorted(SUFFIXES["audio"] - {".wav"}))
"""Endings of files, the usual one first."""

WITHOUT_CAPTION = "without a caption"


class NamedFiles:
    """The films or sounds below a folder by their names without ending. They are looked for once and never opened.

    Args:
        raw: paths in rows start here.
        folder: if ``raw`` has a folder of this name, only the files in it count; may be empty.
        endings: of the files that count; one that is missing is assumed to have the first.
        inside: only files that lie in a folder of this name, at any depth, count.

    Raises:
        DataError: a link leads to somewhere outside ``raw``, where no row may point to.
    """

    def __init__(self, raw: Path, folder: str, endings: tuple[str, ...], inside: str = "") -> None:
        self.raw = raw
        self.folder = raw / folder if (raw / folder).is_dir() else raw
        self.endings, self.inside = endings, inside
        self._real = raw.resolve()
        self._paths: dict[str, str] = {}
        self._twice: dict[str, str] = {}
        self._look()

    def find(self, where: str, *names: str) -> Medium:
        """The file that has the first of these names for which there is one; otherwise where it should be.

        Args:
            where: the record, for messages.
            names: without ending.

        Raises:
            DataError: two files have the name, or it is a path and no name.
        """
        for name in names:
            if name in self._twice:
                both = f"{self._paths[name]} and {self._twice[name]}"
                raise bad_file(f"{where}: there are {both} in {self.raw}: keep one of them")
            if name in self._paths:
                return Medium(self.raw / self._paths[name], self._paths[name])
        path = self.folder / self.inside / f"{plain_name(names[0], where)}{self.endings[0]}"
        return Medium(path, path.relative_to(self.raw).as_posix())

    def _look(self) -> None:
        self._check_inside(self.folder)
        for place, folders, files in os.walk(self.folder):
            here = Path(place)
            for folder in folders:
                if (here / folder).is_symlink():  # not gone into: inside, its files are found without it
                    self._check_inside(here / folder)
            folders.sort()
            if not self.inside or self.inside in here.relative_to(self.raw).parts:
                for name in sorted(files):
                    self._take(here / name)

    def _take(self, path: Path) -> None:
        if path.suffix.lower() not in self.endings or path.name.startswith("."):
            return
        if path.is_symlink():
            self._check_inside(path)
        cell = path.relative_to(self.raw).as_posix()
        if self._paths.setdefault(path.stem, cell) != cell:
            self._twice.setdefault(path.stem, cell)

    def _check_inside(self, path: Path) -> None:
        if not path.resolve().is_relative_to(self._real):
            raise bad_file(
                f"{path} is a link that leaves {self.raw}, where the paths of rows start: "
                "move the files there, or name a folder that holds both with --raw"
            )


def plain_name(name: str, where: str) -> str:
    """The name. Raises DataError if it is a path, which could leave the folder, or none at all."""
    if name in ("", ".", "..") or any(mark in name for mark in "/\\\0\t\r\n"):
        raise bad_file(f"{where}: {name[:60]!a} is no name of a file: correct the record")
    return name


def coco_format(raw: Path, rows: Callable[[Path], Iterator[Item]]) -> dict[str, Any]:
    """The captions of joined rows as COCO's own annotation files have them, under the ids of the rows."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row in rows(raw):
        if not isinstance(row, Record):
            continue
        name, _, captions, *_ = row.cells
        images.append({"id": name})
        for caption in str(captions).split(SEPARATOR):
            annotations.append({"id": len(annotations), "image_id": name, "caption": caption})
    return {"images": images, "annotations": annotations}
