"""What hypotheses are worth: pure functions of boxes and captions, no network.

Sources: UnIVAL, ``criterions/refcoco_scst_loss.py`` (Ramé et al., "Rewarded soups", 2023: rewards for objects of one
size); OFA, ``criterions/scst_loss.py`` (Rennie et al., "Self-critical Sequence Training for Image Captioning", 2017).

Legend: N pairs of a found and a true box, or N captions of some pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.text import strip_punctuation
from ...errors import ConfigError
from ...metrics.boxes import areas, average_precision, iou
from ...metrics.cider import CiderD

END = "<eos>"  # counted as a word, so that stopping too early or too late costs


# ---- boxes


@dataclass(frozen=True)
class BoxReward:
    """Reward of boxes; the fields are the flags of the criterions.

    Args:
        threshold: IoU from which a box is right and worth 1; None: a box is worth its IoU.
        metric: "acc", or "map": all boxes of a batch are worth its average precision.
        max_area, min_area, medium: objects that count, see :func:`counts`; for "acc" only.
        positive, negative: worth of boxes that would be worth more than 0, and 0; None and 0: as it is.

    Raises:
        ConfigError: another metric, or "map" without a threshold.
    """

    threshold: float | None = None
    metric: str = "acc"
    max_area: float | None = None
    min_area: float | None = None
    medium: bool = False
    positive: float | None = None
    negative: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in ("acc", "map"):
            raise ConfigError(f"--metric {self.metric}: boxes are rewarded by acc or map")
        if self.metric == "map" and self.threshold is None:
            raise ConfigError("--metric map: needs the overlap from which a box is right, e.g. --acc-thresh 0.5")

    def __call__(self, found: Tensor, true: Tensor) -> Tensor:
        """Rewards fp32 (N,) of boxes (N, 4) in pixels of the original pictures."""
        rewards = self._average_precision(found, true) if self.metric == "map" else self._accuracy(found, true)
        if self.positive:
            rewards = torch.where(rewards > 0, self.positive, rewards)
        if self.negative:
            rewards = torch.where(rewards == 0, self.negative, rewards)
        return rewards

    def _accuracy(self, found: Tensor, true: Tensor) -> Tensor:
        overlap = iou(found, true) * counts(areas(true), self.max_area, self.min_area, self.medium)
        return overlap if self.threshold is None else ((overlap >= self.threshold) & (overlap > 0)).float()

    def _average_precision(self, found: Tensor, true: Tensor) -> Tensor:
        assert self.threshold is not None
        return torch.full((len(true),), average_precision(found, true, self.threshold))


def counts(sizes: Tensor, max_area: float | None, min_area: float | None, medium: bool) -> Tensor:
    """Which objects count, by their areas (N,) in square pixels of the original picture; fp32 (N,), 0 or 1.

    ``max_area`` selects small objects (below it), ``min_area`` large ones (above it), both together small and large
    ones. With ``medium`` they bound the medium ones instead: between the two; above ``max_area`` alone, which are
    medium and large; below ``min_area`` alone, which are small and medium.
    """
    below, above = (min_area, max_area) if medium else (max_area, min_area)
    tests = [sizes < below] if below is not None else []
    tests += [sizes > above] if above is not None else []
    if not tests:
        return torch.ones_like(sizes)
    return (torch.stack(tests).all(dim=0) if medium else torch.stack(tests).any(dim=0)).float()


def parse_threshold(text: Any) -> float | None:
    """``--acc-thresh``, which the task has too: of several overlaps the first, which makes the task's score.

    Raises:
        ConfigError: not a number.
    """
    first = str(text if text is not None else "").split(",")[0].strip()
    try:
        return float(first) if first else None
    except ValueError:
        raise ConfigError(f"--acc-thresh {text}: needs a number such as 0.5") from None


def resize_ratios(sample: dict[str, Any]) -> Tensor:
    """Ratios (B, 2), width and height; fp32 even where --fp16 has halved the tensors of a batch.

    Batches made elsewhere may have the original's keys only.
    """
    if "resize_ratios" in sample:
        return torch.from_numpy(sample["resize_ratios"])
    return torch.stack([sample["w_resize_ratios"], sample["h_resize_ratios"]], dim=1).float().cpu()


def true_boxes(sample: dict[str, Any]) -> Tensor:
    """True boxes (B, 4) in pixels of the original; fp32, and of batches made elsewhere, as :func:`resize_ratios`."""
    return torch.from_numpy(sample["boxes"]) if "boxes" in sample else sample["region_coords"].float().cpu()


# ---- captions


def reward_text(caption: str) -> str:
    """A caption as rewards compare it: no punctuation, upper and lower case as they are, and a word for its end."""
    return f"{strip_punctuation(caption.strip())} {END}".strip()


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]], cider: CiderD) -> np.ndarray:
    """CIDEr-D float64 (N,) of captions, each against the references of its picture."""
    return cider.scores(
        [reward_text(caption) for caption in captions], [[reward_text(text) for text in group] for group in references]
    )


def self_critical(scores: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """Scores (N,) less the mean of the other captions of the same picture; 0 for the only one of a picture.

    Computed in the precision of the scores, as the original. ``pictures`` int (N,) numbers the picture of each caption.
    """
    others = (np.bincount(pictures, minlength=1)[pictures] - 1).astype(scores.dtype)
    sums = np.bincount(pictures, scores, minlength=1)[pictures].astype(scores.dtype)
    return np.where(others > 0, scores - (sums - scores) / np.maximum(others, 1), 0)
