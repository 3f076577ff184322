"""``unival data index``: where the rows of a file start."""

from __future__ import annotations

import argparse

from .light import light


def run_index(args: argparse.Namespace) -> int:
    """Build the index of every file and print its number of rows."""
    tsv = light("data.tsv")
    for path in args.files:
        tsv.build_index(path, progress=True)
        print(f"{path}: {len(tsv.TsvTable(path))} rows")
    return 0
