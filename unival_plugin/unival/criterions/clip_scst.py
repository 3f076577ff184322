"""Self-critical training of generated pictures: CLIP says which of a caption's pictures fit it better than the others.

Source: UnIVAL, ``criterions/clip_scst_loss.py``. The annotations are real objects because fairseq derives flags from
dataclasses.
"""

from typing import Any

import numpy as np
import torch
from fairseq.criterions import register_criterion
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ...errors import ConfigError
from .policy import RewardCriterion, RewardCriterionConfig, Rewarded
from .rewards import self_critical


@register_criterion("clip_scst_reward_criterion", dataclass=RewardCriterionConfig)
class ClipScstRewardCriterion(RewardCriterion):
    """All pictures of a caption, each weighted by its score less the mean of the others.

    The task says what pictures are worth: ``picture_rewards(codes, sample) -> Tensor`` gets the sampled code symbols
    without the end symbol, for every row of the batch a list of int64 tensors (empty for a row that is left out), and
    returns one score for each, row after row: float (N,), on any device. In UnIVAL that is 2.5 times the cosine
    similarity of picture and caption (:data:`~unival_plugin.metrics.pictures.CLIP_REWARD_WEIGHT`).

    The end symbol behind the codes counts in the loss. A caption with a single picture counts nothing.

    Raises:
        ConfigError: the task does not score pictures.
    """

    def __init__(self, cfg: RewardCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        if not hasattr(task, "picture_rewards"):
            raise ConfigError(
                f"{type(self).__name__}: {type(task).__name__} has no pictures to score; use --task image_gen"
            )

    def forward(
        self, model: nn.Module, sample: dict[str, Any], update_num: int = 0, reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """See the base class."""
        masks = sample["net_input"].get("code_masks")
        if masks is not None:  # one for all: every row asks for pictures, and the second pass has K times the rows
            sample = {**sample, "net_input": {**sample["net_input"], "code_masks": masks[:1]}}
        return super().forward(model, sample, update_num, reduce)

    def rewarded(self, found: list[list[dict[str, Any]]], sample: dict[str, Any]) -> Rewarded:
        """See the base class; the score is what the task says, 2.5 times a cosine."""
        tokens = [[hypothesis["tokens"] for hypothesis in row] if len(row) > 1 else [] for row in found]
        counted = [len(row) for row in tokens]
        if not any(counted):
            return Rewarded(tokens, torch.zeros(len(tokens), 1), 0.0, 0)
        codes = [[each[each.ne(self.eos_idx)] for each in row] for row in tokens]
        with torch.no_grad():
            scores = self.task.picture_rewards(codes, sample).detach().float().cpu()
        rewards = self_critical(scores.numpy(), np.repeat(np.arange(len(tokens)), counted))
        weights = pad_sequence(list(torch.from_numpy(rewards).float().split(counted)), batch_first=True)
        return Rewarded(tokens, weights, float(scores.sum()), len(scores))
