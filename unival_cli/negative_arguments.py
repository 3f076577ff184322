"""Arguments of ``unival data negatives``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from .data_schemas import SCHEMAS
from .negative_rows import CELLS, Source

LINE = "make the folder of wrong captions, objects and answers that pretraining (--neg-sample-dir) draws from"
RULE = """example:
  unival data negatives --output data/negative_sample --task unify_task data/s1.tsv \\
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
bytes a caption. The same rows give the same files. The folder appears when it is complete, or not at all."""


@dataclass(frozen=True)
class Settings:
    """What goes into the files; the fields are the flags of the command."""

    min_count: int = 20
    min_answer_count: int = 1
    min_object_count: int = 1
    max_captions: Optional[int] = None


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


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""

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
    add(
        "min-count",
        type=_positive,
        default=Settings().min_count,
        metavar="N",
        help="least questions of a type (default: 20)",
    )
    add("min-answer-count", type=_positive, default=1, metavar="N", help="leave rarer answers out (default: 1)")
    add("min-object-count", type=_positive, default=1, metavar="N", help="leave rarer objects out (default: 1)")
    add(
        "max-captions",
        type=_positive,
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


def sources_of(args: argparse.Namespace) -> list[Source]:
    """The files with their tasks and columns."""
    sources = []
    for task, files, columns in args.task:
        usual = _numbers(SCHEMAS[task].selected_cols)
        sources += [Source(path, task, columns or usual) for path in files]
    return sources
