"""Averages of weights (EMA): the original's flags for them, and what stock fairseq does wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..checkpoints.reading import average_of, read_checkpoint
from ..errors import CheckpointError

logger = logging.getLogger(__name__)

Reader = Callable[..., dict[str, Any]]


def starting_weights(cfg: Any, reader: Reader, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """What ``reader`` reads, with the weights and the average from which a training with options ``cfg`` starts.

    * ``--use-ema-weights-to-init-param``: the model starts from the file's average.
    * ``--store-ema --use-latest-weights-to-init-ema``: the average starts from the file's latest weights.
    * ``--store-ema`` and a file without average: it starts from the weights. fairseq wants the same, but has deleted
      the weights before.

    The first two are wishes about another run's file: a training that continues its own checkpoint ignores them, so
    that it ends where it would have ended without the interruption (UnIVAL, ``trainer.py``, obeys them again).
    """
    state = reader(path, *args, **kwargs)
    own = Path(path).resolve().parent == Path(cfg.checkpoint.save_dir).resolve()
    weights, extra = state["model"], state["extra_state"]
    if cfg.task.get("use_ema_weights_to_init_param") and not own:
        average = average_of(state)
        if average is None:
            logger.warning(f"{path} holds no average of weights (--use-ema-weights-to-init-param): using its weights")
        else:
            logger.info(f"{path}: starting from its average of weights")
            state["model"] = average
    if cfg.ema.store_ema:
        latest = cfg.task.get("use_latest_weights_to_init_ema") and not own
        if latest or "ema" not in extra:
            logger.info(f"{path}: the average of weights (--store-ema) starts from its latest weights")
            extra["ema"] = weights
            extra.pop("ema_fp32_params", None)
    return state


def evaluated_weights(reader: Reader, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """What ``reader`` reads, with the average in the place of the weights (``--ema-eval``).

    Raises:
        CheckpointError: the file holds no average.
    """
    return with_average_as_model(reader(path, *args, **kwargs), path)


def with_average_as_model(state: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Puts the file's average in the place of its weights.

    Raises:
        CheckpointError: the file holds no average.
    """
    average = average_of(state)
    if average is None:
        raise CheckpointError(f"{path}: holds no average of weights; it was trained without --store-ema")
    state["model"] = average
    return state


def read_average(original: Reader, fpath: str) -> dict[str, Any]:
    """Reads ``--ema-seed-model`` safely; fairseq's own reading may execute what the file holds."""
    return with_average_as_model(read_checkpoint(fpath), fpath)


def copy_integer_buffers(
    original: Callable[..., None], self: Any, model: Any, config: Any, device: Any = None, skip_keys: Any = None
) -> None:
    """fairseq averages every entry of the state dict and fails on integer ones; those are copied instead."""
    integers = {key for key, value in model.state_dict().items() if not value.is_floating_point()}
    original(self, model, config, device, set(skip_keys or ()) | integers)


def fit_precise_average(original: Callable[..., None], self: Any, state_dict: dict[str, Any] | None = None) -> None:
    """fairseq lets a model fit a file's weights and average to itself, but not the average's precise copy.

    A file with fewer words in its dictionary, or of another layout, would fail there.
    """
    if state_dict is not None and type(self.model).__module__.split(".")[0] == __name__.split(".")[0]:
        state_dict = dict(state_dict)
        self.model.upgrade_state_dict(state_dict)
    original(self, state_dict)
