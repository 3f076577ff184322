"""Hugging Face data sets for ``unival data pack``: folders of ``save_to_disk``, and Arrow or Parquet files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from .light import light
from .pack_sources import TABLES, Content, Found, Source

ROWS_READ = 64
"""Rows that are taken from a file at once: pictures of so many are in memory."""
SPLITS_FILE, STATE_FILE = "dataset_dict.json", "state.json"

Classes = dict[str, list[str]]
"""By column: the names that its numbers stand for."""


def open_data_set(path: Path, split: str | None = None) -> Source:
    """A file, or a folder that ``datasets.save_to_disk`` has written or that holds Parquet files as the hub has them.

    Numbers of ``ClassLabel`` columns become their names; a picture becomes its bytes or, without them, its path.

    Raises:
        ConfigError: no such data, or ``split`` is needed and not one of its splits; or pyarrow is not installed.
        DataError: a file is damaged.
    """
    _pyarrow()
    files = _files(path, split)
    names, classes = _readable(files[0], _columns)
    return Source(path, files, partial(_read_all, files, classes), names, own_media=True)


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
    except ImportError as error:
        raise light("errors").ConfigError("Hugging Face data sets need pyarrow: pip install pyarrow") from error
    return pyarrow


# -------------------------------------------------------------------------------- files


def _files(path: Path, split: str | None) -> tuple[Path, ...]:
    """The files of the split, in order."""
    if not path.exists():
        raise light("errors").ConfigError(f"--data {path} does not exist")
    if path.is_file():
        return _chosen({path.stem: [path]}, path, split)
    if (path / SPLITS_FILE).is_file():
        names = _json(path / SPLITS_FILE, "splits")
        return _chosen({name: _saved(path / _plain(name, path)) for name in names}, path, split)
    if (path / STATE_FILE).is_file():
        return _chosen({path.name: _saved(path)}, path, split)
    groups: dict[str, list[Path]] = {}
    for file in sorted([*path.rglob("*.parquet"), *path.rglob("*.arrow")]):
        groups.setdefault(_split_of(file), []).append(file)
    if not groups:
        raise light("errors").ConfigError(f"--data {path}: there are no such files in this folder; needs {TABLES}")
    return _chosen(groups, path, split)


def _chosen(groups: dict[str, list[Path]], path: Path, split: str | None) -> tuple[Path, ...]:
    if split is None and len(groups) == 1:
        return tuple(*groups.values())
    if split not in groups:
        raise light("errors").ConfigError(f"{path} has the splits {', '.join(groups)}: name one of them with --split")
    return tuple(groups[split])


def _split_of(file: Path) -> str:
    """``train`` of ``train-00000-of-00002.parquet``, ``train.parquet`` and ``train/0000.parquet``."""
    numbered = re.fullmatch(r"(.+?)-\d{4,}(-of-\d+)?(-[0-9a-f]+)?", file.stem)
    if numbered:
        return numbered[1]
    return file.parent.name if file.stem.isdecimal() else file.stem


def _saved(folder: Path) -> list[Path]:
    """The files that the state of a saved data set names."""
    files = [folder / _plain(entry["filename"], folder) for entry in _json(folder / STATE_FILE, "_data_files")]
    if not files:
        raise light("errors").DataError(f"{folder / STATE_FILE} names no files: save the data set again")
    return files


def _plain(name: Any, folder: Path) -> str:
    if not isinstance(name, str) or PurePath(name).name != name:
        raise light("errors").DataError(f"{folder}: {str(name)[:60]!a} is no file in it: save the data set again")
    return name


def _json(path: Path, key: str) -> list[Any]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))[key])
    except (ValueError, KeyError, TypeError) as error:
        raise light("errors").DataError(f"{path}: not what save_to_disk writes ({error}): save it again") from error


# -------------------------------------------------------------------------------- rows


def _readable(path: Path, read: Callable[[Path], Any]) -> Any:
    """What ``read`` makes of a file. Raises DataError if it is damaged."""
    try:
        return read(path)
    except (_pyarrow().ArrowException, OSError) as error:
        raise light("errors").DataError(f"{path} cannot be read ({error}): copy or save it again") from error


def _columns(path: Path) -> tuple[tuple[str, ...], Classes]:
    """Names of the columns, and of the classes that some of them number."""
    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
    else:
        with _pyarrow().memory_map(str(path)) as file:
            schema = _opened(file)[0]
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    classes = {name: kind["names"] for name, kind in features.items() if "names" in kind}
    return tuple(schema.names), classes


def _opened(file: Any) -> tuple[Any, Iterator[Any]]:
    """Schema and batches of an Arrow file of either kind; ``datasets`` writes streams."""
    ipc = _pyarrow().ipc
    try:
        stream = ipc.open_stream(file)
        return stream.schema, iter(stream)
    except _pyarrow().ArrowInvalid:
        file.seek(0)
        table = ipc.open_file(file)
        return table.schema, (table.get_batch(k) for k in range(table.num_record_batches))


def _batches(path: Path) -> Iterator[Any]:
    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(ROWS_READ)
        return
    with _pyarrow().memory_map(str(path)) as file:
        for batch in _opened(file)[1]:
            yield from (batch.slice(start, ROWS_READ) for start in range(0, len(batch), ROWS_READ))


def _read_all(files: tuple[Path, ...], classes: Classes, content: bool = True) -> Iterator[Found]:
    for path in files:
        batches, row = _readable(path, _batches), 0
        while (batch := _readable(path, partial(_next, batches))) is not None:
            for fields in _records(batch, classes, content):
                row += 1
                yield Found(fields, f"{path}: row {row}")


def _next(batches: Iterator[Any], path: Path) -> Any:
    return next(batches, None)


def _records(batch: Any, classes: Classes, content: bool) -> Iterator[dict[str, Any]]:
    pairs = zip(batch.schema.names, batch.columns, strict=True)
    columns = [_values(column, classes.get(name), content) for name, column in pairs]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _values(column: Any, classes: list[str] | None, content: bool) -> list[Any]:
    types = _pyarrow().types
    kind = column.type
    if types.is_binary(kind) or types.is_large_binary(kind):
        return _media(column, [None] * len(column), content)
    if types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}:
        parts = dict(zip((field.name for field in kind), column.flatten(), strict=True))
        return _media(parts["bytes"], parts["path"].to_pylist(), content)
    values = column.to_pylist()
    if classes is None:
        return values
    return [classes[value] if value is not None and 0 <= value < len(classes) else None for value in values]


def _media(data: Any, paths: list[str | None], content: bool) -> list[Any]:
    """Bytes, or paths where there are none."""
    given = data.to_pylist() if content else [None] * len(data)
    return [
        Content(value, path or "") if there else path
        for value, there, path in zip(given, data.is_valid().to_pylist(), paths, strict=True)
    ]
