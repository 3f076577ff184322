"""Polynomial decay whose warm-up is a share of the run (UnIVAL's ``--warmup-ratio``).

UnIVAL's trainer hands the run's length to the scheduler after loading the data. Stock fairseq's trainer does not know
about that, so here the task reports the length of its train iterator through ``note_train_batches`` and the scheduler
reads it when it needs it: fairseq builds the scheduler before the data when it resumes a run.

``from __future__ import annotations`` is left out on purpose: fairseq reads the dataclass field types at run time, and
only understands ``Optional[...]`` and ``List[...]``.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, List, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II

from ..errors import ConfigError

logger = logging.getLogger(__name__)

_train_batches: Optional[int] = None


def note_train_batches(n: int) -> None:
    """To be called by a task when it builds the *train* iterator: ``n`` mini-batches per epoch on this process.

    ``n`` counts batches before ``--update-freq`` groups them. The latest call counts. Raises ConfigError for n < 1.
    """
    global _train_batches
    if n < 1:
        raise ConfigError(f"the train iterator has {n} batches; an epoch needs at least one")
    _train_batches = n


def forget_train_batches() -> None:
    """Undoes ``note_train_batches`` (for tests, and for a second run in the same process)."""
    global _train_batches
    _train_batches = None


def updates_of_epochs(batches: int, max_epoch: int, update_freq: Sequence[int]) -> int:
    """Updates in ``max_epoch`` epochs of ``batches`` mini-batches; the last ``update_freq`` holds for the rest."""
    per_epoch = [math.ceil(batches / freq) for freq in update_freq[:max_epoch]]
    return sum(per_epoch) + per_epoch[-1] * (max_epoch - len(per_epoch))


@dataclass
class PolynomialDecayRatioConfig(FairseqDataclass):
    """Flags of ``polynomial_decay_ratio``."""

    warmup_ratio: float = field(
        default=0.0,
        metadata={
            "help": "share of all updates spent on linear warm-up (UnIVAL's flag; fairseq's own polynomial_decay "
            "does not know it, so scripts need --lr-scheduler polynomial_decay_ratio)"
        },
    )
    warmup_updates: int = field(
        default=0, metadata={"help": "number of updates of linear warm-up, instead of --warmup-ratio"}
    )
    total_num_update: Optional[int] = field(
        default=None,
        metadata={
            "help": "update at which the decay ends; default: the end of the run, from --max-update, or --max-epoch "
            "and the number of batches, whichever comes first"
        },
    )
    end_learning_rate: float = field(default=0.0, metadata={"help": "learning rate to decay to"})
    power: float = field(default=1.0, metadata={"help": "decay exponent; 1 = linear"})
    force_anneal: Optional[int] = field(
        default=None,
        metadata={
            "help": "from this epoch on, each epoch starts from the rate that the one before has reached "
            "instead of from --lr"
        },
    )
    reference_warmup: bool = field(
        default=False,
        metadata={
            "help": "warm up as UnIVAL's trainer did, lr * n / warmup after n updates: the very first update then has "
            "rate 0 and changes nothing, which repeats published runs exactly but wastes a batch. Default: (n + 1)"
        },
    )
    max_epoch: int = II("optimization.max_epoch")
    max_update: int = II("optimization.max_update")
    update_freq: List[int] = II("optimization.update_freq")
    lr: List[float] = II("optimization.lr")


@register_lr_scheduler("polynomial_decay_ratio", dataclass=PolynomialDecayRatioConfig)
class PolynomialDecayRatioSchedule(FairseqLRScheduler):
    """Linear warm-up, then polynomial decay; the rate is a function of the number of updates and the run's length.

    Raises ConfigError when flags contradict each other or nothing tells how long the run will be. The number of
    batches is stored with the checkpoint, because the files of different epochs may differ in length.
    """

    def __init__(self, cfg: Any, optimizer: Any) -> None:
        super().__init__(cfg, optimizer)
        _check(cfg)
        self._batches: Optional[int] = None
        self._annealed: Optional[tuple[int, float]] = None
        self._num_updates = 0
        self.base_lr = float(cfg.lr[0])

    @property
    def total(self) -> Optional[int]:
        """Updates in the whole run; None as long as it depends on data that are not loaded yet."""
        cfg = self.cfg
        if cfg.total_num_update is not None:
            return int(cfg.total_num_update)
        ends = [int(cfg.max_update)] if cfg.max_update > 0 else []
        if cfg.max_epoch > 0:
            batches = self._known_batches()
            if batches is None:
                return None
            ends.append(updates_of_epochs(batches, cfg.max_epoch, cfg.update_freq))
        return min(ends)

    def _known_batches(self) -> Optional[int]:
        if self._batches is None:
            self._batches = _train_batches
        return self._batches

    def rate(self, num_updates: int) -> Optional[float]:
        """Learning rate of the update that follows ``num_updates`` finished ones; None while ``total`` is None."""
        total = self.total
        if total is None:
            return None
        cfg = self.cfg
        warmup = int(total * cfg.warmup_ratio) if cfg.warmup_ratio > 0 else int(cfg.warmup_updates)
        step = num_updates if cfg.reference_warmup else num_updates + 1
        if warmup > 0 and step <= warmup:
            return self.base_lr * step / warmup
        if num_updates >= total:
            return float(cfg.end_learning_rate)
        remaining = 1 - (num_updates - warmup) / (total - warmup)
        return float((self.base_lr - cfg.end_learning_rate) * remaining**cfg.power + cfg.end_learning_rate)

    def step_begin_epoch(self, epoch: int) -> float:
        """Chooses the epoch's base rate (fairseq counts epochs from 1) and sets the optimizer's rate."""
        if self.total is None:
            raise ConfigError(
                "--lr-scheduler polynomial_decay_ratio: this task does not tell how many batches an epoch has; "
                "give --total-num-update or --max-update without --max-epoch"
            )
        self.base_lr = self._base_lr(epoch)
        return self.step_update(self._num_updates)

    def _base_lr(self, epoch: int) -> float:
        cfg = self.cfg
        if cfg.force_anneal is None or epoch < cfg.force_anneal:
            return self._listed_lr(epoch)
        if self._annealed is None or self._annealed[0] != epoch:  # a resumed epoch is not annealed a second time
            self.base_lr = self._annealed[1] if self._annealed else self._listed_lr(epoch - 1)
            reached = self.rate(self._num_updates)
            assert reached is not None  # step_begin_epoch made sure that the total is known
            self._annealed = (epoch, reached)
        return self._annealed[1]

    def _listed_lr(self, epoch: int) -> float:
        lrs = self.cfg.lr
        return float(lrs[max(min(epoch, len(lrs)), 1) - 1])

    def step_update(self, num_updates: int) -> float:
        """Sets the rate of the update that follows ``num_updates`` finished ones; unchanged while unknown."""
        self._num_updates = num_updates
        rate = self.rate(num_updates)
        if rate is not None:
            self.optimizer.set_lr(rate)
        return float(self.optimizer.get_lr())

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue with exactly the same rates."""
        return {**super().state_dict(), "train_batches": self._batches, "annealed": self._annealed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Reads ``state_dict``; one written by another scheduler gives only ``best``."""
        super().load_state_dict({"best": state_dict.get("best")})
        annealed = state_dict.get("annealed")
        self._annealed = None if annealed is None else (int(annealed[0]), float(annealed[1]))
        if self._annealed is not None:
            self.base_lr = self._annealed[1]
        stored = state_dict.get("train_batches")
        if stored is None:
            return
        if _train_batches not in (None, stored):
            logger.info(
                "the schedule keeps %d batches per epoch as stored in the checkpoint, not %d; "
                "--reset-lr-scheduler starts from the new number",
                stored,
                _train_batches,
            )
        self._batches = int(stored)


def _check(cfg: Any) -> None:
    name = "--lr-scheduler polynomial_decay_ratio"
    if not 0.0 <= cfg.warmup_ratio < 1.0:
        raise ConfigError(f"{name}: --warmup-ratio {cfg.warmup_ratio} must be at least 0 and below 1")
    if cfg.warmup_updates < 0:
        raise ConfigError(f"{name}: --warmup-updates {cfg.warmup_updates} is negative")
    if cfg.warmup_ratio > 0 and cfg.warmup_updates > 0:
        raise ConfigError(f"{name}: give --warmup-ratio or --warmup-updates, not both")
    if cfg.total_num_update is not None and cfg.total_num_update <= 0:
        raise ConfigError(f"{name}: --total-num-update {cfg.total_num_update} must be positive")
    if cfg.total_num_update is None and cfg.max_update <= 0 and cfg.max_epoch <= 0:
        raise ConfigError(f"{name}: how long is the run? Give --total-num-update, --max-update or --max-epoch")
