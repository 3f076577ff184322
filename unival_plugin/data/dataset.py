"""Rows of a table as a fairseq dataset: random access, repeatable randomness, a policy for bad rows."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Union

import numpy as np
from fairseq.data import FairseqDataset

from ..errors import DataError
from .batching import epoch_batches, row_generator
from .samples import Batch, Example, Sample, SampleEncoder, collate
from .tsv import TsvTable

logger = logging.getLogger(__name__)

Place = Callable[[Union[int, None]], str]
RowReader = Callable[[list[str], Place], Example]


class BadRow(str):
    """Stands for a row that cannot be used; its text is the reason."""


class RowDataset(FairseqDataset):
    """The rows of one file.

    Items are samples (see :class:`SampleEncoder`), batches are those of :func:`collate` plus

    * ``bad_rows`` int: rows of this batch that were left out, only with ``skip_bad_rows``;
    * ``is_dummy`` bool: True for a batch that stands for no rows at all. It holds the tensors of some real row, so that
      every process runs the same number of steps, but no ids and ``nsentences`` 0; its loss must be multiplied by 0.

    Args:
        table: the file.
        reader: meaning of a row; gets the selected cells and a function that names the place of a cell for messages.
        encoder: examples to tensors.
        pad: padding symbol.
        skip_bad_rows: leave unusable rows out, count and report them, instead of stopping.
        collate_more: what batches have beside the keys of :func:`collate`, from their samples.
    """

    can_reuse_epoch_itr_across_epochs = False  # the order of rows depends on the epoch
    # otherwise fairseq reads the first batch of every epoch once more than needed, and names its bad rows twice
    supports_fetch_outside_dataloader = False

    def __init__(
        self,
        table: TsvTable,
        reader: RowReader,
        encoder: SampleEncoder,
        pad: int,
        skip_bad_rows: bool = False,
        collate_more: Callable[[Sequence[Sample]], Batch] | None = None,
    ) -> None:
        self.table, self.reader, self.encoder, self.pad = table, reader, encoder, pad
        self.collate_more = collate_more
        self.skip_bad_rows = skip_bad_rows
        self.seed, self.epoch = 1, 1
        self._substitute: Sample | None = None

    def __len__(self) -> int:
        return len(self.table)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the randomness of augmentation."""
        self.epoch = epoch

    def batches(
        self, shards: int, shard: int, batch_size: int, seed: int, epoch: int, shuffle: bool
    ) -> list[list[int]]:
        """Row numbers of this shard's batches; every shard gets the same number, some perhaps empty."""
        self.seed = seed
        self.set_epoch(epoch)
        return epoch_batches(len(self), shards, shard, batch_size, seed, epoch, shuffle)

    def __getitem__(self, index: int) -> Union[Sample, BadRow]:
        try:
            return self.load(index)
        except DataError as error:
            if not self.skip_bad_rows:
                raise
            logger.warning(f"row left out: {error}")
            return BadRow(error)

    def load(self, index: int) -> Sample:
        """The sample of a row.

        Raises:
            DataError: the row cannot be used; names file, row and column.
        """
        example = self.example(index)
        return self.encoder(example, lambda: row_generator(self.seed, self.epoch, index))

    def example(self, index: int) -> Example:
        """The example of a row, its picture not yet decoded; raises DataError as :meth:`load`."""
        cells = self.table.row(index)
        return self.reader(cells, lambda column: self.table.where(index, column))

    def cells(self, k: int) -> Iterator[str]:
        """Selected cell ``k`` of all rows; raises DataError at a bad row, or leaves it out with ``skip_bad_rows``."""
        for index in range(len(self)):
            try:
                yield self.table.cell(index, k)
            except DataError:
                if not self.skip_bad_rows:
                    raise

    def collater(self, samples: Sequence[Union[Sample, BadRow]]) -> Batch:
        """Batch of the usable ones among ``samples``; a dummy batch when there is none."""
        good = [sample for sample in samples if not isinstance(sample, BadRow)]
        samples_used = good or [self._any_sample()]
        batch = collate(samples_used, self.pad)
        if self.collate_more is not None:
            batch.update(self.collate_more(samples_used))
        batch["is_dummy"] = not good
        if not good:
            batch.update(id=np.array([], dtype=str), nsentences=0, ntokens=0)
        if self.skip_bad_rows:
            batch["bad_rows"] = len(samples) - len(good)
        return batch

    def _any_sample(self) -> Sample:
        if self._substitute is None:
            self._substitute = next(self._good_samples(), None)
        if self._substitute is None:
            raise DataError(f"{self.table.path}: none of its {len(self)} rows can be used; see the messages above")
        return self._substitute

    def _good_samples(self) -> Iterator[Sample]:
        for index in range(len(self)):
            # not a second message about the same row: it is named when its turn comes
            with contextlib.suppress(DataError):
                yield self.load(index)
