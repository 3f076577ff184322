"""Boxes as symbols: pixels of the original picture to ``<bin_i>`` and back.

A box is ``x0, y0, x1, y1``. Its coordinates are scaled to the resized picture, divided by the largest picture size of
the model and rounded to one of the bins (UnIVAL, ``data/mm_data/refcoco_dataset.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError
from .samples import Example, Sample, SampleEncoder

COORDINATES = 4


class BoxCodec:
    """Coordinates to bins and back.

    Args:
        num_bins: bins of a coordinate.
        max_image_size: pixels that the bins span.
        picture_size: side to which pictures are resized, at most ``max_image_size``.

    Raises:
        ConfigError: pictures larger than what the bins span, or fewer than two bins.
    """

    def __init__(self, num_bins: int, max_image_size: int, picture_size: int) -> None:
        if picture_size > max_image_size:
            raise ConfigError(
                f"--patch-image-size {picture_size} is larger than --max-image-size {max_image_size}: boxes would "
                "have no bins; make them equal"
            )
        if num_bins < 2:
            raise ConfigError(f"--num-bins {num_bins}: boxes need at least 2")
        self.num_bins, self.max_image_size, self.picture_size = num_bins, max_image_size, picture_size

    def ratios(self, size: tuple[int, int]) -> Tensor:
        """Factors (width, height) from an original picture of ``size`` pixels to the resized one, float32 (2,)."""
        return torch.tensor([self.picture_size / side for side in size], dtype=torch.float32)

    def encode(self, box: Tensor, ratios: Tensor) -> Tensor:
        """Bins int64 (4,) of a box, float32 (4,) in pixels of the original; what lies outside moves to the border."""
        scaled = box * ratios.repeat(2) / self.max_image_size
        return torch.round(scaled * (self.num_bins - 1)).long().clamp(0, self.num_bins - 1)

    def decode(self, bins: Tensor, ratios: Tensor) -> Tensor:
        """Boxes float32 (N, 4) in pixels of the original from bins (N, 4) and ratios (N, 2)."""
        return bins / (self.num_bins - 1) * self.max_image_size / ratios.repeat(1, 2)


def parse_box(cell: str, where: str) -> Tensor:
    """The numbers ``x0,y0,x1,y1`` of a cell, float32 (4,).

    Raises:
        DataError: not four numbers, or no positive width and height.
    """
    try:
        box = torch.tensor([float(number) for number in cell.split(",")], dtype=torch.float32)
    except ValueError:
        box = torch.empty(0)
    if len(box) != COORDINATES or not bool(box.isfinite().all()):
        raise DataError(f"{where}: {cell[:40]!r} is no box; needs four numbers x0,y0,x1,y1")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise DataError(f"{where}: the box {cell} is empty; needs x0 < x1 and y0 < y1")
    return box


def _check_inside(box: Tensor, size: tuple[int, int], where: str) -> None:
    """Edges may lie a little outside, as in public data; a box that shows nothing of the picture is a mistake."""
    x0, y0, x1, y1 = box.tolist()
    if min(x1, y1) <= 0 or x0 >= size[0] or y0 >= size[1]:
        raise DataError(
            f"{where}: the box {x0:g},{y0:g},{x1:g},{y1:g} lies outside the picture of {size[0]} x {size[1]} pixels; "
            "boxes are x0,y0,x1,y1 in pixels of the original picture"
        )


class BoxEncoder(SampleEncoder):
    """Examples whose target is a box: ``extras["region_coord"]`` in pixels of the original picture.

    Adds to a sample ``w_resize_ratio`` and ``h_resize_ratio``, float32 scalars, and keeps ``region_coord``. An example
    without that is one to predict for: it has no target.

    Args:
        base: how to encode everything else.
        codec: see :class:`BoxCodec`.
    """

    def __init__(self, base: SampleEncoder, codec: BoxCodec) -> None:
        super().__init__(base.text, base.medium)
        self.codec = codec

    def __call__(self, example: Example, rng: Callable[[], np.random.Generator]) -> Sample:
        """As the base; raises DataError as the base, and for a box outside the picture."""
        image = self.medium.open(example.media, example.where, rng)
        ratios = self.codec.ratios(image.size)
        box = example.extras.get("region_coord")
        if box is not None:
            _check_inside(box, image.size, example.where)
        bins = [] if box is None else self.codec.encode(box, ratios).tolist()
        symbols = " ".join(f"<bin_{number}>" for number in bins)
        sample = super().__call__(replace(example, media=image, target=symbols, symbols=True), rng)
        return {**sample, "w_resize_ratio": ratios[0], "h_resize_ratio": ratios[1]}


def collate_boxes(samples: Sequence[Any]) -> dict[str, Any]:
    """What batches of boxes have beside the common keys.

    Returns:
        ``w_resize_ratios``, ``h_resize_ratios`` float32 (B,) and, where known, ``region_coords`` float32 (B, 4);
        ``resize_ratios`` (B, 2) and ``boxes`` (B, 4), the same as float32 arrays: fairseq leaves those as they are,
        while ``--fp16`` rounds every tensor of a batch to halves, which are too coarse for pixels.
    """
    names = ("w_resize_ratio", "h_resize_ratio", "region_coord")
    batch: dict[str, Any] = {
        f"{name}s": torch.stack([sample[name] for sample in samples]) for name in names if name in samples[0]
    }
    batch["resize_ratios"] = torch.stack([batch["w_resize_ratios"], batch["h_resize_ratios"]], dim=1).numpy()
    if "region_coords" in batch:
        batch["boxes"] = batch["region_coords"].numpy().copy()
    return batch
