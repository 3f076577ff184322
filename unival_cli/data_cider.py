"""``unival data cider-df`` and ``unival data convert-df``: the document frequencies of CIDEr-D."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .data_schemas import SCHEMAS
from .data_validate import parse_columns
from .files import progress, refuse_existing
from .light import light


def run_cider_df(args: argparse.Namespace) -> int:
    """Count over all files together and save."""
    from unival_plugin.errors import ConfigError
    from unival_plugin.metrics.cider import DocumentFrequency

    refuse_existing(args.output, args.overwrite)
    columns = parse_columns(args.selected_cols or SCHEMAS["caption"].selected_cols)
    if len(columns) != 3:
        raise ConfigError("--selected-cols needs three columns: id, image, caption")
    if args.group_col is not None and args.group_col < 0:
        raise ConfigError(f"--group-col is {args.group_col}, but columns count from 0")
    references = collect_references(args.files, columns[2], args.group_col)
    if args.rewards:
        from unival_plugin.unival.criterions.rewards import reward_text

        references = [[reward_text(text) for text in group] for group in references]
    DocumentFrequency.from_references(references).save(args.output)
    print(f"{args.output}: {len(references)} pictures, {sum(map(len, references))} captions")
    return 0


def collect_references(files: Sequence[Path], caption_col: int, group_col: int | None) -> list[list[str]]:
    """The cleaned captions of every picture: those of one row, or of all rows with the same text in ``group_col``."""
    from unival_plugin.data.text import strip_punctuation
    from unival_plugin.data.tsv import TsvTable
    from unival_plugin.metrics.captions import split_references

    groups: dict[object, list[str]] = {}
    for path in files:
        table = TsvTable(path, [caption_col] if group_col is None else [caption_col, group_col])
        for row in progress(range(len(table)), len(table), path.name):
            key = (path, row) if group_col is None else table.cell(row, 1)
            groups.setdefault(key, []).extend(strip_punctuation(text) for text in split_references(table.cell(row, 0)))
    return list(groups.values())


def run_convert_df(args: argparse.Namespace) -> int:
    """Convert and print the size."""
    refuse_existing(args.output, args.overwrite)
    frequency = light("metrics.convert_df").convert_reference_pickle(args.input, args.output)
    print(f"{args.output}: {len(frequency.counts)} n-grams, {frequency.ref_len:g} pictures")
    return 0
