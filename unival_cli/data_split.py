"""``unival data split``: parts of a file, with all rows of a picture in the same part; the file is never in memory."""

from __future__ import annotations

import argparse
import bisect
import hashlib
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import atomic_output, refuse_existing
from .light import light
from .split_joining import JoinedRows

if TYPE_CHECKING:
    import numpy as np

REST = "rest"
CAPTION_COLUMN = 2
"""In rows of captions."""
HASHES = 2**64


@dataclass(frozen=True)
class Part:
    """One of the outputs: ``size`` rows, or if ``share`` that part of all rows; None: what the others leave."""

    name: str
    size: float | None
    share: bool = False


def run_split(args: argparse.Namespace) -> int:
    """Write the parts and print how many rows they have."""
    bad = light("errors").ConfigError
    parts = parse_parts(args.outputs)
    if args.group_col < 0:
        raise bad(f"--group-col is {args.group_col}, but columns count from 0")
    joined = joined_parts(args, parts)
    prefix = args.output_prefix or str(args.input.with_suffix(""))
    outputs = [Path(f"{prefix}_{part.name}{args.input.suffix}") for part in parts]
    for output in outputs:
        if output.exists() and output.samefile(args.input):
            raise bad(f"{output} is the input; choose another --output-prefix")
        refuse_existing(output, args.overwrite)
    keys = array("Q", (key for _, key in _rows(args.input, args.group_col, args.seed)))
    ends = part_ends(keys, parts, args.input)
    counts = write_parts(args, outputs, ends, len(keys), joined)
    for k, (output, count) in enumerate(zip(outputs, counts, strict=True)):
        print(f"{output}: {joined[k].rows} rows, joined from {count}" if k in joined else f"{output}: {count} rows")
    return 0


def joined_parts(args: argparse.Namespace, parts: Sequence[Part]) -> dict[int, JoinedRows]:
    """By the number of a part: what joins its rows, if that is asked for. Raises ConfigError."""
    bad = light("errors").ConfigError
    if args.join is None:
        if args.join_col is not None:
            raise bad("--join-col is for --join only: name the parts whose rows are joined")
        return {}
    column = CAPTION_COLUMN if args.join_col is None else args.join_col
    if column < 0:
        raise bad(f"--join-col is {column}, but columns count from 0")
    if column == args.group_col:
        raise bad(f"--join-col {column} is the column of --group-col; choose that of the texts")
    numbers, wanted = {part.name: k for k, part in enumerate(parts)}, [name.strip() for name in args.join.split(",")]
    if unknown := [name for name in wanted if name not in numbers]:
        raise bad(f"--join: there is no part {unknown[0]!r}; there are {', '.join(numbers)}")
    return {numbers[name]: JoinedRows(args.input, args.group_col, column) for name in wanted}


def parse_parts(text: str) -> list[Part]:
    """``train=0.9,val=500,test=rest`` -> parts. Raises ConfigError."""
    bad = light("errors").ConfigError
    parts = []
    for entry in text.split(","):
        match = re.fullmatch(rf"\s*([^\s=/]+)=(\d+|\d*\.\d+|{REST})\s*", entry)
        if match is None:
            raise bad(f"--outputs: {entry!r} is not NAME=0.9 (a share), NAME=500 (rows) or NAME={REST}")
        size = None if match[2] == REST else float(match[2])
        parts.append(Part(match[1], size, "." in match[2]))
    sizes = [part.size for part in parts]
    if len({part.name for part in parts}) < len(parts):
        raise bad(f"--outputs {text}: a name stands there twice")
    if sizes.count(None) > 1 or not all(size is None or size > 0 for size in sizes):
        raise bad(f"--outputs {text}: sizes must be above 0, and only one part can be the {REST}")
    total = sum(part.size for part in parts if part.share and part.size is not None)
    if total > 1 + 1e-6 or (all(part.share for part in parts) and total < 1 - 1e-6):
        raise bad(f"--outputs {text}: the shares are {total:g} together; they must be 1, or name one part {REST}")
    return parts


# -------------------------------------------------------------------------------- which row goes where


