"""Overlap of predicted and true boxes, as visual grounding is scored.

Boxes are N x 4 float tensors of ``x0, y0, x1, y1`` in pixels of the original picture.

Source: UnIVAL, ``tasks/mm_tasks/refcoco.py`` and ``utils/eval_utils.py``; the measure is that of RefCOCO (Yu et al.
2016, "Modeling Context in Referring Expressions").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.boxes import COORDINATES, BoxCodec
from ..errors import ConfigError, DataError

EPSILON = 1e-6  # keeps the quotient of empty boxes finite


def areas(boxes: Tensor) -> Tensor:
    """Width times height, N."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def iou(hypotheses: Tensor, references: Tensor, clip: bool = True) -> Tensor:
    """Intersection over union of N pairs of boxes, N.

    Args:
        clip: pairs that do not overlap, and reversed boxes, get 0. The original forgets this: there the product of two
            negative sides counts as overlap, which False brings back (its accuracies are right all the same).

    Raises:
        DataError: tensors of different or other shapes than N x 4.
    """
    if hypotheses.shape != references.shape or hypotheses.shape[1:] != (4,):
        shapes = f"{tuple(hypotheses.shape)} and {tuple(references.shape)}"
        raise DataError(f"boxes of shapes {shapes} cannot be compared: both must be N x 4")
    begins = torch.maximum(hypotheses[:, :2], references[:, :2])
    sides = torch.minimum(hypotheses[:, 2:], references[:, 2:]) - begins
    common = (sides.clamp(min=0) if clip else sides).prod(dim=1)
    return common / (areas(hypotheses) + areas(references) - common + EPSILON)


class BoxMetric:
    """Accuracy of boxes at thresholds, for all and for boxes of certain sizes.

    Args:
        thresholds: a box is right if its IoU reaches the threshold and it overlaps the true one.
        min_area: true boxes above this area (square pixels) are "large".
        max_area: true boxes below this area are "small"; those between ``max_area`` and ``min_area`` are "medium".

    Raises:
        ConfigError: a threshold outside 0..1.
    """

    def __init__(
        self, thresholds: Sequence[float] = (0.5,), min_area: float | None = None, max_area: float | None = None
    ) -> None:
        outside = [threshold for threshold in thresholds if not 0 <= threshold <= 1]
        if outside:
            raise ConfigError(f"IoU threshold {outside[0]} lies outside 0..1")
        self.thresholds = list(thresholds)
        self.min_area, self.max_area = min_area, max_area

    def score(self, hypotheses: Tensor, references: Tensor) -> dict[str, Tensor]:
        """Scores of N boxes, each N fp32.

        Returns:
            ``iou``; for each threshold ``acc0.5``; for each band that the areas define ``small``, ``medium``, ``large``
            (1 where the true box is in it) and ``acc0.5_small`` (1 where the box is in the band and right). The
            original reports the mean of the latter over all boxes; divide the sum by that of ``small`` to get the
            accuracy within the band.

        Raises:
            DataError: see :func:`iou`.
        """
        overlap = iou(hypotheses, references)
        bands = self._bands(areas(references))
        scores = {"iou": overlap, **bands}
        for threshold in self.thresholds:
            right = ((overlap >= threshold) & (overlap > 0)).float()
            name = f"acc{threshold:g}"
            scores[name] = right
            scores |= {f"{name}_{band}": right * inside for band, inside in bands.items()}
        return scores

    def _bands(self, sizes: Tensor) -> dict[str, Tensor]:
        bands = {}
        if self.max_area is not None:
            bands["small"] = (sizes < self.max_area).float()
        if self.min_area is not None:
            bands["large"] = (sizes > self.min_area).float()
        if self.max_area is not None and self.min_area is not None:
            bands["medium"] = ((sizes > self.max_area) & (sizes < self.min_area)).float()
        return bands


def boxes_of_symbols(symbols: Sequence[Tensor], first_bin: int, codec: BoxCodec, ratios: Tensor) -> Tensor:
    """Boxes fp32 N x 4 of N hypotheses, whose first four symbols are bins; what is no box has no size.

    Args:
        symbols: int64 tensors of any length.
        first_bin: id of ``<bin_0>``.
        codec: from bins to pixels.
        ratios: N x 2, see :meth:`BoxCodec.ratios`.
    """
    bins = torch.zeros(len(symbols), COORDINATES)
    for row, found in enumerate(symbols):
        numbers = found[:COORDINATES].cpu() - first_bin
        if len(numbers) == COORDINATES and int(numbers.min()) >= 0 and int(numbers.max()) < codec.num_bins:
            bins[row] = numbers
    return codec.decode(bins, ratios)


def average_precision(hypotheses: Tensor, references: Tensor, threshold: float) -> float:
    """Area under the curve of precision over recall (VOC 2012), N hypotheses against M true boxes of one class, 0..1.

    Hypotheses count in their order, as if ever less certain; each takes the true box that it overlaps most, if at
    least ``threshold`` and not taken before. A box reaches to the far edge of its last pixel, as in the package
    mapcalc, with which the original rewards.
    """
    if len(references) == 0 or len(hypotheses) == 0:
        return 0.0
    overlap = _overlap_of_pixels(hypotheses, references)
    best, chosen = overlap.max(dim=1)
    taken: set[int] = set()
    right = []
    for enough, box in zip((best >= threshold).tolist(), chosen.tolist(), strict=True):
        right.append(enough and box not in taken)
        taken.update([box] if enough else [])
    hits = torch.tensor(right, dtype=torch.float64)
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    highest = precision.flip(0).cummax(0).values.flip(0)  # the best precision at this recall or a higher one
    return float((hits * highest).sum() / len(references))


def _overlap_of_pixels(hypotheses: Tensor, references: Tensor) -> Tensor:
    """N x M; -1 where boxes have no pixel in common."""
    first, second = hypotheses[:, None].double(), references[None].double()
    sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2]) + 1
    sizes = [(boxes[..., 2:] - boxes[..., :2] + 1).prod(dim=-1) for boxes in (first, second)]
    common = sides.prod(dim=-1)
    return torch.where((sides > 0).all(dim=-1), common / (sizes[0] + sizes[1] - common), -1.0)
