"""The table of the published experiments: which flags, files and checkpoints each script of the original passes."""

from __future__ import annotations

import csv
import json
import re
from functools import lru_cache

from commands import ROOT

TABLE = ROOT / "tests" / "golden" / "run_scripts" / "published.tsv"
FLAGS = {
    "task": "--task",
    "selected_cols": "--selected-cols",
    "arch": "--arch",
    "criterion": "--criterion",
    "lr": "--lr",
    "epochs": "--max-epoch",
    "batch_size": "--batch-size",
    "update_freq": "--update-freq",
    "image_size": "--patch-image-size",
}
"""Flags that have a column of their own."""
SETTING = re.compile(r'([a-z][\w-]*)(?:=(\{[^}]*\}|"(?:[^"\\]|\\.)*"|[^\s,]+(?:,[^\s,]+)*))?(?:,\s+|\s+|$)')

Row = dict[str, str]


@lru_cache
def experiments() -> dict[str, Row]:
    """All rows by script."""
    with TABLE.open(encoding="utf-8") as file:
        return {row["script"]: row for row in csv.DictReader(file, delimiter="\t")}


def some(pattern: str) -> dict[str, Row]:
    """The rows of the scripts whose whole name the pattern matches."""
    return {script: row for script, row in experiments().items() if re.fullmatch(pattern, script)}


def flags_of(row: Row) -> dict[str, str]:
    """All flags that a row tells, with their values; no value is the empty string."""
    found = {flag: row[column] for column, flag in FLAGS.items() if row[column]}
    for column in ("warmup", "eval_args", "special_flags", "other_flags"):
        text, place = row[column].split(" | ")[0].strip(), 0
        while place < len(text):
            setting = SETTING.match(text, place)
            assert setting, f"{row['script']}: {column} cannot be read from {text[place : place + 40]!r} on"
            found[f"--{setting[1]}"] = setting[2] or ""
            place = setting.end()
    for name, size in re.findall(r"(frames|frame_size)=(\d+)", row["frames"]):
        found[{"frames": "--num-frames", "frame_size": "--patch-frame-size"}[name]] = size
    return found | {flag: "" for flag in row["freeze_flags"].split()}


def overrides_of(row: Row) -> dict[str, str]:
    """What the original's evaluation puts into --model-overrides, as flags; texts only."""
    found = re.findall(r'\\"(\w+)\\":\\"([^"\\]*)\\"', flags_of(row).get("--model-overrides", ""))
    return {f"--{name.replace('_', '-')}": value for name, value in found}


def files_of(row: Row) -> list[list[str]]:
    """Files of every command: ``a/{x_1.tsv,…(8 files)…,x_10.tsv,y.tsv}`` is one training, ``a; b`` are evaluations."""
    data = row["data"] if row["data"].startswith("data/") else f"data/{row['data']}"
    found = re.fullmatch(r"(.*/)\{(.*)\}", data)
    if not found:
        return [[file] for file in data.split("; ")]
    folder, names = found.groups()
    if ten := re.match(r"(.*_)1\.tsv,…\(8 files\)…", names):
        names = ",".join(f"{ten[1]}{number}.tsv" for number in range(1, 10)) + names[ten.end() :]
    return [[folder + name for name in names.split(",")]]


def checkpoints_of(row: Row) -> list[str]:
    """The start of a training, or what is evaluated: a checkpoint for every weight of a loop."""
    first = row["init_checkpoint"].split(" ; ")[0]
    if loop := re.fullmatch(r"l in (.*)", row["loops"]):
        return [first.replace("_l0.00", f"_l{weight}") for weight in loop[1].split(",")]
    return [first]


def without_sizes(search: str) -> str:
    """Settings of a search without those of its length."""
    kept = {name: value for name, value in json.loads(search).items() if not re.match("(min|max)_len", name)}
    return json.dumps(kept, separators=(",", ":"))
