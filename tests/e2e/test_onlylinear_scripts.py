"""The scripts that train only the projections for captions have the published settings."""

from __future__ import annotations

import csv

import pytest
from commands import ROOT
from test_answer_scripts import FLAGS, dry, published_flags, value

TABLE = ROOT / "tests" / "golden" / "run_scripts" / "onlylinear.tsv"
PUBLISHED = {row["script"]: row for row in csv.DictReader(TABLE.open(encoding="utf-8"), delimiter="\t")}
DOCUMENT_FREQUENCIES = "--eval-cider-cached-tokens"
"""A file of the authors, which the scripts take as CIDER_DF."""


@pytest.mark.parametrize("script", PUBLISHED)
def test_settings_are_the_published_ones(script: str) -> None:
    row = PUBLISHED[script]
    (command,) = dry(script, "CIDER_DF=df.json")
    for column, flag in FLAGS.items():
        assert value(command, flag) == row[column], column
    flags = published_flags(row)
    assert flags.pop(DOCUMENT_FREQUENCIES) and value(command, DOCUMENT_FREQUENCIES) == "df.json"
    for flag, setting in flags.items():
        assert flag in command, flag
        assert not setting or value(command, flag) == setting
    assert value(command, "--finetune-from-model") == row["init_checkpoint"]
    frozen = {word for word in command if word.startswith("--freeze")}
    assert frozen == set(row["freeze_flags"].split())


def test_the_frozen_parts_are_a_setting() -> None:
    (command,) = dry("caption/onlylinear/unival_caption_stage_s2_onlylinear.sh", "FREEZE=", "LR=1e-3")
    assert not any(word.startswith("--freeze") for word in command) and value(command, "--lr") == "1e-3"
