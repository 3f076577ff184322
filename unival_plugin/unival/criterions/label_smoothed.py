"""The registered fine-tuning and pretraining criterions (UnIVAL, ``criterions/``).

``adjust_label_smoothed_cross_entropy`` and ``adjust_label_smoothed_encouraging_loss`` share everything but one term;
the arithmetic is in ``losses``. ``from __future__ import annotations`` is left out on purpose: fairseq reads the
dataclass field types at run time, and only understands ``Optional[...]``.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Optional

import numpy as np
import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor, nn

from ...errors import ConfigError
from .losses import BatchLoss, LossOptions, adjusted_loss, parse_constraint_range

logger = logging.getLogger(__name__)


@dataclass
class AdjustLabelSmoothedCrossEntropyCriterionConfig(FairseqDataclass):
    """Flags of ``adjust_label_smoothed_cross_entropy``."""

    label_smoothing: float = field(
        default=0.0, metadata={"help": "share of probability spread over the other symbols; 0 = plain cross entropy"}
    )
    report_accuracy: bool = field(
        default=False, metadata={"help": "log the share of target tokens that the model ranks first"}
    )
    ignore_prefix_size: int = field(default=0, metadata={"help": "leave the first N target positions out of the loss"})
    ignore_eos: bool = field(default=False, metadata={"help": "leave end-of-sentence targets out of the loss"})
    sentence_avg: bool = II("optimization.sentence_avg")
    drop_worst_ratio: float = field(
        default=0.0, metadata={"help": "share of a batch's tokens, those of highest loss, that is left out"}
    )
    drop_worst_after: int = field(
        default=0, metadata={"help": "leave the worst tokens out only after this many updates"}
    )
    use_rdrop: bool = field(
        default=False, metadata={"help": "R-Drop: run every batch twice and pull the two outputs together"}
    )
    reg_alpha: float = field(default=1.0, metadata={"help": "weight of the R-Drop divergence"})
    sample_patch_num: Optional[int] = field(
        default=196,
        metadata={"help": "number of image patches drawn for the first of two mini-batches (0 or none: all of them)"},
    )
    constraint_range: Optional[str] = field(
        default=None, metadata={"help": "start,end: only these dictionary ids (and the 4 special ones) are possible"}
    )


@dataclass
class AdjustLabelSmoothedEncouragingLossCriterionConfig(AdjustLabelSmoothedCrossEntropyCriterionConfig):
    """Flags of ``adjust_label_smoothed_encouraging_loss``."""

    log_end: float = field(
        default=0.75,
        metadata={"help": "the bonus log(1 - p) continues as a straight line above this probability; 1 = never"},
    )
    drop_best_ratio: float = field(
        default=0.0,
        metadata={
            "help": "share of a batch's tokens, those of lowest loss, that is left out. Has no effect without "
            "--drop-best-active: the reference never used it, and published numbers were made that way"
        },
    )
    drop_best_after: int = field(
        default=0, metadata={"help": "leave the best tokens out only after this many updates (see --drop-best-ratio)"}
    )
    drop_best_active: bool = field(
        default=False, metadata={"help": "let --drop-best-ratio and --drop-best-after take effect"}
    )
    rdrop_keep_pairs: bool = field(
        default=False,
        metadata={
            "help": "R-Drop as published: each token is compared with its own second pass. Without this flag, as in "
            "the reference, tokens are sorted by loss from the first update on and unrelated ones are compared"
        },
    )


@register_criterion("adjust_label_smoothed_cross_entropy", dataclass=AdjustLabelSmoothedCrossEntropyCriterionConfig)
class AdjustLabelSmoothedCrossEntropyCriterion(FairseqCriterion):
    """Label-smoothed cross entropy with constraints, answer confidences, R-Drop and dropping of the worst tokens.

    ``forward`` takes one batch or a list or tuple of one or two (pretraining: pictures; films and sounds).
    """

    def __init__(self, cfg: AdjustLabelSmoothedCrossEntropyCriterionConfig, task: Any) -> None:
        super().__init__(task)
        self.eos_idx: int = task.target_dictionary.eos()
        self.sentence_avg = bool(cfg.sentence_avg)
        self.sample_patch_num = cfg.sample_patch_num or 0
        self.options = self.loss_options(cfg)

    @classmethod
    def loss_options(cls, cfg: Any, **more: Any) -> LossOptions:
        """The part of the flags that the arithmetic needs. Raises ConfigError for values out of range."""
        return LossOptions(
            label_smoothing=cfg.label_smoothing,
            ignore_prefix_size=cfg.ignore_prefix_size,
            ignore_eos=cfg.ignore_eos,
            drop_worst_ratio=cfg.drop_worst_ratio,
            drop_worst_after=cfg.drop_worst_after,
            use_rdrop=cfg.use_rdrop,
            reg_alpha=cfg.reg_alpha,
            constraint_range=parse_constraint_range(cfg.constraint_range),
            report_accuracy=cfg.report_accuracy,
            **more,
        )

    def forward(
        self, model: nn.Module, sample: Any, update_num: int = 0, reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Returns (loss, sample size, logging output).

        The loss is a sum over tokens; the sample size counts the tokens left after dropping (sentences with
        ``--sentence-avg``). A list of batches: mean loss of each, added; sample size 1, so that steps of two batches
        and steps whose second one has no rows weigh the same. ``reduce`` belongs to fairseq's interface and changes
        nothing.
        """
        if isinstance(sample, (list, tuple)):
            return self._forward_list(model, sample, update_num)
        if self.options.use_rdrop:
            sample = double_batch(sample)
        net_output = model(**sample["net_input"])
        logits = net_output[0] if isinstance(net_output, (list, tuple)) else net_output
        result = self.batch_loss(logits, sample, update_num)
        sample_size = sample["target"].size(0) if self.sentence_avg else result.ntokens
        log = {
            "loss": result.loss.detach(),
            "nll_loss": result.nll.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": sample_size,
        }
        if result.n_correct is not None:
            log |= {"n_correct": result.n_correct, "total": result.total}
        return result.loss, sample_size, log

    def batch_loss(self, logits: Tensor, sample: Mapping[str, Any], update_num: int) -> BatchLoss:
        """The loss of a batch, of which R-Drop has already made two, from its scores (B, T, V)."""
        return adjusted_loss(
            logits,
            sample["target"],
            self.options,
            pad=self.padding_idx,
            eos=self.eos_idx,
            constraint_masks=sample.get("constraint_masks"),
            conf=sample.get("conf"),
            update_num=update_num,
        )

    def _forward_list(
        self, model: nn.Module, samples: Sequence[Any], update_num: int
    ) -> tuple[Tensor, int, dict[str, Any]]:
        if len(samples) not in (1, 2):
            raise ConfigError(f"criterion: a sample of {len(samples)} batches; one batch or two are possible")
        first, *others = samples
        if self.sample_patch_num > 0:
            first = {**first, "net_input": {**first["net_input"], "sample_patch_num": self.sample_patch_num}}
        losses, sizes, logs = zip(*(self.forward(model, part, update_num) for part in (first, *others)), strict=True)
        # A batch without target tokens has loss 0; dividing it by 1 keeps it 0.
        scales = [max(size, 1) for size in sizes]
        loss = sum(part / scale for part, scale in zip(losses, scales, strict=True))
        log = {key: sum(part[key] for part in logs) for key in logs[0]}
        log |= {
            "loss": loss.detach(),
            "loss_v1": logs[0]["loss"],
            "loss_v2": logs[1]["loss"] if others else torch.zeros_like(logs[0]["loss"]),
            "nll_loss": sum(part["nll_loss"] / scale for part, scale in zip(logs, scales, strict=True)),
            "sample_size": 1,
            "sample_size_v1": sizes[0],
            "sample_size_v2": sizes[1] if others else 0,
        }
        return loss, 1, log

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Logs loss and nll_loss in nats (not bits) per token, ppl = 2 ** nll_loss, counts, and accuracy if asked."""

        def total(key: str) -> Any:
            return sum(utils.item(log.get(key, 0)) for log in logging_outputs)

        sizes = {key: total(key) for key in ("sample_size", "sample_size_v1", "sample_size_v2", "ntokens")}
        size = sizes["sample_size"]
        metrics.log_scalar("loss", total("loss") / max(size, 1), size, round=3)
        for part in ("v1", "v2"):
            part_size = max(sizes[f"sample_size_{part}"], 1)
            metrics.log_scalar(f"loss_{part}", total(f"loss_{part}") / part_size, part_size, round=3)
        metrics.log_scalar("nll_loss", total("nll_loss") / max(size, 1), sizes["ntokens"], round=3)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))
        for key in ("ntokens", "nsentences", "sample_size", "sample_size_v1", "sample_size_v2"):
            metrics.log_scalar(key, total(key), 1, round=3)
        if total("total") > 0:
            metrics.log_scalar("total", total("total"))
            metrics.log_scalar("n_correct", total("n_correct"))
            metrics.log_derived("accuracy", _accuracy)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All logged values are sums, so fairseq may add them up over processes."""
        return True


