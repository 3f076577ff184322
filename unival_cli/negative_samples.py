"""``unival data negatives``: the folder of wrong captions, objects and answers that pretraining draws from."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

from tqdm import tqdm

from .files import progress
from .light import light
from .negative_answers import OTHER, AnswerCounts, by_count
from .negative_arguments import Settings, sources_of
from .negative_captions import CaptionFile
from .negative_rows import CAPTION_FILES, Found, Source, parse_row

TOOL = "unival data negatives"
MADE_BY = "negative_samples.py"
"""What manifests of all versions say."""
SHOWN_BAD_ROWS = 20
"""How many bad rows are named; all are counted."""


def run_negatives(args: argparse.Namespace) -> int:
    """Build the folder and print what it holds."""
    settings = Settings(**{name: getattr(args, name) for name in Settings.__dataclass_fields__})
    manifest = build(args.output, sources_of(args), settings, args.on_bad_row == "skip", args.overwrite)
    for note in _notes(manifest):
        print(f"{TOOL}: note: {note}", file=sys.stderr)
    print(_summary(args.output, manifest))
    return 0


class Collector:
    """Gathers the texts of rows and writes the files.

    Args:
        folder: where to write.
        skip: leave bad rows out and count them instead of stopping.
    """

    def __init__(self, folder: Path, skip: bool) -> None:
        self.folder, self.skip = folder, skip
        self.captions = {row_type: CaptionFile(folder / name) for row_type, name in CAPTION_FILES.items()}
        self.objects: Counter[str] = Counter()
        self.answers = AnswerCounts()
        self.bad_rows = 0

    def read(self, source: Source) -> dict[str, Any]:
        """Take in all rows of a file; returns its entry in the manifest. Raises DataError."""
        errors, table, names = light("errors"), source.table(), list(source.wanted)
        bad_before = self.bad_rows
        if len(table) == 0:
            raise errors.DataError(f"{source.path} is empty: give a table with at least one row")

        def where(i: int, name: str) -> str:
            return table.where(i, names.index(name))

        for i in progress(range(len(table)), len(table), source.path.name):
            try:
                cells = dict(zip(names, table.row(i), strict=True))
                found = parse_row(cells, source.task, partial(where, i))
            except errors.DataError as error:
                if not self.skip:
                    raise
                self._report(error)
            else:
                self._take(found)
        facts = {"path": str(source.path), "task": source.task, "selected_cols": ",".join(map(str, source.columns))}
        return {**facts, "rows": len(table), "bad_rows": self.bad_rows - bad_before}

    def _report(self, error: Exception) -> None:
        self.bad_rows += 1
        if self.bad_rows <= SHOWN_BAD_ROWS:
            tqdm.write(f"{TOOL}: row left out: {error}", file=sys.stderr)
        elif self.bad_rows == SHOWN_BAD_ROWS + 1:
            tqdm.write(f"{TOOL}: further bad rows are counted, not named", file=sys.stderr)

    def _take(self, found: Found) -> None:
        for caption in found.captions:
            self.captions[found.row_type].add(caption)
        self.objects.update(found.objects)
        if found.answers:
            self.answers.add(found.question, found.answers)

    def finish(self, settings: Settings) -> dict[str, Any]:
        """Write what is not written yet; returns the numbers for the manifest."""
        lines = self._finish_captions(settings.max_captions)
        names = [name for name in by_count(self.objects) if self.objects[name] >= settings.min_object_count]
        self._write("object.txt", "".join(f"{name}\n" for name in names))
        groups = self.answers.groups(settings.min_count, settings.min_answer_count)
        self._write("type2ans.json", json.dumps(groups, ensure_ascii=False, indent=1) + "\n")
        answers = {name: len(group) for name, group in groups.items()}
        return {"lines": lines | {"object.txt": len(names)}, "answers_by_type": answers}

    def _finish_captions(self, limit: Optional[int]) -> dict[str, int]:
        pictures = self.captions["caption"]
        others = [file for file in self.captions.values() if file is not pictures]
        if len(pictures) == 0:
            for file in others:
                for caption in file.lines():
                    pictures.add(caption)
        lines = {file.path.name: file.close(limit) for file in self.captions.values()}
        for file in others:
            if lines[file.path.name] == 0:
                file.path.unlink()
                del lines[file.path.name]
        return lines

    def close(self) -> None:
        """Let go of the files, complete or not."""
        for file in self.captions.values():
            file.close(None)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8", newline="\n")


def build(
    output: Path, sources: Sequence[Source], settings: Settings, skip: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Build everything in a hidden folder beside ``output`` and rename it at the end. Returns the manifest.

    Raises:
        FileExistsError: ``output`` exists; with ``overwrite``: it holds no earlier build, or one of the sources.
        DataError: a file cannot be read or has no usable row, or a row is bad and ``skip`` is not given.
    """
    output = output.resolve()
    _check_free(output, sources, overwrite)
    scratch, old = (output.with_name(f".{output.name}.{what}-{os.getpid()}") for what in ("tmp", "old"))
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        manifest = _build_into(scratch, sources, settings, skip)
        if output.exists():
            output.replace(old)
        scratch.replace(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not output.exists() and old.exists():
            old.replace(output)
    shutil.rmtree(old, ignore_errors=True)
    return manifest


def _check_free(output: Path, sources: Sequence[Source], overwrite: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(f"{output} exists; choose another folder or add --overwrite")
    if not _is_earlier_build(output):
        raise FileExistsError(f"{output} is no earlier build of this tool; it is not overwritten, remove it yourself")
    inside = [source.path for source in sources if output in source.path.resolve().parents]
    if inside:
        raise FileExistsError(f"{inside[0]} lies in {output}, which would be replaced; choose another folder")


def _is_earlier_build(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("tool") == MADE_BY


def _build_into(folder: Path, sources: Sequence[Source], settings: Settings, skip: bool) -> dict[str, Any]:
    for source in sources:
        source.table()  # a missing file is found before hours are spent on the others
    collector = Collector(folder, skip)
    try:
        inputs = [collector.read(source) for source in sources]
        if all(file["rows"] == file["bad_rows"] for file in inputs):
            raise light("errors").DataError("none of the rows can be used; see the messages above")
        counts = collector.finish(settings)
    finally:
        collector.close()
    manifest = {"tool": MADE_BY, "settings": asdict(settings), "inputs": inputs, **counts, "versions": _versions()}
    (folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return manifest


def _versions() -> dict[str, str]:
    try:
        package = metadata.version("unival-plugin")
    except metadata.PackageNotFoundError:
        package = "not installed"
    return {"unival-plugin": package, "python": platform.python_version()}


# -------------------------------------------------------------------------------- report


def _summary(output: Path, manifest: Mapping[str, Any]) -> str:
    rows, bad = (sum(file[key] for file in manifest["inputs"]) for key in ("rows", "bad_rows"))
    types = manifest["answers_by_type"]
    lines = ", ".join(f"{name} {count}" for name, count in manifest["lines"].items())
    left_out = f" ({bad} bad ones left out)" if bad else ""
    return f"{output}: {rows} rows{left_out}; {lines}, type2ans.json {len(types) - 1} types + {OTHER}"


def _notes(manifest: Mapping[str, Any]) -> list[str]:
    """What is missing for drawing negative samples."""
    lines, notes = manifest["lines"], []
    if lines["all_captions.txt"] == 0:
        notes.append("no row has a caption: all_captions.txt is empty")
    if lines["object.txt"] < 2:
        notes.append(f"object.txt has {lines['object.txt']} objects; replacing one needs 2: name the objects column")
    if manifest["answers_by_type"][OTHER] < 2:
        notes.append("there are fewer than 2 answers: add rows with questions")
    return notes
