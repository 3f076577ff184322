"""Result files: answers in the reference's format, and beside them how they were made."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class ResultFile:
    """Collects the answers of an evaluation and writes them once all rows have been answered.

    ``<subset>_predict.json`` is a JSON list, as evaluation servers and tools expect it; ``<subset>_predict.meta.json``
    tells checkpoint, hash, prompt, search options and scores. Both are written completely or not at all.

    Args:
        path: the file of answers.
        rows: number of rows that will be answered (or reported as bad).
        meta: what to tell about the evaluation.
    """

    def __init__(self, path: Path, rows: int, meta: dict[str, Any]) -> None:
        self.path, self.rows, self.meta = path, rows, meta
        self.answers: list[tuple[str, Any]] = []
        self.bad_rows = 0

    def add(self, answers: list[tuple[str, Any]], bad_rows: int = 0) -> bool:
        """Adds a batch of row ids with their answers; returns True once all rows are in."""
        self.answers.extend(answers)
        self.bad_rows += bad_rows
        return len(self.answers) + self.bad_rows >= self.rows

    def write(self, lines: list[dict[str, Any]], scores: dict[str, float]) -> None:
        """Writes both files; ``lines`` are the answers as the file shows them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, lines)
        meta = {**self.meta, "rows": len(lines), "bad_rows": self.bad_rows, "scores": scores}
        write_json(self.path.with_suffix(".meta.json"), meta)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[str]]:
    """A text file for writing that appears under its name only when it is complete."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON completely or not at all."""
    with atomic_file(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")
