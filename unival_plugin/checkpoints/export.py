"""Rewrites a checkpoint: another file format, the averaged weights in place of the last ones, fewer bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..modules.logmel import FILTERS
from .reading import AVERAGES, average_of, read_checkpoint, weights_of
from .safetensors_file import SUFFIX, memory, replacing, write_safetensors

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass
class Export:
    """What to write.

    Attributes:
        average: the average of weights becomes the model, and is no longer stored as average.
        dtype: ``fp16``, ``bf16`` or ``fp32`` for the model's and the average's numbers; default: as they are. The
            precise average (``ema_fp32_params``) and the sound front end stay as they are.
        optimizer: keep the optimizer's state, which continuing a training exactly needs.
    """

    average: bool = False
    dtype: str | None = None
    optimizer: bool = False
    notes: list[str] = field(default_factory=list)

    def of(self, state: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint of fairseq's layout with these changes; ``state`` is not changed.

        Raises:
            CheckpointError: there is no average, no weights, or numbers too large for ``dtype``.
        """
        is_layout = "model" in state
        result = dict(state) if is_layout else {"model": weights_of(state)}
        extra = dict(result.get("extra_state") or {})
        if self.average:
            average = average_of(state)
            if average is None:
                raise CheckpointError("holds no average of weights (--ema); it was trained without --store-ema")
            result["model"] = average
            extra = {key: value for key, value in extra.items() if key not in AVERAGES}
        if "last_optimizer_state" in result and (self.average or not self.optimizer):
            del result["last_optimizer_state"]
            self.notes.append("left out: the optimizer's state; the file cannot continue a training exactly")
        if self.dtype is not None:
            result["model"] = _converted(result["model"], DTYPES[self.dtype])
            if "ema" in extra:
                extra["ema"] = _converted(extra["ema"], DTYPES[self.dtype])
        result["extra_state"] = extra
        return result


def _converted(weights: Any, dtype: torch.dtype) -> Any:
    """The same mapping with numbers of type ``dtype``; tied tensors stay tied, integers stay integers."""
    done: dict[Any, Tensor] = {}
    result = weights.copy()
    for key, value in weights.items():
        # the sound front end computes in fp32 whatever the network does
        if value.is_floating_point() and not any(part in key for part in FILTERS):
            place = memory(value)
            if place not in done:
                done[place] = _cast(key, value, dtype)
            result[key] = done[place]
    return result


def _cast(key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    cast = value.to(dtype)
    if not torch.equal(cast.isinf(), value.isinf()):
        raise CheckpointError(f"{key} holds {float(value.abs().max()):.3g}, which {dtype} cannot; use --dtype bf16")
    return cast


def with_history(state: dict[str, Any]) -> dict[str, Any]:
    """Adds what stock fairseq insists on in a file; without it, it takes the file for a very old one and fails."""
    state.setdefault("args", None)
    state.setdefault("cfg", None)
    if not state.get("optimizer_history"):
        history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}
        state["optimizer_history"] = [history]
    extra = state["extra_state"] = dict(state.get("extra_state") or {})
    if "epoch" not in extra:  # older files tell the epoch there
        extra.setdefault("train_iterator", {"version": 2, "epoch": 1, "iterations_in_epoch": 0})
    return state


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes ``.safetensors`` (and its JSON) or, for any other ending, torch's format; all or nothing.

    Raises:
        CheckpointError: something in ``state`` cannot be written as safetensors.
    """
    if path.suffix == SUFFIX:
        write_safetensors(state, path)
        return
    with replacing(path) as scratch:
        torch.save(with_history(state), scratch)


def convert(
    source: Path,
    target: Path,
    export: Export,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Rewrites the checkpoint ``source`` as ``target``; the endings of the names say in which formats.

    Raises:
        CheckpointError: ``source`` cannot be read or written so.
        ConfigError: ``target`` exists already, is ``source``, or lies in a folder that does not exist.
    """
    written = [target, *([target.with_suffix(".json")] if target.suffix == SUFFIX else [])]
    if not target.parent.is_dir():
        raise ConfigError(f"{target}: its folder does not exist; make it first")
    for path in written:
        if path.exists() and (path.is_dir() or source.exists() and path.samefile(source)):
            raise ConfigError(f"{path}: is the checkpoint to convert or a folder; choose another name")
        if path.exists() and not overwrite:
            raise ConfigError(f"{path}: exists; choose another name or add --overwrite")
    say(f"reading {source}")
    state = read_checkpoint(source, mmap=True)
    try:
        result = export.of(state)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    for note in export.notes:
        say(note)
    say(f"writing {', '.join(map(str, written))}")
    write_checkpoint(result, target)
