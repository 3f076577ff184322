"""``unival data index`` and ``unival data shuffle``: whole lines, whatever they hold."""

from __future__ import annotations

import argparse
import mmap
from pathlib import Path

from .files import atomic_output, progress, refuse_existing


def run_index(args: argparse.Namespace) -> int:
    """Build the index of every file and print its number of rows."""
    from unival_plugin.data.tsv import TsvTable, build_index

    for path in args.files:
        build_index(path, progress=True)
        print(f"{path}: {len(TsvTable(path))} rows")
    return 0


def run_shuffle(args: argparse.Namespace) -> int:
    """Write one or several copies in random order; copy k has the order of epoch k of a training with shuffling."""
    from unival_plugin.errors import ConfigError

    if args.copies is not None and args.copies < 1:
        raise ConfigError(f"--copies is {args.copies}, but at least 1 copy is needed")
    outputs = copy_names(args.output, args.copies)
    for output in outputs:
        if output.exists() and output.samefile(args.input):
            raise ConfigError(f"{output} is the input; write the shuffled rows to another file")
        refuse_existing(output, args.overwrite)
    for epoch, output in enumerate(outputs, start=1):
        print(f"{output}: {shuffle_rows(args.input, output, args.seed, epoch, args.overwrite)} rows")
    return 0


def copy_names(output: Path, copies: int | None) -> list[Path]:
    """``out.tsv`` itself, or ``out_1.tsv`` ... ``out_K.tsv`` for K copies."""
    if copies is None:
        return [output]
    return [output.with_name(f"{output.stem}_{k}{output.suffix}") for k in range(1, copies + 1)]


def shuffle_rows(source: Path, output: Path, seed: int, epoch: int, overwrite: bool = False) -> int:
    """Write the rows of ``source`` in the order of (seed, epoch) and return their number. Lines end in ``\\n`` alone.

    The file is mapped, not read: memory holds the line offsets and the order, 16 bytes a row.
    """
    from unival_plugin.data.batching import row_order
    from unival_plugin.data.tsv import TsvTable, build_index
    from unival_plugin.errors import DataError

    total = len(TsvTable(source))
    if total == 0:
        raise DataError(f"{source} is empty; there is nothing to shuffle")
    offsets = build_index(source)
    order = row_order(total, seed, epoch, True)
    with (
        atomic_output(output, overwrite) as out,
        source.open("rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as lines,
    ):
        for row in progress(order, total, output.name):
            start = int(offsets[row])
            end = lines.find(b"\n", start)
            out.write(lines[start : end if end >= 0 else len(lines)].rstrip(b"\r") + b"\n")
    return total
