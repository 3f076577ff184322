"""Tables of the documents against the code: prompts, columns, flags of the original, settings of the scripts."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fairseq import options
from test_docs import CODE, fields_of, known_flags

from unival_cli.data_schemas import FILE_COLUMNS, SCHEMAS
from unival_plugin.compat import command_line
from unival_plugin.data.negatives import GeneratorDraws, NegativeSamples
from unival_plugin.data.pretraining import PretrainingReader
from unival_plugin.data.samples import Example
from unival_plugin.unival.model.registration import UnIVALModelConfig
from unival_plugin.unival.tasks.caption import CaptionTask
from unival_plugin.unival.tasks.films_sounds import AudioCaptionTask, VideoCaptionTask
from unival_plugin.unival.tasks.image_gen import DrawingReader
from unival_plugin.unival.tasks.refcoco import ExpressionReader
from unival_plugin.unival.tasks.snli_ve import HypothesisReader
from unival_plugin.unival.tasks.vqa_gen import QuestionReader

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
WORDS = {
    "question": "is it wet",
    "objects": "dog ball",
    "expression": "left dog",
    "statement": "dog runs",
    "caption": "one dog",
}
FLAG = re.compile(r"--([a-z][\w-]*)$")


def tables(text: str) -> Iterator[list[list[str]]]:
    """Tables of a document: their cells without the line below the header."""
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])])
        elif rows:
            yield [rows[0], *rows[2:]]
            rows = []


def table(name: str, *header: str) -> list[list[str]]:
    """Rows of the table with this header (its first cells), without it."""
    found = [rows[1:] for rows in tables((DOCS / name).read_text()) if rows[0][: len(header)] == list(header)]
    assert len(found) == 1, (name, header)
    return found[0]


# ---- tasks.md


def place(column: Any) -> str:
    return f"file:row 1, column {column}"


def asked(example: Example) -> list[str]:
    return [example.source, *([example.suffix] if example.suffix else [])]


def prompts() -> dict[str, list[str]]:
    """What the tasks really ask, with all that flags may add."""
    question, expression, statement, caption = (
        WORDS[name] for name in ("question", "expression", "statement", "caption")
    )
    objects = WORDS["objects"].replace(" ", "&&")
    answers = QuestionReader(80, 30, add_object=True).query("", question, "here", objects)
    bare = HypothesisReader(80, add_caption=False).query("", statement, "here")
    known = HypothesisReader(80, add_caption=True).query("", statement, "here", caption)
    return {
        "caption": [CaptionTask.question],
        "video_caption": [VideoCaptionTask.question],
        "audio_caption": [AudioCaptionTask.question],
        "vqa_gen": asked(answers),
        "video_vqa_gen": [QuestionReader(80, 30, add_object=False).query("", question, "here").source],
        "refcoco": asked(ExpressionReader(80).query("", expression, "here")),
        "snli_ve": [*asked(bare), *asked(known)],
        "image_gen": asked(DrawingReader(80, 4, 8).query("", caption, "here")),
    }


def test_prompts_are_those_of_the_tasks() -> None:
    told = {row[0].strip("`"): CODE.findall(row[1]) for row in table("tasks.md", "task", "source text")}
    for task, expected in prompts().items():
        given = [span.format(**WORDS) for span in told[task] if not span.startswith("--")]
        assert given[: len(expected)] == expected, task


def test_rows_have_the_columns_that_the_tools_know() -> None:
    told = {row[0].strip("`"): tuple(row[1:]) for row in table("tasks.md", "task", "columns of the file")}
    assert told == {task: (", ".join(FILE_COLUMNS[task]), SCHEMAS[task].selected_cols) for task in FILE_COLUMNS}


def test_questions_of_pretraining_are_those_of_the_task() -> None:
    negatives = NegativeSamples(objects=["cat"], captions={"picture": ["one dog"]}, answers={"other": ["no"]})
    reader = PretrainingReader(80, 30, negatives)
    cells = {
        "caption": ["1", "p", "one dog", "", "", "", "coco", "caption"],
        "qa": ["1", "p", "", "is it wet", "1.0|!+no", "", "vqa", "qa"],
        "visual_grounding": ["1", "p", "one dog", "", "0,0,9,9", "", "vg", "visual_grounding"],
    }
    for kind, told, second in (row for row in table("pretraining.md", "type") if "as pictures" not in row[1]):
        made = reader(cells[kind.strip("`")], place, GeneratorDraws(np.random.default_rng(3)))
        given = [CODE.findall(told)[0], CODE.findall(second)[0]]
        filled = [span.format(caption="one dog", question="is it wet", answer="no") for span in given]
        assert [example.source for example in made] == filled


# ---- migration.md


@functools.lru_cache
def flags_of_generation() -> set[str]:
    """Flags that fairseq-generate knows with one task or another."""
    known: set[str] = set()
    before = dict(command_line)
    for task in ("caption", "vqa_gen", "refcoco", "image_gen"):
        parser = options.get_generation_parser()
        options.parse_args_and_arch(parser, ["x.tsv", "--path", "x.pt", "--task", task], parse_known=True)
        known |= {flag for action in parser._actions for flag in action.option_strings}
    command_line.clear()
    command_line.update(before)
    return {flag.removeprefix("--") for flag in known}


def told_flags(first: str) -> Iterator[tuple[str, str]]:
    """Flags of the tables whose first column is ``first``, and what is said about each in one word."""
    for rows in tables((DOCS / "migration.md").read_text()):
        if rows[0][0] == first:
            for flags, verdict, _ in rows[1:]:
                for flag in CODE.findall(flags):
                    match = FLAG.match(flag)
                    assert match, flag
                    yield match[1], verdict


@pytest.mark.parametrize(
    ("first", "known"),
    [
        ("flags", lambda: known_flags()["fairseq-train"] | fields_of(UnIVALModelConfig)),
        ("`evaluate.py`", flags_of_generation),
    ],
)
def test_flags_of_the_original_are_known_or_gone_as_told(first: str, known: Any) -> None:
    told = list(told_flags(first))
    assert len(told) > 20 and len(dict(told)) == len(told)
    assert {verdict for _, verdict in told} <= {"same", "no effect", "refused", "gone"}
    assert sorted(flag for flag, verdict in told if (flag in known()) != (verdict != "gone")) == []


def test_flags_that_bring_the_old_behaviour_back_exist() -> None:
    known = set().union(*known_flags().values()) | fields_of(UnIVALModelConfig)
    rows = table("migration.md", "subject", "original", "here")
    named = [flag for row in rows for flag in re.findall(r"`--([a-z][\w-]*)", f"{row[2]} {row[3]}")]
    assert len(named) > 10 and [flag for flag in named if flag not in known] == []


COLUMNS = ("other_flags", "special_flags", "eval_args", "freeze_flags")
NAMES = re.compile(r"(?:^|[\s,;|])(?:--)?([a-z][a-z\d]*(?:[-_][a-z\d]+)*)(?==|[\s,;]|$)")


def published_flags() -> Iterator[str]:
    """Flags of the original's scripts, from the tables that our scripts are compared with.

    Cells are lists of ``name=value``, ``name`` and ``--name``; values may be JSON, and commands may follow.
    """
    for path in sorted((ROOT / "tests" / "golden" / "run_scripts").glob("*.tsv")):
        with path.open() as file:
            for row in csv.DictReader(file, delimiter="\t"):
                for column in COLUMNS:
                    cell = re.sub(r"\{.*?\}(?=[\s,;]|$)", "JSON", (row.get(column) or "").replace('""', '"'))
                    cell = re.sub(r"\| [a-z]+: python \S+", "", cell)
                    yield from NAMES.findall(re.sub(r"(?<= );? ?python \S+", "", cell))


def test_every_flag_of_the_published_scripts_is_told() -> None:
    told = {flag for first in ("flags", "`evaluate.py`") for flag, _ in told_flags(first)}
    published = set(published_flags())
    assert len(published) > 100 and {"beam", "save-on-cuda", "freeze-resnet"} <= published
    assert sorted(published - told) == []


# ---- running.md, troubleshooting.md


def test_settings_of_all_scripts_exist() -> None:
    scripts = "".join(path.read_text() for path in (ROOT / "run_scripts").glob("*.sh"))
    told = [name for row in table("running.md", "variable") for name in CODE.findall(row[0])]
    assert [name for name in told if not re.search(rf"\b{name}\b", scripts)] == []


def test_every_frequent_complaint_is_answered() -> None:
    numbers = re.findall(r"^### (\d+)\. ", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert sorted(map(int, numbers)) == list(range(1, 26))
