"""The rows that ``unival data pack`` makes of a table: records with their media, or what is wrong with them."""

from __future__ import annotations

import base64
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

from .data_schemas import SEPARATOR
from .light import light
from .pack_cells import Unusable, check_box, picture_size
from .pack_sources import Content, Found, Source
from .pack_tasks import Packing, Row, with_plain_names
from .row_writer import SHOWN_BAD_ROWS, Cell, LeftOut, Medium, Packed, Record, clean_text

TOOL = "unival data pack"
MEDIA = {"image": "pictures", "film": "films", "sound": "sounds"}
REMEDY = "correct it, or leave such records out with --on-bad-row skip"


@dataclass
class _Whole:
    """A row with its medium and place."""

    row: Row
    medium: Cell
    id: str
    image_id: str
    where: str


@dataclass
class Rows:
    """The rows of a table, from the first one on at each call; the first call looks for faults and counts.

    Args:
        source: the table.
        packing: what its records mean.
        folder: where paths of media start.
        paths: rows hold paths.
        skip: leave unusable records out, named and counted, instead of stopping.

    Attributes:
        words: in their texts.
        contents: pictures that were inside the table.
        unusable: records that were left out, by the field that is wrong.
    """

    source: Source
    packing: Packing
    folder: Path
    paths: bool
    skip: bool
    words: int = 0
    contents: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    _calls: int = 0
    _faulty: set[int] = field(default_factory=set)
    _last: tuple[bytes | Medium | Packed, tuple[int, int] | None] = (b"", None)

    def __call__(self) -> Iterator[Record | LeftOut]:
        """Raises DataError for a record that cannot be used, unless told to skip it."""
        self._calls += 1
        number = 0
        for whole in self._joined() if self._joins_records else self._wholes():
            if isinstance(whole, LeftOut):
                yield whole
                continue
            self.words += whole.row.words * self._looking
            yield self._record(whole, number)
            number += 1
        if number == 0:
            what, records = self.packing.meaning.text, self.unusable.total()
            found = f"; none of its {records} records can be used" if records else ""
            raise light("errors").DataError(f"{self.source.path} holds no {what}{found}")

    @property
    def _looking(self) -> bool:
        return self._calls == 1

    @property
    def _joins_records(self) -> bool:
        return self.packing.join and not self.source.own_media

    def _record(self, whole: _Whole, number: int) -> Record:
        known = {"id": whole.id or str(number), "image id": whole.image_id, **whole.row.cells}
        cells: list[Cell] = []
        for name in self.packing.columns:
            if name in ("medium", "image", "film", "sound"):
                cells.append(whole.medium)
            else:
                cells.append(known["image id" if name.endswith(" id") else name])
        return Record(tuple(cells), whole.where)

    def _joined(self) -> Iterator[_Whole | LeftOut]:
        """One row for each picture, in the order of their first captions."""
        column, groups = self.packing.text_column, dict[str, _Whole]()
        for whole in self._wholes():
            if isinstance(whole, LeftOut):
                yield whole
                continue
            key = whole.medium.cell if isinstance(whole.medium, Medium) else whole.where
            group = groups.setdefault(key, whole)
            if group is not whole:
                text = f"{group.row.cells[column]}{SEPARATOR}{whole.row.cells[column]}"
                group.row = Row({**group.row.cells, column: text}, group.row.words + whole.row.words)
        yield from groups.values()

    def _wholes(self) -> Iterator[_Whole | LeftOut]:
        for place, found in enumerate(self.source.read(not self._looking)):
            if place in self._faulty:  # some faults are looked for at the first call only
                yield LeftOut("fault")
                continue
            try:
                yield from self._of_record(found, place)
            except Unusable as fault:
                yield self._leave_out(found, fault, place)

    def _of_record(self, found: Found, place: int) -> list[_Whole]:
        if found.fault:
            raise Unusable("record", found.fault)
        found = replace(found, fields=with_plain_names(found.fields))
        rows = self.packing.rows(found.fields)
        medium, name = self._medium(found, rows[0])
        image_id = self._plain(found, "image_id") or clean_text(name) or str(place)
        row_id = self._plain(found, "id")
        several = row_id != "" and len(rows) > 1
        ids = [f"{row_id}_{k}" if several else row_id for k in range(1, len(rows) + 1)]
        return [_Whole(row, medium, one, image_id, found.where) for row, one in zip(rows, ids, strict=True)]

    def _plain(self, found: Found, what: str) -> str:
        """An id, or an empty text where there is none."""
        value = self.packing.get(found.fields, what)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
            raise Unusable(what, f"{what} is {str(value)[:40]!a}, neither a text nor a whole number")
        return "" if value is None else clean_text(str(value))

    # ---- media

    def _medium(self, found: Found, row: Row) -> tuple[Cell, str]:
        """The cell of the picture, film or sound, and its name."""
        kind = self.packing.meaning.medium
        value = self.packing.get(found.fields, kind)
        if isinstance(value, (Content, Packed)) and self.paths:
            raise light("errors").ConfigError(
                f"{found.where}: the {kind} is inside the table, but rows are to hold paths: save {MEDIA[kind]} as "
                "files in a folder (--images) and name them by their paths"
            )
        if isinstance(value, Content):
            return self._content(value, row), value.name
        if not isinstance(value, Packed) and (not isinstance(value, str) or not value.strip()):
            raise Unusable(kind, f"the {kind} is {str(value)[:40]!a}, not a path" if value else f"there is no {kind}")
        medium = value if isinstance(value, Packed) else self._file(kind, value)
        if self._looking:
            self._check_box(row, medium)
        return medium, medium.cell

    def _content(self, value: Content, row: Row) -> str:
        if value.data is None:
            return ""
        if not value.data or picture_size(value.data) is None:
            raise Unusable("image", "the image is empty or of no kind that can be read")
        self._check_box(row, value.data)
        self.contents += 1
        return base64.b64encode(value.data).decode("ascii")

    def _check_box(self, row: Row, picture: bytes | Medium | Packed) -> None:
        if "box" not in self.packing.meaning.needs:
            return
        if self._last[0] != picture:  # regions of one picture usually follow each other
            self._last = (picture, _size(picture))
        size = self._last[1]
        if size is not None:
            check_box(row.cells[self.packing.meaning.columns.get("box", "box")], size)

    @cached_property
    def _root(self) -> Path:
        return self.folder.resolve()

    def _file(self, kind: str, name: str) -> Medium:
        try:
            name = self._path_below(kind, name)
            path = self._root / name
            path = _resolved(path.parent) / path.name
            if path.name == ".." or path.is_symlink():
                path = path.resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise Unusable(kind, f"{name[:60]!a} is not a path ({error})") from error
        if not path.is_relative_to(self._root):
            raise Unusable(kind, f"{name!a} is outside {self.folder}: name the folder of the {MEDIA[kind]} by --images")
        return Medium(path, path.relative_to(self._root).as_posix() if Path(name).is_absolute() else name)

    def _path_below(self, kind: str, name: str) -> str:
        """The path as it is here: with slashes, and without blanks around it. Raises Unusable."""
        tidy = name.strip().replace("\\", "/")
        if (tidy == name and ":" not in name) or (self._root / name).exists():
            return name
        if "://" in name:
            raise Unusable(kind, f"{name!a} is an address: download the {MEDIA[kind]} first, and name the files")
        if re.match(r"[A-Za-z]:/|//", tidy):
            raise Unusable(kind, f"{name!a} is a path of another computer: write paths that start in {self.folder}")
        return tidy

    # ---- faults

    def _leave_out(self, found: Found, fault: Unusable, place: int) -> LeftOut:
        if not self.skip:
            raise light("errors").DataError(f"{found.where}: {fault}; {REMEDY}") from fault
        self._faulty.add(place)
        self.unusable[fault.what] += 1
        self._name(f"{found.where}: {fault}")
        return LeftOut("fault")

    def _name(self, text: str) -> None:
        from tqdm import tqdm

        if self.unusable.total() <= SHOWN_BAD_ROWS:
            tqdm.write(f"{TOOL}: record left out: {text}", file=sys.stderr)
        elif self.unusable.total() == SHOWN_BAD_ROWS + 1:
            tqdm.write(f"{TOOL}: further ones are counted, not named", file=sys.stderr)


@lru_cache(maxsize=4096)
def _resolved(folder: Path) -> Path:
    return folder.resolve()


def _size(picture: bytes | Medium | Packed) -> tuple[int, int] | None:
    if not isinstance(picture, Packed):
        return picture_size(picture.path if isinstance(picture, Medium) else picture)
    with picture.archive.open("rb") as handle:
        handle.seek(picture.offset)
        return picture_size(handle.read(picture.size))
