"""Which lines of which pretraining sources are read together: one main source, others joined to it.

Every ``every``-th main line brings the next line of a source with it. Here that is a pure function of the position of
the main line, epoch, seed and number of ranks: nothing is counted while reading, so a resumed run, any number of data
loader workers and all ranks agree about every line.

Equal to UnIVAL (tasks/pretrain_tasks/unify_task.py, data/pretrain_data/unify_dataset.py, data/file_dataset.py):

* main files follow each other epoch by epoch, each rank reads a contiguous shard of the epoch's file;
* a rank counts its main lines from 1, anew in every epoch; line k brings a line of each source with k % every == 0;
* a source goes on over the epochs where it stopped and starts over when it is used up;
* with one rank and rows in file order, every line is the reference's.

Different from it:

* The reference cuts each source into a shard for each rank, whose readers wrap around on their own. Here all ranks are
  dealt from one stream, in the order of their steps: no row is dealt a second time, on any rank, before all rows were
  dealt once, a source may have fewer rows than there are ranks, and the sequence of dealt rows is the same for any
  number of ranks. How many are dealt in an epoch may differ by less than one line for each rank, since ranks count
  their own lines; in return all ranks join the same sources in the same step.
* A source can be shuffled, each of its passes in another order.
* Positions are not lost when a run is resumed; the reference's readers of joined sources keep them in memory only.
* A rank that has one main line less than others gets a position without lines, where the reference reads a row twice.
* A source without rows is left out (:func:`left_out` has a message for it) instead of failing at its first line.

Positions assume that seed, number of ranks, main files and the source's own rows and ``every`` stay as they are; a
change of them moves a source to another place in its stream, once. Other sources do not matter.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError
from .batching import row_order, seeded_generator, shard_batches, shard_range

# Streams 1 and 2 belong to the order and the augmentation of single tables (batching.py).
_SOURCE_STREAM = 3
_LINE_STREAM = 4
# Passes of small sources are drawn many at a time: a generator of its own for each would take longer than its draws.
_BLOCK_ROWS = 2**16


@dataclass(frozen=True)
class Source:
    """A file whose lines are joined to main lines.

    Args:
        name: for logs and for its stream of randomness, unique in a mixture.
        rows: rows of its file; 0 leaves it out.
        every: joined to each ``every``-th main line.
        batch: 1, together with the main lines, or 2, the second batch of a step.

    Raises:
        ConfigError: a number is out of range.
    """

    name: str
    rows: int
    every: int
    batch: int = 1

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ConfigError(f"source {self.name}: {self.rows} rows: a number of rows is at least 0")
        if self.every < 1:
            raise ConfigError(f"source {self.name}: joined to each {self.every}-th line: set its count to at least 1")
        if self.batch not in (1, 2):
            raise ConfigError(f"source {self.name}: there is no batch {self.batch}: choose 1 or 2")


class Line(NamedTuple):
    """One line to read.

    ``turn`` numbers the passes over the file: for the main source it is the epoch, for others it counts from 0. Source,
    turn and row together never come twice, so they are what a line's randomness may depend on.
    """

    source: str
    row: int
    turn: int
    batch: int


def line_generator(seed: int, line: Line) -> np.random.Generator:
    """Source of randomness for one line: the same for any worker, batch size or number of ranks."""
    return seeded_generator(_LINE_STREAM, seed, zlib.crc32(line.source.encode()), line.turn, line.row)


@dataclass(frozen=True)
class Mixture:
    """A main source and the sources that are joined to it.

    Args:
        main_rows: rows of the main file of epoch 1, 2, ...; later epochs start over with the first.
        sources: joined to a main line in this order.
        main: name of the main source.

    Raises:
        ConfigError: a main file is missing or empty, or two sources have one name.
    """

    main_rows: tuple[int, ...]
    sources: tuple[Source, ...] = ()
    main: str = "main"

    def __post_init__(self) -> None:
        if not self.main_rows or min(self.main_rows) < 1:
            raise ConfigError(f"source {self.main} has files of {list(self.main_rows)} rows: each needs at least one")
        names = [self.main, *(source.name for source in self.sources)]
        if len(set(names)) < len(names):
            raise ConfigError(f"sources {', '.join(names)}: give each a name of its own")

    def rows_in(self, epoch: int) -> int:
        """Rows of the main file of an epoch (counted from 1)."""
        return self.main_rows[(epoch - 1) % len(self.main_rows)]

    def joined(self, source: Source, epoch: int, shards: int = 1) -> int:
        """Lines of ``source`` that all ranks together read in one epoch."""
        return _joined(source, self.rows_in(epoch), shards)

    def joined_before(self, source: Source, epoch: int, shards: int = 1) -> int:
        """Lines of ``source`` that all ranks together have read when an epoch starts."""
        cycles, rest = divmod(epoch - 1, len(self.main_rows))
        each = [_joined(source, rows, shards) for rows in self.main_rows]
        return cycles * sum(each) + sum(each[:rest])

    def plan(self, epoch: int, seed: int, shuffle: bool, shards: int = 1, shard: int = 0) -> EpochPlan:
        """What one rank reads in one epoch (counted from 1); ``shuffle`` is for all sources.

        Raises:
            ValueError: there is no such epoch or shard.
        """
        if epoch < 1:
            raise ValueError(f"epochs count from 1, got {epoch}")
        rows = self.rows_in(epoch)
        mine = shard_range(rows, shards, shard)
        streams = []
        for source in self.sources:
            if source.rows:
                start = self.joined_before(source, epoch, shards)
                dealt = _dealt(source, seed, shuffle, start, start + self.joined(source, epoch, shards))
                streams.append(_Stream(source, start + shard, shards, dealt[shard::shards].copy()))
        return EpochPlan(
            main=self.main,
            epoch=epoch,
            rows=row_order(rows, seed, epoch, shuffle)[mine.start : mine.stop].copy(),
            positions=len(shard_range(rows, shards, 0)),
            streams=tuple(streams),
        )


@dataclass(frozen=True)
class _Stream:
    """What one rank gets of one source in one epoch: ``rows`` (int64), dealt as number first, first + step, ..."""

    source: Source
    first: int
    step: int
    rows: np.ndarray

    def line(self, position: int) -> Line | None:
        number, missing = divmod(position + 1, self.source.every)
        if missing:
            return None
        turn = (self.first + (number - 1) * self.step) // self.source.rows
        return Line(self.source.name, int(self.rows[number - 1]), turn, self.source.batch)


@dataclass(frozen=True)
class EpochPlan:
    """What one rank reads in one epoch, by position; made by :meth:`Mixture.plan`.

    Positions count this rank's main lines from 0. All ranks have the same positions and so the same batches; the last
    position of a rank that has one main line less than others has no lines.

    Attributes:
        main: name of the main source.
        epoch: counted from 1.
        rows: int64, this rank's rows of the main file.
        positions: how many positions there are, on all ranks.
        streams: this rank's rows of the joined sources.
    """

    main: str
    epoch: int
    rows: np.ndarray
    positions: int
    streams: tuple[_Stream, ...]

    def __len__(self) -> int:
        return self.positions

    def lines(self, position: int) -> list[Line]:
        """The main line of a position and the lines joined to it; empty where this rank has none.

        Raises:
            IndexError: there is no such position.
        """
        if not 0 <= position < self.positions:
            raise IndexError(f"epoch {self.epoch} has {self.positions} positions, {position} was asked for")
        if position >= len(self.rows):
            return []
        main = Line(self.main, int(self.rows[position]), self.epoch, 1)
        return [main, *(line for stream in self.streams if (line := stream.line(position)) is not None)]

    def has_second(self, position: int) -> bool:
        """Whether lines of batch 2 belong to this position on some rank.

        All ranks give the same answer, even one without lines there, so that all run the same number of batches.
        """
        return any(s.source.batch == 2 and (position + 1) % s.source.every == 0 for s in self.streams)

    def batches(self, batch_size: int) -> list[list[int]]:
        """Positions of each batch, in order; the same on all ranks.

        Raises:
            ValueError: ``batch_size`` is not positive.
        """
        return shard_batches(self.positions, 1, 0, batch_size)

    def counts(self) -> dict[str, int]:
        """Lines that this rank reads of each source that has rows."""
        return {self.main: len(self.rows), **{stream.source.name: len(stream.rows) for stream in self.streams}}


@dataclass(frozen=True)
class Ratio:
    """Effective share of one source, averaged over one cycle of the main files and over ranks.

    Attributes:
        name: of the source.
        batch: 1 or 2.
        every: joined to each ``every``-th main line; 1 for the main source.
        rows: of its file, for the main source of all its files.
        lines_per_main_line: its lines for one main line.
        samples_per_update: samples it gives to one update of the weights, over all ranks.
        share: of all samples, 0 to 1.
        passes_per_epoch: how often an epoch of the main source goes through all its rows.
    """

    name: str
    batch: int
    every: int
    rows: int
    lines_per_main_line: float
    samples_per_update: float
    share: float
    passes_per_epoch: float


def ratios(
    mixture: Mixture, batch_size: int, shards: int = 1, update_freq: int = 1, samples_per_line: int = 2
) -> list[Ratio]:
    """Effective numbers of the main source and of all others, in their order.

    Args:
        mixture: the sources.
        batch_size: main lines in a batch of one rank.
        shards: ranks.
        update_freq: batches before an update.
        samples_per_line: what a line is made into.
    """
    epochs = len(mixture.main_rows)
    main_lines = sum(mixture.main_rows)
    main = Source(mixture.main, main_lines, 1)
    lines = {main: main_lines, **{s: mixture.joined_before(s, epochs + 1, shards) for s in mixture.sources}}
    samples = batch_size * shards * update_freq * samples_per_line / main_lines
    all_lines = sum(lines.values())
    return [
        Ratio(
            name=source.name,
            batch=source.batch,
            every=source.every,
            rows=source.rows,
            lines_per_main_line=count / main_lines,
            samples_per_update=count * samples,
            share=count / all_lines,
            passes_per_epoch=count / epochs / source.rows if source.rows else 0.0,
        )
        for source, count in lines.items()
    ]


def left_out(mixture: Mixture, shards: int = 1) -> list[str]:
    """A message for each source of which no line is ever read."""
    longest = len(shard_range(max(mixture.main_rows), shards, 0))
    messages = []
    for source in mixture.sources:
        if source.rows == 0:
            messages.append(f"source {source.name} has no rows and is left out: give a file with rows, or none")
        elif source.every > longest:
            messages.append(
                f"source {source.name} is never read: it joins each {source.every}-th main line, but a process reads "
                f"only {longest} in an epoch: set its count to at most {longest}"
            )
    return messages


def format_table(table: Sequence[Ratio]) -> list[str]:
    """The table as aligned lines of text: a head, a line for each source, their sum."""
    head = ["source", "batch", "every", "rows", "lines/main line", "samples/update", "share", "passes/epoch"]
    cells = [
        [
            ratio.name,
            str(ratio.batch),
            str(ratio.every),
            str(ratio.rows),
            f"{ratio.lines_per_main_line:.4g}",
            f"{ratio.samples_per_update:.4g}",
            f"{ratio.share:.1%}",
            f"{ratio.passes_per_epoch:.4g}",
        ]
        for ratio in table
    ]
    lines = sum(ratio.lines_per_main_line for ratio in table)
    samples = sum(ratio.samples_per_update for ratio in table)
    rows = [head, *cells, ["all", "", "", "", f"{lines:.4g}", f"{samples:.4g}", "100.0%", ""]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_align(row, widths)).rstrip() for row in rows]


def _align(row: list[str], widths: list[int]) -> list[str]:
    """Names to the left, numbers to the right."""
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _joined(source: Source, main_rows: int, shards: int) -> int:
    """Lines of ``source`` that go with one pass over the main file, over all ranks; each counts its own main lines."""
    if source.rows == 0:
        return 0
    size, longer = divmod(main_rows, shards)
    return longer * ((size + 1) // source.every) + (shards - longer) * (size // source.every)


def _dealt(source: Source, seed: int, shuffle: bool, start: int, stop: int) -> np.ndarray:
    """Rows ``start`` to ``stop`` of the endless stream of a source, which is one pass over its rows after the other."""
    if not shuffle or start == stop:
        return np.arange(start, stop, dtype=np.int64) % source.rows
    length = max(1, _BLOCK_ROWS // source.rows) * source.rows
    first, last = start // length, (stop - 1) // length
    blocks = [_shuffled_block(source, seed, block, length) for block in range(first, last + 1)]
    return np.concatenate(blocks)[start - first * length : stop - first * length]


def _shuffled_block(source: Source, seed: int, block: int, length: int) -> np.ndarray:
    """As many whole passes as ``length`` holds, each in an order of its own."""
    passes = np.broadcast_to(np.arange(source.rows, dtype=np.int64), (length // source.rows, source.rows))
    generator = seeded_generator(_SOURCE_STREAM, seed, zlib.crc32(source.name.encode()), block)
    return generator.permuted(passes, axis=1).reshape(-1)
