"""Self-critical training of captions and reward training of boxes.

Sources: OFA, ``criterions/scst_loss.py``; UnIVAL, ``criterions/refcoco_scst_loss.py``. The dataclasses' annotations are
real objects because fairseq derives flags from them.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from ...data.boxes import COORDINATES, BoxCodec
from ...errors import ConfigError
from ...metrics.boxes import boxes_of_symbols
from ...metrics.cider import CiderD, DocumentFrequency
from .policy import RewardCriterion, RewardCriterionConfig, Rewarded
from .rewards import (
    END,
    BoxReward,
    caption_scores,
    parse_threshold,
    resize_ratios,
    reward_text,
    self_critical,
    true_boxes,
)

logger = logging.getLogger(__name__)

NO_EFFECT = "accepted for old commands, changes nothing with this criterion"


# ---- captions


@register_criterion("scst_reward_criterion", dataclass=RewardCriterionConfig)
class ScstRewardCriterion(RewardCriterion):
    """All hypotheses of a picture, each weighted by its CIDEr-D less the mean of the others.

    A picture whose references are all empty counts nothing, nor does one with a single hypothesis.
    """

    def __init__(self, cfg: RewardCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        path = cfg.scst_cider_cached_tokens
        self._cider = CiderD(DocumentFrequency.load(Path(path))) if path else None
        if self._cider is not None and (END,) not in self._cider.df.counts:
            logger.warning(f"{path}: no reference ends in {END}, so ends of captions are rewarded as something rare")

    @property
    def cider(self) -> CiderD:
        """The scorer; without a file its frequencies are counted when it is first needed."""
        if self._cider is None:
            logger.info("counting n-grams of the references; --scst-cider-cached-tokens saves this")
            references = [[reward_text(text) for text in group] for group in self.task.training_references()]
            self._cider = CiderD(DocumentFrequency.from_references(references))
        return self._cider

    def rewarded(self, found: list[list[dict[str, Any]]], sample: dict[str, Any]) -> Rewarded:
        """See the base class; the score is CIDEr-D itself, 0 to 10."""
        references = self.task.references(sample)
        tokens = [
            [hypothesis["tokens"] for hypothesis in row] if len(row) > 1 and any(map(str.strip, group)) else []
            for row, group in zip(found, references, strict=True)
        ]
        counted = np.array([len(row) for row in tokens])
        pictures = np.repeat(np.arange(len(tokens)), counted)
        captions = [self.task.text.decode(each) for row in tokens for each in row]
        scores = caption_scores(captions, [references[picture] for picture in pictures], self.cider)
        weights = torch.zeros(len(tokens), max(counted.max(), 1))
        present = torch.arange(weights.shape[1]) < torch.from_numpy(counted)[:, None]
        weights[present] = torch.from_numpy(self_critical(scores, pictures)).float()
        return Rewarded(tokens, weights, float(scores.sum()), len(scores))


# ---- boxes


@dataclass
class BoxRewardConfig(FairseqDataclass):
    """Flags that say what a box is worth; ``--acc-thresh`` and the sizes are the task's, too, with the same value."""

    acc_thresh: Optional[str] = field(
        default=None,
        metadata={
            "help": "overlap (IoU) from which a box is right and worth 1, of several the first; default: a box is "
            "worth its overlap"
        },
    )
    metric: Optional[str] = field(
        default="acc",
        metadata={"help": "what boxes are worth: acc, each its own; map, the batch's average precision"},
    )
    max_area_size: Optional[float] = field(
        default=None, metadata={"help": "only objects below this area in square pixels are worth something"}
    )
    min_area_size: Optional[float] = field(
        default=None,
        metadata={"help": "only objects above this area are worth something; with --max-area-size both kinds are"},
    )
    pos_reward: Optional[float] = field(default=None, metadata={"help": "worth of right boxes instead of 1"})
    neg_reward: Optional[float] = field(default=None, metadata={"help": "worth of wrong boxes instead of 0"})


