"""What a checkpoint holds, in words and numbers."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from ..modules.logmel import HIGHEST_HZ, MEL_KEY
from .provenance import provenance
from .reading import (
    AVERAGES,
    group_of,
    model_options,
    printable,
    read_checkpoint,
    refused_objects,
    weights_of,
)
from .safetensors_file import SUFFIX, memory

BUFFERS = re.compile(r"(\.|^)(running_mean|running_var|version)$")
"""Floating-point entries that are no parameters; integer entries never are."""


def summarise(path: str | Path) -> dict[str, Any]:
    """Facts about a checkpoint file, ready for JSON; a fact that the file does not tell is None.

    A file that safe reading refuses gives only ``path``, ``bytes``, ``format`` and ``refused``.

    Raises:
        CheckpointError: the file is missing, damaged or no checkpoint.
    """
    path = Path(path)
    try:
        state = read_checkpoint(path, mmap=True)
        weights = weights_of(state)
    except CheckpointError as error:
        refused = refused_objects(path) if path.is_file() else []
        if not refused:
            raise error if str(path) in str(error) else CheckpointError(f"{path}: {error}") from error
        return {**_file(path), "refused": refused}
    options = model_options(state)
    return {
        **_file(path),
        "refused": [],
        "layout": _layout(state),
        "architecture": _text(options.get("_name") or options.get("arch")),
        "task": _text(_task(state)),
        **_progress(state),
        "model": _sizes(weights),
        "numbers": dict(Counter(str(value.dtype).removeprefix("torch.") for value in weights.values())),
        "average": _average(state),
        "merged": provenance(state),
        "optimizer": bool(state.get("last_optimizer_state")),
        "mel_filters": _mel_filters(weights, options),
        "tied": _tied(weights),
        "modules": _modules(weights),
    }


def _file(path: Path) -> dict[str, Any]:
    if path.suffix == SUFFIX:
        kind = "safetensors with JSON" if path.with_suffix(".json").is_file() else "safetensors"
    else:
        kind = "torch" if zipfile.is_zipfile(path) else "torch, before 2020"
    return {"path": str(path), "bytes": path.stat().st_size, "format": kind}


def _text(value: Any) -> str | None:
    return None if value is None else printable(value)


def _task(state: Mapping[str, Any]) -> Any:
    if isinstance(state.get("cfg"), Mapping):
        return group_of(state["cfg"].get("task")).get("_name")
    return group_of(state.get("args")).get("task")


def _layout(state: Mapping[str, Any]) -> str:
    if isinstance(state.get("cfg"), Mapping):
        released = isinstance(state["cfg"].get("model"), argparse.Namespace)
        return "released (model options in a Namespace)" if released else "fairseq-train"
    if state.get("args") is not None:
        return "fairseq before 2021 (all options in one Namespace)"
    return "weights without options" if "model" in state or "state_dict" in state else "plain state dict"


def _progress(state: Mapping[str, Any]) -> dict[str, Any]:
    history = state.get("optimizer_history")
    last = group_of(history[-1]) if isinstance(history, list) and history else {}
    iterator = group_of(group_of(state.get("extra_state")).get("train_iterator"))
    return {"epoch": iterator.get("epoch"), "updates": last.get("num_updates")}


def _sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    words = weights.get("encoder.embed_tokens.weight")
    parts = {
        "encoder_layers": _layers(weights, "encoder"),
        "decoder_layers": _layers(weights, "decoder"),
        "width": words.shape[1] if words is not None and words.ndim == 2 else None,
        "vocabulary": words.shape[0] if words is not None and words.ndim == 2 else None,
    }
    parameters = {memory(value): value for key, value in weights.items() if _is_parameter(key, value)}
    return {
        **parts,
        "parameters": sum(value.numel() for value in parameters.values()),
        "elements": sum(value.numel() for value in weights.values()),
    }


def _is_parameter(key: str, value: Tensor) -> bool:
    return value.is_floating_point() and not BUFFERS.search(key)


def _layers(weights: Iterable[str], side: str) -> int:
    found = (re.match(rf"{side}\.layers\.(\d+)\.", key) for key in weights)
    return len({match[1] for match in found if match})


def _average(state: Mapping[str, Any]) -> dict[str, str] | None:
    """Types of numbers of the averages that the file holds."""
    extra = group_of(state.get("extra_state"))
    kinds = {}
    for kind in AVERAGES:
        floats = [value.dtype for value in group_of(extra.get(kind)).values() if _is_float(value)]
        if floats:
            kinds[kind] = str(Counter(floats).most_common(1)[0][0]).removeprefix("torch.")
    return kinds or None


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _mel_filters(weights: Mapping[str, Tensor], options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Shape of the stored filters, and the sampling rate for which they were made if they end at 14 kHz.

    The hop does not show in filters; it is the stored option.
    """
    filters = next((value for key, value in weights.items() if key.endswith(MEL_KEY)), None)
    if filters is None or filters.ndim != 2:
        return None
    window = 2 * (filters.shape[0] - 1)
    used = filters.float().abs().sum(1).nonzero().flatten()
    rate = round(HIGHEST_HZ * window / (int(used[-1]) + 1)) if len(used) else None
    return {"bands": filters.shape[1], "window": window, "sampling_rate": rate, "hop": options.get("hop_size")}


def _tied(weights: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Further names of tensors that have several, by the first name."""
    names: dict[Any, list[str]] = {}
    for key, value in weights.items():
        names.setdefault(memory(value), []).append(printable(key))
    return {first: more for first, *more in names.values() if more}


def _modules(weights: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
    """Tensors, elements and bytes by module, in the order of the file; tied tensors count where they come first."""
    table: dict[str, dict[str, int]] = {}
    seen = set()
    for key, value in weights.items():
        words = key.split(".")
        name = printable(".".join(words[: 2 if words[0] in ("encoder", "decoder") else 1]))
        row = table.setdefault(name, {"tensors": 0, "elements": 0, "bytes": 0})
        place = memory(value)
        fresh = place not in seen
        seen.add(place)
        row["tensors"] += 1
        row["elements"] += value.numel()
        row["bytes"] += value.numel() * value.element_size() * fresh
    return table
