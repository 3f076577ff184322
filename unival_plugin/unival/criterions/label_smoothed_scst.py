"""Label-smoothed cross entropy of the right box, weighted by what the box found is worth.

Source: UnIVAL, ``criterions/label_smoothed_cross_entropy_scst.py``. The dataclass' annotations are real objects because
fairseq derives flags from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.logging import metrics
from torch import Tensor, nn

from .label_smoothed import AdjustLabelSmoothedCrossEntropyCriterion, AdjustLabelSmoothedCrossEntropyCriterionConfig
from .losses import BatchLoss, greedy_loss
from .policy import is_dummy, reward_generator, search
from .scst import BestBoxes, BoxRewardConfig, box_reward


@dataclass
class AdjustLabelSmoothedCrossEntropySCSTCriterionConfig(
    BoxRewardConfig, AdjustLabelSmoothedCrossEntropyCriterionConfig
):
    """Flags of ``adjust_label_smoothed_cross_entropy_scst``."""

    logprob: Optional[bool] = field(default=False, metadata={"help": "no label smoothing in the rewarded loss"})
    reinforce: Optional[bool] = field(
        default=False,
        metadata={"help": "with --logprob: the rewarded loss is that of the likeliest symbols, not of the right ones"},
    )
    lambda_reinforce: Optional[float] = field(
        default=0.0,
        metadata={
            "help": "with --logprob --reinforce, above 0: label-smoothed cross entropy plus this times the same "
            "weighted by rewards"
        },
    )


@register_criterion(
    "adjust_label_smoothed_cross_entropy_scst", dataclass=AdjustLabelSmoothedCrossEntropySCSTCriterionConfig
)
class AdjustLabelSmoothedCrossEntropySCSTCriterion(AdjustLabelSmoothedCrossEntropyCriterion):
    """The log-probabilities of a row are multiplied by its reward before the loss is taken, see the flags."""

    def __init__(self, cfg: AdjustLabelSmoothedCrossEntropySCSTCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        self.generator = reward_generator(task, type(self).__name__)
        self.boxes = BestBoxes(box_reward(cfg), task)
        self.logprob, self.reinforce = bool(cfg.logprob), bool(cfg.reinforce)
        self.lambda_reinforce = cfg.lambda_reinforce or 0.0

    def forward(
        self, model: nn.Module, sample: Any, update_num: int = 0, reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """As the base; also logs ``reward``, the mean reward of a batch."""
        if isinstance(sample, (list, tuple)):
            return self._forward_list(model, sample, update_num)
        rewards = self._rewards(model, sample)
        loss, size, log = super().forward(model, {**sample, "rewards": rewards}, update_num)
        return loss, size, {**log, "reward": float(rewards.mean())}

    def _rewards(self, model: nn.Module, sample: dict[str, Any]) -> Tensor:
        """Rewards fp32 (B,) of the best boxes of the task's ``scst_generator``; 0 for a dummy batch."""
        target = sample["target"]
        if is_dummy(sample):
            return torch.zeros(len(target), device=target.device)
        _, rewards = self.boxes(search(model, self.generator, sample), sample)
        return rewards.to(target.device)

    def _forward_list(
        self, model: nn.Module, samples: Sequence[Any], update_num: int
    ) -> tuple[Tensor, int, dict[str, Any]]:
        loss, size, log = super()._forward_list(model, samples, update_num)
        return loss, size, {**log, "reward": log["reward"] / len(samples)}

    def batch_loss(self, logits: Tensor, sample: Mapping[str, Any], update_num: int) -> BatchLoss:
        """As the base, by the flags; ``nll`` is weighted by rewards."""
        weights, conf = sample["rewards"], sample.get("conf")
        if conf is not None:
            weights = weights * conf
        rewarded = super().batch_loss(logits, {**sample, "conf": weights}, update_num)
        if not self.logprob:
            return rewarded
        if not self.reinforce:
            return rewarded._replace(loss=rewarded.nll)
        if self.lambda_reinforce <= 0:
            return rewarded._replace(loss=self._greedy(logits, {**sample, "conf": weights}))
        plain = super().batch_loss(logits, sample, update_num)
        return rewarded._replace(loss=self.lambda_reinforce * rewarded.loss + plain.loss)

    def _greedy(self, logits: Tensor, sample: dict[str, Any]) -> Tensor:
        masks = sample.get("constraint_masks")
        return greedy_loss(
            logits, sample["target"], self.options, self.padding_idx, self.eos_idx, sample["conf"], masks
        )

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """As the base, and ``reward`` per token, as in the original."""
        super().reduce_metrics(logging_outputs)
        reward = sum(utils.item(log.get("reward", 0)) for log in logging_outputs)
        size = sum(utils.item(log.get("sample_size", 0)) for log in logging_outputs)
        metrics.log_scalar("reward", reward / max(size, 1), size, round=3)
