"""Which rows a worker reads, in which order, with which randomness; and padding.

Everything here is a pure function of its arguments, so that a stopped run continues with exactly the rows it has not
seen, and any number of data loader workers yields the same stream. Sharding follows UnIVAL (data/file_dataset.py,
tasks/ofa_task.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # nothing here runs torch: shuffling a file needs the order of its rows without loading torch
    from torch import Tensor

# Separate streams: the order of the rows must not be correlated with the augmentation of row 0.
_ORDER_STREAM = 1
_ROW_STREAM = 2


def shard_range(total: int, shards: int, shard: int) -> range:
    """Contiguous rows of one shard; the first ``total % shards`` shards hold one row more.

    Raises:
        ValueError: ``shard`` is not in ``[0, shards)`` or ``total`` is negative.
    """
    if total < 0 or not 0 <= shard < shards:
        raise ValueError(f"no shard {shard} of {shards} over {total} rows")
    size, longer = divmod(total, shards)
    start = shard * size + min(shard, longer)
    return range(start, start + size + (shard < longer))


def shard_batches(total: int, shards: int, shard: int, batch_size: int) -> list[list[int]]:
    """Consecutive local row numbers (0 = first row of the shard) cut into batches.

    Every shard returns the same number of batches: where rows run short an empty batch is appended, which the task
    turns into a dummy batch without gradient.

    Raises:
        ValueError: as :func:`shard_range`, or ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"batch size must be at least 1, got {batch_size}")
    rows = len(shard_range(total, shards, shard))
    longest = len(shard_range(total, shards, 0))
    return [list(range(start, min(start + batch_size, rows))) for start in range(0, longest, batch_size)]


def row_order(total: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """All row numbers of one epoch in reading order: int64, shape ``(total,)``."""
    if not shuffle:
        return np.arange(total, dtype=np.int64)
    return seeded_generator(_ORDER_STREAM, seed, epoch).permutation(total).astype(np.int64, copy=False)


def epoch_batches(
    total: int, shards: int, shard: int, batch_size: int, seed: int, epoch: int, shuffle: bool
) -> list[list[int]]:
    """Batches of *global* row numbers of one shard in one epoch; every shard gets the same number of batches.

    Raises:
        ValueError: as :func:`shard_batches`.
    """
    rows = shard_range(total, shards, shard)
    mine = row_order(total, seed, epoch, shuffle)[rows.start : rows.stop]
    return [mine[batch].tolist() for batch in shard_batches(total, shards, shard, batch_size)]


def row_generator(seed: int, epoch: int, row: int) -> np.random.Generator:
    """Source of randomness for the augmentation of one row: the same for any worker, batch size or number of ranks."""
    return seeded_generator(_ROW_STREAM, seed, epoch, row)


def collate_tokens(rows: list[Tensor], pad: int) -> Tensor:
    """Stack rows of different length with right padding.

    Args:
        rows: tensors ``(T_i, ...)`` of one dtype that agree in all other dimensions.
        pad: fill value (1 = ``True`` for bool rows).

    Returns:
        ``(len(rows), max(T_i), ...)`` with the dtype of the first row.

    Raises:
        ValueError: ``rows`` is empty.
    """
    if not rows:
        raise ValueError("cannot collate an empty list of rows")
    longest = max(len(row) for row in rows)
    out = rows[0].new_full((len(rows), longest, *rows[0].shape[1:]), pad)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return out


def seeded_generator(*entropy: int) -> np.random.Generator:
    """A random generator that is a function of the numbers; the first tells streams apart."""
    # A seed sequence takes no negative numbers; users may well pass --seed -1.
    return np.random.default_rng([number % 2**64 for number in entropy])