@register_criterion(
    "adjust_label_smoothed_encouraging_loss", dataclass=AdjustLabelSmoothedEncouragingLossCriterionConfig
)
class AdjustLabelSmoothedEncouragingLossCriterion(AdjustLabelSmoothedCrossEntropyCriterion):
    """The same, plus a bonus (<= 0) for tokens the model already gets right; the loss may become negative."""

    @classmethod
    def loss_options(cls, cfg: Any, **more: Any) -> LossOptions:
        """See the base class."""
        if cfg.use_rdrop and not cfg.rdrop_keep_pairs:
            logger.warning("--use-rdrop compares unrelated tokens, as in the reference; --rdrop-keep-pairs corrects it")
        active = cfg.drop_best_active
        return super().loss_options(
            cfg,
            log_end=cfg.log_end,
            drop_best_ratio=cfg.drop_best_ratio if active else 0.0,
            drop_best_after=cfg.drop_best_after if active else 0,
            mixed_rdrop=not cfg.rdrop_keep_pairs,
            **more,
        )


def _accuracy(meters: Mapping[str, Any]) -> float:
    total = meters["total"].sum
    return round(float(meters["n_correct"].sum * 100.0 / total), 3) if total > 0 else float("nan")


def double_batch(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``sample`` whose batch is followed by itself (R-Drop); ``sample`` is left as it is.

    Tensors and arrays are joined along the first axis, lists likewise, counts (integers of the top level) doubled,
    nested dicts treated alike except for their integers, which are settings; everything else, such as None, stays.
    """
    return {key: value * 2 if _is_count(value) else _doubled(value) for key, value in sample.items()}


def _is_count(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0 and not value.is_floating_point()
    return isinstance(value, Integral) and not isinstance(value, bool)


def _doubled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.cat([value, value]) if value.dim() else value
    if isinstance(value, np.ndarray):
        return np.concatenate([value, value]) if value.ndim else value
    if isinstance(value, Mapping):
        return {key: _doubled(item) for key, item in value.items()}
    return value * 2 if isinstance(value, (list, tuple)) else value
