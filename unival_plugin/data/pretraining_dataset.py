"""Rows of several pretraining sources as one fairseq dataset, whose steps are a batch or two."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np
import torch
from fairseq.data import FairseqDataset

from ..errors import DataError
from .dataset import BadRow
from .mixing import Line, Mixture, line_generator
from .negatives import GeneratorDraws
from .pretraining import PretrainingEncoder, PretrainingReader
from .samples import Batch, Sample, collate
from .tsv import TsvTable

logger = logging.getLogger(__name__)

COUNTED = ("rows", "samples", "bad")
"""What is counted of every source."""


@dataclass
class MixedRow:
    """What belongs to one position of an epoch: lines, and the samples that each was made into."""

    position: int
    read: list[tuple[Line, Union[list[Sample], BadRow]]]


class PretrainingDataset(FairseqDataset):
    """Main rows and the rows that are joined to them.

    Items are :class:`MixedRow`; which rows these are is known once :meth:`batches` has planned an epoch. A collated
    step is a batch of :func:`~.samples.collate` with ``conf`` float32 (B,) and

    * ``is_dummy`` bool: True for a batch that stands for no rows; it has the tensors of some row of the main file, but
      a target of padding only, no ids, and ``nsentences`` and ``ntokens`` 0;
    * ``counts``: by source the rows read, samples made and rows left out, of the whole step;
    * ``bad_rows`` int: the latter of all sources, only with ``skip_bad_rows``.

    If the mixture has sources of a second batch, a step is a list of such batches instead: two where the second one has
    rows on some rank, else one. ``counts`` and ``bad_rows`` then are in the first only.

    Args:
        main: the main files, one for each epoch; after the last one comes the first.
        joined: the files of the mixture's sources by name.
        mixture: what is read together; its rows are those of the files.
        reader: meaning of a row.
        encoder: examples to tensors.
        pad: padding symbol.
        skip_bad_rows: leave unusable rows out, count and report them, instead of stopping.
    """

    can_reuse_epoch_itr_across_epochs = False  # the order of rows depends on the epoch
    # otherwise fairseq reads the first batch of every epoch once more than needed, and names its bad rows twice
    supports_fetch_outside_dataloader = False

    def __init__(
        self,
        main: Sequence[TsvTable],
        joined: Mapping[str, TsvTable],
        mixture: Mixture,
        reader: PretrainingReader,
        encoder: PretrainingEncoder,
        pad: int,
        skip_bad_rows: bool = False,
    ) -> None:
        self.main, self.joined, self.mixture = main, joined, mixture
        self.reader, self.encoder, self.pad = reader, encoder, pad
        self.skip_bad_rows = skip_bad_rows
        self.sources = (mixture.main, *(source.name for source in mixture.sources if source.rows))
        self.paired = any(source.batch == 2 and source.rows for source in mixture.sources)
        self.seed = 1
        self.plan = mixture.plan(1, self.seed, shuffle=False)
        self._substitute: list[Sample] | None = None

    def __len__(self) -> int:
        """Rows of the main file of the epoch, on all ranks."""
        return self.mixture.rows_in(self.plan.epoch)

    def batches(
        self, shards: int, shard: int, batch_size: int, seed: int, epoch: int, shuffle: bool
    ) -> list[list[int]]:
        """Plans an epoch; positions of each batch, the same on all ranks."""
        self.seed = seed
        self.plan = self.mixture.plan(epoch, seed, shuffle, shards, shard)
        return self.plan.batches(batch_size)

    def __getitem__(self, position: int) -> MixedRow:
        return MixedRow(position, [(line, self._read(line)) for line in self.plan.lines(position)])

    def _read(self, line: Line) -> Union[list[Sample], BadRow]:
        try:
            return self.load(line)
        except DataError as error:
            if not self.skip_bad_rows:
                raise
            logger.warning(f"row left out: {error}")
            return BadRow(error)

    def load(self, line: Line) -> list[Sample]:
        """Samples of a line: what is drawn for them depends on the seed and the line only.

        Raises:
            DataError: the row cannot be used; names file, row and column.
        """
        table = self._table(line)
        generator = line_generator(self.seed, line)
        examples = self.reader(
            table.row(line.row), lambda column: table.where(line.row, column), GeneratorDraws(generator)
        )
        return self.encoder.row(examples, lambda: generator)

    def _table(self, line: Line) -> TsvTable:
        if line.source == self.mixture.main:
            return self.main[(line.turn - 1) % len(self.main)]
        return self.joined[line.source]

    # ---- batches

    def collater(self, rows: Sequence[MixedRow]) -> Union[Batch, list[Batch]]:
        """One batch, or a list of one or two; see the class."""
        batches = [self._batch(rows, 1)]
        if any(self.plan.has_second(row.position) for row in rows):
            batches.append(self._batch(rows, 2))
        counts = self._counts(rows)
        batches[0]["counts"] = counts
        if self.skip_bad_rows:
            batches[0]["bad_rows"] = sum(count["bad"] for count in counts.values())
        return batches if self.paired else batches[0]

    def _batch(self, rows: Sequence[MixedRow], number: int) -> Batch:
        samples = [
            sample
            for row in rows
            for line, made in row.read
            if line.batch == number and not isinstance(made, BadRow)
            for sample in made
        ]
        used = samples or self._any_samples()
        batch = collate(used, self.pad)
        batch["conf"] = torch.cat([sample["conf"] for sample in used])
        batch["is_dummy"] = not samples
        if not samples:
            batch.update(id=np.array([], dtype=str), nsentences=0, ntokens=0)
            batch["target"].fill_(self.pad)
        return batch

    def _counts(self, rows: Sequence[MixedRow]) -> dict[str, dict[str, int]]:
        counts = {source: dict.fromkeys(COUNTED, 0) for source in self.sources}
        for row in rows:
            for line, made in row.read:
                count = counts[line.source]
                count["rows"] += 1
                if isinstance(made, BadRow):
                    count["bad"] += 1
                else:
                    count["samples"] += len(made)
        return counts

    def _any_samples(self) -> list[Sample]:
        """Samples of the first usable row of the main file."""
        if self._substitute is None:
            for row in range(len(self)):
                try:
                    self._substitute = self.load(Line(self.mixture.main, row, self.plan.epoch, 1))
                    break
                except DataError:
                    continue  # not a second message about the same row: it is named when its turn comes
            else:
                path = self._table(Line(self.mixture.main, 0, self.plan.epoch, 1)).path
                raise DataError(f"{path}: none of its {len(self)} rows can be used; see the messages above")
        return self._substitute