def box_reward(cfg: Any, medium: bool = False) -> BoxReward:
    """The reward that the flags describe; raises ConfigError."""
    return BoxReward(
        threshold=parse_threshold(cfg.acc_thresh),
        metric=cfg.metric or "acc",
        max_area=cfg.max_area_size,
        min_area=cfg.min_area_size,
        medium=medium,
        positive=cfg.pos_reward,
        negative=cfg.neg_reward,
    )


class BestBoxes:
    """Rewards of the best box of every row, by the task's bins.

    Raises:
        ConfigError: the task has no boxes.
    """

    def __init__(self, reward: BoxReward, task: Any) -> None:
        bins, pixels = getattr(task.cfg, "num_bins", None), getattr(task.cfg, "max_image_size", None)
        if not bins or not pixels:
            raise ConfigError(f"boxes are rewarded, but the task {type(task).__name__} has none; use --task refcoco")
        self.reward, self.codec = reward, BoxCodec(bins, pixels, pixels)
        self.first_bin = len(task.target_dictionary) - bins
        self.eos = task.target_dictionary.eos()

    def __call__(self, found: list[list[dict[str, Any]]], sample: dict[str, Any]) -> tuple[list[Tensor], Tensor]:
        """Symbols without the end symbol, none where nothing was found, and rewards fp32 (B,)."""
        tokens = [row[0]["tokens"] if row else torch.empty(0, dtype=torch.int64) for row in found]
        tokens = [each[each.ne(self.eos)] for each in tokens]
        boxes = boxes_of_symbols(tokens, self.first_bin, self.codec, resize_ratios(sample)[: len(tokens)])
        return tokens, self.reward(boxes, true_boxes(sample)[: len(tokens)])


@dataclass
class RefCOCOScstRewardCriterionConfig(BoxRewardConfig, RewardCriterionConfig):
    """Flags of ``refcoco_scst_reward_criterion``."""

    logprob: Optional[bool] = field(default=False, metadata={"help": NO_EFFECT})
    reinforce: Optional[bool] = field(default=False, metadata={"help": NO_EFFECT})
    lambda_reinforce: Optional[float] = field(
        default=0.0,
        metadata={
            "help": "weight of the rewarded loss beside the cross entropy of the right box; 0: the rewarded loss alone"
        },
    )
    medium_area: Optional[bool] = field(
        default=False,
        metadata={
            "help": "objects of medium size are worth something: between --max-area-size and --min-area-size, or with "
            "one of them medium and large, medium and small"
        },
    )


@register_criterion("refcoco_scst_reward_criterion", dataclass=RefCOCOScstRewardCriterionConfig)
class RefCOCOScstRewardCriterion(RewardCriterion):
    """The best box of every row, weighted by its reward, without a baseline.

    With ``--lambda-reinforce`` L the loss is the cross entropy of the right box plus L times that. The cross entropy is
    taken from the same pass, as in the original: behind the coordinates that were found, not the right ones.
    """

    shortest = COORDINATES

    def __init__(self, cfg: RefCOCOScstRewardCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        self.boxes = BestBoxes(box_reward(cfg, bool(cfg.medium_area)), task)
        self.lambda_reinforce = cfg.lambda_reinforce or 0.0

    def rewarded(self, found: list[list[dict[str, Any]]], sample: dict[str, Any]) -> Rewarded:
        """See the base class; the score is the reward."""
        tokens, rewards = self.boxes(found, sample)
        return Rewarded([[each] for each in tokens], rewards[:, None], float(rewards.sum()), len(tokens))

    def whole_loss(self, loss: Tensor, logits: Tensor, sample: dict[str, Any]) -> Tensor:
        """See the base class."""
        if self.lambda_reinforce <= 0:
            return loss
        right = self.policy_loss(logits[:, :COORDINATES], sample["target"][:, :COORDINATES], None)
        return right.loss + self.lambda_reinforce * loss
