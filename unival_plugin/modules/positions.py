"""Relative-position buckets and grid ids of the UnIVAL/OFA family of networks.

Legend: P patch positions, ids are integers that index an image position table: id 0 is the unused "class" position,
grid cell (row, column) has id ``row * bucket_size + column + 1``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_TOKEN_POSITIONS = 1024
"""Token buckets are tabulated for this many positions, whatever the model's own maximum."""


def token_buckets(bucket_size: int, max_position: int = MAX_TOKEN_POSITIONS) -> Tensor:
    """Bucket of every (query, key) pair of text positions, int64 ``max_position x max_position``.

    Distances up to ``bucket_size // 2`` have a bucket each, larger ones share logarithmically growing buckets; values
    lie in ``0 .. 2 * bucket_size - 2`` (T5's scheme, made symmetric).
    """
    middle = bucket_size // 2
    position = torch.arange(max_position)
    distance = position[:, None] - position[None, :]
    magnitude = distance.abs()
    far = torch.log(magnitude.clamp(min=middle).float() / middle) / math.log((max_position - 1) / middle) * (middle - 1)
    far_bucket = distance.sign() * (far.ceil().long() + middle)
    return torch.where(magnitude <= middle, distance, far_bucket) + bucket_size - 1


def image_buckets(bucket_size: int) -> Tensor:
    """Bucket of every (query, key) pair of grid ids, int64 ``(bucket_size**2 + 1) x (bucket_size**2 + 1)``.

    Two grid cells get one bucket per (row offset, column offset); the last three of ``(2 * bucket_size - 1)**2 + 3``
    buckets belong to pairs with the class position: as query, as key, and with itself.
    """
    span = 2 * bucket_size - 1
    cell = torch.arange(bucket_size * bucket_size)
    row, column = cell // bucket_size, cell % bucket_size
    row_offset = row[:, None] - row[None, :] + bucket_size - 1
    column_offset = column[:, None] - column[None, :] + bucket_size - 1
    table = torch.empty(cell.numel() + 1, cell.numel() + 1, dtype=torch.int64)
    table[1:, 1:] = row_offset * span + column_offset
    table[0, :] = span * span
    table[:, 0] = span * span + 1
    table[0, 0] = span * span + 2
    return table


def num_image_buckets(bucket_size: int) -> int:
    """Rows of a relative-position table for :func:`image_buckets`."""
    return (2 * bucket_size - 1) ** 2 + 3


def grid_ids(height: int, width: int, bucket_size: int) -> Tensor:
    """Position ids of a ``height x width`` grid in row-major order, int64 ``(height * width,)``.

    Raises:
        ValueError: the grid does not fit into the table of ``bucket_size x bucket_size`` cells.
    """
    if height > bucket_size or width > bucket_size:
        raise ValueError(
            f"a grid of {height} x {width} patches does not fit into the position table of {bucket_size} x "
            f"{bucket_size}: use a smaller picture or a larger --image-bucket-size"
        )
    rows = torch.arange(height)[:, None] * bucket_size
    return (rows + torch.arange(width)[None, :] + 1).flatten()


def square_ids(count: int, bucket_size: int) -> Tensor:
    """Position ids of ``count`` patches without a grid of their own, filled row by row into the smallest square.

    Returns:
        int64 ``(count,)``.

    Raises:
        ValueError: the square does not fit into the table.
    """
    side = math.isqrt(count - 1) + 1 if count else 0
    return grid_ids(side, side, bucket_size)[:count]


def code_position_ids(code_image_size: int, bucket_size: int, length: int = MAX_TOKEN_POSITIONS + 2) -> Tensor:
    """Grid id of every decoder position of an image written as codes, int64 ``(length,)``.

    Position 0 (the start symbol) has id 0, the next ``(code_image_size // 8)**2`` the cells of the code grid, the rest
    the constant 1024 (UnIVAL, decoder buffer ``image_position_idx``), or the last id of a smaller grid.
    """
    side = code_image_size // 8
    ids = torch.full((length,), min(MAX_TOKEN_POSITIONS, bucket_size**2), dtype=torch.int64)
    ids[0] = 0
    cells = grid_ids(side, side, bucket_size)[: length - 1]
    ids[1 : 1 + cells.numel()] = cells
    return ids
