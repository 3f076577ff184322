"""What `unival predict` answers: media and texts from the command line or a file, and what is answered already."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = {
    "image": {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"},
    "video": {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".mpg", ".mpeg", ".flv", ".wmv"},
    "audio": {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".aif"},
}
"""Of files that are looked for in folders, by medium, which also names the first cell of a row."""

TEXT = "text"
"""Instead of a medium: rows of texts alone."""

Key = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A picture, film or sound with its text, or a text alone.

    Attributes:
        medium: "image", "video", "audio" or "text".
        name: of the file as the user gave it, or the text alone; repeated in the output.
        path: where the file is.
        text, context: empty where there is none.
        error: why the row cannot be used.
    """

    medium: str
    name: str
    path: Path
    text: str = ""
    context: str = ""
    error: str = ""

    @property
    def key(self) -> Key:
        """What an answer in the output belongs to."""
        return (self.name, self.text, self.context)[: len(cells_of(self.medium))]

    def line(self) -> dict[str, Any]:
        """The beginning of the row's line in the output."""
        cells = zip(cells_of(self.medium), self.key, strict=True)
        return {name: value for name, value in cells if value or name == self.medium}


def cells_of(medium: str) -> tuple[str, ...]:
    """Names of the cells of a row."""
    return (TEXT,) if medium == TEXT else (medium, TEXT, "context")


def expand(patterns: list[str], medium: str) -> list[Path]:
    """Files of a medium that files, folders and patterns stand for, each once, in order.

    A name that matches nothing is kept, so that its line tells about it.
    """
    import glob

    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES[medium] and p.is_file())
        elif path.exists() or not glob.has_magic(pattern):
            matches = [path]
        else:
            matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207
        found.update(dict.fromkeys(matches))
    return list(found)


def rows_of_file(path: Path, medium: str) -> list[Row]:
    """Rows of a ``.jsonl`` or ``.csv`` file with the medium and, as the task needs, ``text`` and ``context``.

    Texts alone may also be the lines of a ``.txt`` file. A line that cannot be used becomes a row with ``error``.

    Raises:
        ConfigError: another kind of file, not UTF-8, no rows, or a CSV file without a header that names the medium.
    """
    from unival_plugin.errors import ConfigError

    kinds = {".jsonl": _json_cells, ".csv": _csv_cells, **({".txt": _lines} if medium == TEXT else {})}
    if path.suffix.lower() not in kinds:
        more = ", or a .txt file with a text a line" if medium == TEXT else ""
        raise ConfigError(f"--input {path}: needs a .jsonl file or a .csv file with a header{more}")
    try:
        rows = [_row(path, medium, number, cells) for number, cells in kinds[path.suffix.lower()](path, medium)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--input {path}: cannot be read ({error}); save it as UTF-8") from error
    if not rows:
        raise ConfigError(f"--input {path}: holds no rows")
    return rows


def _json_cells(path: Path, medium: str) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    yield number, f"not valid JSON ({error})"


def _lines(path: Path, medium: str) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, {medium: line.strip()}


def _csv_cells(path: Path, medium: str) -> Iterator[tuple[int, Any]]:
    from unival_plugin.errors import ConfigError

    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if medium not in (reader.fieldnames or ()):
            raise ConfigError(f"--input {path}: the first line must name the columns: {','.join(cells_of(medium)[:2])}")
        for cells in reader:
            yield reader.line_num, {name: cells[name] or "" for name in cells_of(medium) if name in cells}


def _row(path: Path, medium: str, number: int, cells: Any) -> Row:
    where = f"{path}:row {number}"
    if isinstance(cells, str):
        return Row(medium, where, path, error=f"{where}: {cells}")
    values = [cells.get(name, "") for name in cells_of(medium)] if isinstance(cells, dict) else []
    if not values or not all(isinstance(value, str) for value in values) or not values[0].strip():
        return Row(medium, where, path, error=f"{where}: needs texts, as in {_example(medium)}")
    name, *texts = values
    return Row(medium, name, path if medium == TEXT else path.parent / name, *texts)


def _example(medium: str) -> str:
    cells = {TEXT: "a dog"} if medium == TEXT else {medium: f"file{min(SUFFIXES[medium])}", TEXT: "what is it?"}
    return json.dumps(cells)


def prepare(output: Path, medium: str, how: dict[str, Any], overwrite: bool) -> Counter[Key]:
    """How often ``output`` already answers each row; cuts off a line that an interruption left unfinished.

    Raises:
        ConfigError: the file was made with another checkpoint or other options.
    """
    from unival_plugin.errors import ConfigError
    from unival_plugin.unival.tasks.results import write_json

    meta = output.with_name(f"{output.name}.meta.json")
    if overwrite:
        output.unlink(missing_ok=True)
    elif output.exists():
        if not meta.exists() or json.loads(meta.read_text(encoding="utf-8")) != how:
            raise ConfigError(
                f"{output}: was made with another checkpoint or other options; choose another name or add --overwrite"
            )
        return _finished(output, medium)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(meta, how)
    return Counter()


def _finished(output: Path, medium: str) -> Counter[Key]:
    kept, done = 0, Counter[Key]()
    with output.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            kept += len(line)
            cells = json.loads(line)
            done[tuple(str(cells.get(name, "")) for name in cells_of(medium))] += 1
    with output.open("rb+") as file:
        file.truncate(kept)
    return done


def unanswered(rows: list[Row], done: Counter[Key]) -> list[Row]:
    """The rows that are left; a row that occurs twice is answered twice."""
    left, used = [], Counter[Key]()
    for row in rows:
        used[row.key] += 1
        if used[row.key] > done[row.key]:
            left.append(row)
    return left
