"""Build the folder of negative samples that multitask pretraining (--neg-sample-dir) draws from, out of your own rows.

    python dataset_tools/negative_samples.py --output data/negative_sample --task unify_task data/s1.tsv \\
        --task vqa_gen data/vqa_train.tsv --selected-cols 0,5,2,3,4 --task video_caption data/msrvtt_train.tsv

writes

  all_captions.txt        distinct captions of pictures, one a line (if there are none: of films and sounds)
  all_captions_video.txt  captions of films, for --neg-captions-video; only if there are any
  all_captions_audio.txt  captions of sounds, for --neg-captions-audio; only if there are any
  object.txt              names of objects, one a line, the most frequent first
  type2ans.json           {question type: [answers, the most frequent first], ..., "other": [...]}
  manifest.json           input files, settings, numbers of lines and answers

Captions keep the order of the rows, but for runs of white space they stay as they are. Expressions of grounding rows
are no captions. Objects are found in the "objects" column, names joined by "&&".

Question types:
  1. A question that starts with is, are, was, do, can and the like has the type "yes/no", or "or" if it has that word.
     Only the answers yes and no belong to "yes/no".
  2. Any other question has its first two words as type ("how many", "what color"), without case and punctuation, if at
     least --min-count questions start with them; otherwise its first word, if at least --min-count of the questions
     that are left start with it; otherwise "other".
  3. An answer belongs to the one type in which it is given most often. A type that is left with one answer is added to
     "other". "other" holds the answers of no type, or all answers if those would be fewer than two.
Pretraining swaps an answer for another one of its type, and numbers of the type "how many" also for a neighbour.

The files are read row by row. Memory holds the distinct objects, answers and beginnings of questions, and 12 to 24
bytes a caption. The same rows give the same files. The folder appears when it is complete, or not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

from negative_answers import OTHER, AnswerCounts, by_count
from negative_captions import CaptionFile
from negative_rows import CAPTION_FILES, CELLS, Found, Source, parse_row
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.data_schemas import SCHEMAS
from unival_cli.files import progress
from unival_cli.light import light

TOOL = "negative_samples.py"
SHOWN_BAD_ROWS = 20
"""How many bad rows are named; all are counted."""


@dataclass(frozen=True)
class Settings:
    """What goes into the files; the fields are the flags of the command."""

    min_count: int = 20
    min_answer_count: int = 1
    min_object_count: int = 1
    max_captions: Optional[int] = None


# -------------------------------------------------------------------------------- building


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
    return isinstance(manifest, dict) and manifest.get("tool") == TOOL


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
    manifest = {"tool": TOOL, "settings": asdict(settings), "inputs": inputs, **counts, "versions": _versions()}
    (folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return manifest


def _versions() -> dict[str, str]:
    try:
        package = metadata.version("unival-plugin")
    except metadata.PackageNotFoundError:
        package = "not installed"
    return {"unival-plugin": package, "python": platform.python_version()}


# -------------------------------------------------------------------------------- command


class _Files(argparse.Action):
    """Adds (task, files, columns) to the list; the columns are None as long as --selected-cols does not follow."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        task, *files = values
        if task not in CELLS:
            raise argparse.ArgumentError(self, f"unknown task {task!r}; known: {', '.join(CELLS)}")
        if not files:
            raise argparse.ArgumentError(self, f"name files after {task}")
        namespace.task = [*(namespace.task or []), (task, [Path(file) for file in files], None)]


class _Columns(argparse.Action):
    """Sets the columns of the --task before."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        if not namespace.task:
            raise argparse.ArgumentError(self, "must follow the --task that it is for")
        task, files, _ = namespace.task[-1]
        if not all(part.strip().isdecimal() for part in values.split(",")):
            raise argparse.ArgumentError(self, f"{values!r} is no list of column numbers, as in 0,4,2")
        columns = _numbers(values)
        least = len(CELLS[task]) - (task != "unify_task")
        if len(columns) < least:
            raise argparse.ArgumentError(self, f"{task} needs {least} columns: {', '.join(CELLS[task][:least])}")
        namespace.task[-1] = (task, files, columns)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _parser() -> argparse.ArgumentParser:
    settings = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add(name: str, **options: Any) -> None:
        parser.add_argument(f"--{name}", **options)

    add("output", type=Path, required=True, metavar="DIR", help="folder to make")
    add(
        "task",
        action=_Files,
        nargs="+",
        required=True,
        metavar=("TASK", "FILE"),
        help="files, and what their rows are for; may be given several times. Tasks: unify_task (pretraining rows with "
        f"8 columns), {', '.join(task for task in CELLS if task != 'unify_task')}",
    )
    add(
        "selected-cols",
        action=_Columns,
        metavar="A,B,...",
        help="numbers of the columns (from 0) for the --task before, in its order (default: the task's usual ones; "
        "captions: id, medium, caption and, if a fourth one is given, objects)",
    )
    add("min-count", type=int, default=settings.min_count, metavar="N", help="least questions of a type (default: 20)")
    add("min-answer-count", type=int, default=1, metavar="N", help="leave rarer answers out (default: 1)")
    add("min-object-count", type=int, default=1, metavar="N", help="leave rarer objects out (default: 1)")
    add(
        "max-captions",
        type=int,
        metavar="N",
        help="keep N captions of each file, chosen by their hashes: the same ones in any order of the rows "
        "(default: all)",
    )
    add(
        "on-bad-row",
        choices=("raise", "skip"),
        default="raise",
        help="stop at a bad row, or leave it out and count it (default: raise)",
    )
    add("overwrite", action="store_true", help="replace an earlier build")
    return parser


def _sources(args: argparse.Namespace) -> list[Source]:
    sources = []
    for task, files, columns in args.task:
        usual = _numbers(SCHEMAS[task].selected_cols)
        sources += [Source(path, task, columns or usual) for path in files]
    return sources


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


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    values = {name: getattr(args, name) for name in Settings.__dataclass_fields__}
    if min(value for value in values.values() if value is not None) < 1:
        parser.error("--min-count, --min-answer-count, --min-object-count and --max-captions must be at least 1")
    try:
        manifest = build(args.output, _sources(args), Settings(**values), args.on_bad_row == "skip", args.overwrite)
    except (OSError, ValueError) as error:
        print(f"{TOOL}: error: {error}", file=sys.stderr)
        return 2
    for note in _notes(manifest):
        print(f"{TOOL}: note: {note}", file=sys.stderr)
    print(_summary(args.output, manifest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
