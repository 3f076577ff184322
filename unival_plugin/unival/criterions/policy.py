"""Policy gradient over the hypotheses of a search: what the reward criterions share.

Sources: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning" (1992);
Ranzato et al., "Sequence level training with recurrent neural networks" (2016); UnIVAL,
``criterions/refcoco_scst_loss.py``.

Legend: B rows of a batch, K hypotheses a row, T longest hypothesis, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor, nn

from ...errors import ConfigError
from .losses import BatchLoss, LossOptions, adjusted_loss, parse_constraint_range


@dataclass
class RewardCriterionConfig(FairseqDataclass):
    """Flags of every reward criterion."""

    scst_cider_cached_tokens: Optional[str] = field(
        default=None,
        metadata={
            "help": "document frequencies for CIDEr-D, with <eos> as the last word of every reference (.json; from the "
            "original's .p file by `unival data convert-df`); default: counted in the training files. Boxes are "
            "rewarded without"
        },
    )
    ignore_prefix_size: int = field(default=0, metadata={"help": "leave the first N target positions out of the loss"})
    sentence_avg: bool = II("optimization.sentence_avg")
    constraint_range: Optional[str] = field(
        default=None, metadata={"help": "start,end: only these dictionary ids (and the 4 special ones) are possible"}
    )


class Rewarded(NamedTuple):
    """What the search found, K hypotheses a row.

    Attributes:
        tokens: for each row at most K int64 tensors; none for a row that counts nothing.
        weights: fp32 (B, K), what each is weighted by in the loss; 0 where a row has fewer.
        score: sum of the scores that are logged.
        size: number of hypotheses that have one.
    """

    tokens: list[list[Tensor]]
    weights: Tensor
    score: float
    size: int


class RewardCriterion(FairseqCriterion, ABC):
    """Sum over hypotheses of reward times negative log-probability.

    The hypotheses are those of the task's ``scst_generator`` (``--scst-args``), searched in evaluation mode and without
    gradients. The second pass reads each picture once for all of its hypotheses. A dummy batch is not searched, but
    makes the same pass as any other, so that processes stay in step; it counts nothing.
    """

    shortest = 1
    """Number of positions that the second pass has at least."""

    @staticmethod
    def validation_metrics() -> set[str]:
        """What ``--best-checkpoint-metric`` may name beside the task's metrics: the mean reward."""
        return {"score"}

    def __init__(self, cfg: RewardCriterionConfig, task: Any) -> None:
        super().__init__(task)
        self.generator = reward_generator(task, type(self).__name__)
        self.bos_idx: int = task.target_dictionary.bos()
        self.eos_idx: int = task.target_dictionary.eos()
        self.sentence_avg = bool(cfg.sentence_avg)
        self.options = LossOptions(
            ignore_prefix_size=cfg.ignore_prefix_size, constraint_range=parse_constraint_range(cfg.constraint_range)
        )

    @abstractmethod
    def rewarded(self, found: list[list[dict[str, Any]]], sample: dict[str, Any]) -> Rewarded:
        """Rewards of what a search found, best first, for every row of a batch that is no dummy."""

    def forward(
        self, model: nn.Module, sample: dict[str, Any], update_num: int = 0, reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Returns (loss, sample size, logging output).

        The loss is a sum over tokens; the sample size counts the tokens of the hypotheses (the hypotheses with
        ``--sentence-avg``). ``update_num`` and ``reduce`` belong to the interface and change nothing.
        """
        if is_dummy(sample):
            result = Rewarded([[] for _ in sample["target"]], torch.zeros(len(sample["target"]), 1), 0.0, 0)
        else:
            result = self.rewarded(search(model, self.generator, sample), sample)
        target, prev = self._lay_out(result.tokens, result.weights.shape[1], sample["target"].device)
        net_output = model(**{**sample["net_input"], "prev_output_tokens": prev})
        logits = net_output[0] if isinstance(net_output, (list, tuple)) else net_output
        policy = self.policy_loss(logits, target, result.weights.flatten())
        loss = self.whole_loss(policy.loss, logits, sample)
        sample_size = result.size if self.sentence_avg else policy.ntokens
        log = {
            "loss": loss.detach(),
            "score": result.score,
            "ntokens": policy.ntokens,
            "nsentences": result.size,
            "sample_size": sample_size,
        }
        return loss, sample_size, log

    def policy_loss(self, logits: Tensor, target: Tensor, weights: Optional[Tensor]) -> BatchLoss:
        """Negative log-probabilities of ``target`` (B * K, T) times ``weights`` (B * K,), summed; fp32."""
        conf = None if weights is None else weights.to(target.device, torch.float32)
        return adjusted_loss(logits, target, self.options, self.padding_idx, self.eos_idx, conf=conf)

    def whole_loss(self, loss: Tensor, logits: Tensor, sample: dict[str, Any]) -> Tensor:
        """What is minimised, from the policy's loss and the scores (B * K, T, V) of the second pass."""
        return loss

    def _lay_out(self, tokens: Sequence[Sequence[Tensor]], width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Target and decoder input, each int64 (B * K, T), K the ``width``; what a row lacks is padding."""
        length = max([self.shortest, *(len(symbols) for row in tokens for symbols in row)])
        target = torch.full((len(tokens), width, length), self.padding_idx, device=device)
        for places, row in zip(target, tokens, strict=True):
            for place, symbols in zip(places, row, strict=False):
                place[: len(symbols)] = symbols
        target = target.flatten(0, 1)
        return target, torch.cat([torch.full_like(target[:, :1], self.bos_idx), target[:, :-1]], dim=1)

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Logs the loss per token in nats, score, the mean score of a hypothesis, and counts."""
        sums = {
            key: sum(utils.item(log.get(key, 0)) for log in logging_outputs)
            for key in ("loss", "score", "ntokens", "nsentences", "sample_size")
        }
        size, sentences = sums["sample_size"], sums["nsentences"]
        metrics.log_scalar("loss", sums["loss"] / max(size, 1), size, round=3)
        if any("score" in log for log in logging_outputs):
            metrics.log_scalar("score", sums["score"] / max(sentences, 1), sentences, round=3)
        for key in ("ntokens", "nsentences", "sample_size"):
            metrics.log_scalar(key, sums[key], 1, round=3)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All logged values are sums, so fairseq may add them up over processes."""
        return True


def reward_generator(task: Any, criterion: str) -> Any:
    """The task's search for reward training.

    Raises:
        ConfigError: the task has none, or ``--scst-args`` cannot be used.
    """
    generator = getattr(task, "scst_generator", None)
    if generator is None:
        raise ConfigError(
            f"{criterion}: {type(task).__name__} gives nothing to reward; use --task caption, refcoco or image_gen"
        )
    return generator


def is_dummy(sample: dict[str, Any]) -> bool:
    """Whether a batch stands for no rows; see :class:`~unival_plugin.data.dataset.RowDataset`."""
    return bool(sample.get("is_dummy", False))


def search(model: nn.Module, generator: Any, sample: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Hypotheses of every row, best first, found in evaluation mode; the model is left as it was."""
    with utils.model_eval(model), torch.no_grad():
        found = generator.generate([model], sample)
    # autocast keeps its copies of the weights; those that some versions of torch make here lead no gradients back
    torch.clear_autocast_cache()
    return found