def _rows(path: Path, column: int, seed: int) -> Iterator[tuple[bytes, int]]:
    """Each line with a number below 2**64 that depends on the seed and the cell of this column. Raises DataError."""
    try:
        total = path.stat().st_size
        lines = path.open("rb")
    except OSError as error:
        raise light("errors").DataError(f"{path} cannot be read ({error.strerror})") from error
    salt = (seed % HASHES).to_bytes(8, "little")
    with lines, _byte_bar(total, path.name) as bar:
        for row, line in enumerate(lines, start=1):
            cells = line.rstrip(b"\r\n").split(b"\t", column + 1)
            if len(cells) <= column:
                raise light("errors").DataError(
                    f"{path}:{row} has {len(cells)} columns, but --group-col {column} is needed (columns count from 0)"
                )
            digest = hashlib.blake2b(cells[column], digest_size=8, salt=salt).digest()
            yield line, int.from_bytes(digest, "little")
            bar.update(len(line))


def _byte_bar(total: int, name: str) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=None)


def part_ends(keys: array[int], parts: Sequence[Part], path: Path) -> list[int]:
    """For each part the number below which the numbers of its rows are; those of the part before are below its own.

    Groups are in the order of their numbers, which is as good as random; the first ones fill the first part until it
    comes nearest to its size. Raises DataError if rows would be left over, or a part would be empty.
    """
    import numpy as np

    bad = light("errors").DataError
    sizes = _sizes(len(keys), parts, path)
    ends, start, wanted = [], 0, 0.0
    ordered = np.sort(np.frombuffer(keys, np.uint64))
    for part, size in zip(parts[:-1], sizes[:-1], strict=True):
        wanted += size
        stop = _nearest(ordered, start, round(wanted))
        if stop == start:
            raise bad(f"{path}: no rows are left for {part.name}: rows of one group stay together, and some are large")
        ends.append(int(ordered[stop]) if stop < len(ordered) else HASHES)
        start = stop
    if start == len(ordered):
        raise bad(f"{path}: no rows are left for {parts[-1].name}: rows of one group stay together, and some are large")
    return [*ends, HASHES]


def _sizes(rows: int, parts: Sequence[Part], path: Path) -> list[float]:
    """Rows of each part."""
    bad = light("errors").DataError
    if rows == 0:
        raise bad(f"{path} is empty; there is nothing to split")
    sizes = [None if part.size is None else part.size * rows if part.share else part.size for part in parts]
    given = sum(size for size in sizes if size is not None)
    rest = rows - given
    if None in sizes and rest >= 1:
        return [rest if size is None else size for size in sizes]
    if None in sizes or round(given) != rows:
        raise bad(f"{path} has {rows} rows, but the parts have {given:g} together; name one part {REST}")
    return [size for size in sizes if size is not None]


def _nearest(ordered: np.ndarray, start: int, wanted: int) -> int:
    """The end of a group that is nearest to ``wanted`` and, unless nothing is left, behind ``start``."""
    if wanted >= len(ordered):
        return len(ordered)
    before, after = (int(ordered.searchsorted(ordered[wanted], side)) for side in ("left", "right"))
    return before if before > start and wanted - before <= after - wanted else after


# -------------------------------------------------------------------------------- writing


def write_parts(
    args: argparse.Namespace,
    outputs: Sequence[Path],
    ends: Sequence[int],
    total: int,
    joined: Mapping[int, JoinedRows],
) -> list[int]:
    """Write every line, byte for byte and in the order of the file, to its part, or the lines of parts that are joined.

    All parts appear, or none. Returns how many lines belong to each.
    """
    counts, start = [0] * len(outputs), 0
    with ExitStack() as stack:
        files = [stack.enter_context(atomic_output(output, args.overwrite)) for output in outputs]
        for row, (line, key) in enumerate(_rows(args.input, args.group_col, args.seed), start=1):
            part = bisect.bisect_right(ends, key)
            if part in joined:
                joined[part].add(line, start, row)
            else:
                files[part].write(line)
            counts[part] += 1
            start += len(line)
        if sum(counts) != total:
            raise light("errors").DataError(f"{args.input} changed while it was read; start again")
        for part, rows in joined.items():
            rows.write(files[part])
    return counts
