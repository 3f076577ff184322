"""Files of a few MB that hold only what a training has changed, and the base that they belong to.

An adapter file is a checkpoint (``.pt`` or ``.safetensors``) with one entry, ``adapter``: ``weights`` (tensors by
name), ``cfg`` (options of the training, with which base and weights become a whole checkpoint again) and ``base``, from
which the right base is recognised: names, shapes, number formats and four values of every tensor that stayed as it was.
There is no ``model`` in it, so that no program takes it for a whole checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..modules.logmel import FILTERS
from ..modules.lora import DEFAULT_ALPHA, LORA_A, folded, is_lora
from .export import DTYPES, Export
from .reading import AVERAGES, average_of, model_options, printable, read_checkpoint, sha256, weights_of

FORMAT = "unival adapter"
VERSION = 1
SAMPLES = 4
NO_BASE = ("version", "running_mean", "running_var", "num_batches_tracked")
"""Last parts of names that tell nothing about a base: constants, and statistics that move without training."""
TABLES = ("embed_tokens.", "output_projection.", "positions.", "pos_table_list.")
"""Parts of names of tables of which a network may have more rows than its base; loading fits them."""

TrainedNames = Callable[[Mapping[str, Any], int], list[str]]
"""From the model's options and the number of symbols: names of the entries that training changes."""


@dataclass(frozen=True)
class Base:
    """How the base of an adapter file is recognised.

    Attributes:
        entries: shape, number format and some values (float64, :data:`SAMPLES` of them or fewer) by name.
        file: name of the base's file, if it was told.
        sha256: of that file.
    """

    entries: dict[str, tuple[tuple[int, ...], str, Tensor]]
    file: str | None = None
    sha256: str | None = None

    def problem(self, weights: Mapping[str, Tensor]) -> str | None:
        """Why ``weights`` are not those of this base; None if they are, whatever their number format is."""
        lacking = [name for name in self.entries if name not in weights]
        if lacking:
            return f"{len(lacking)} tensors are missing ({', '.join(lacking[:3])})"
        for name, (shape, dtype, samples) in self.entries.items():
            value = weights[name]
            if tuple(value.shape) == shape:
                if not _same(_sampled(value), value.dtype, samples, getattr(torch, dtype)):
                    return f"{name} has other values"
            elif value.shape[1:] != shape[1:] or not any(part in name for part in TABLES):
                return f"{name} has shape {tuple(value.shape)} instead of {shape}"
        return None

    def __str__(self) -> str:
        if self.file is None:
            return "weights of an unknown file"
        return f"{self.file} (sha256 {self.sha256})"


@dataclass(frozen=True)
class Adapter:
    """Contents of an adapter file: ``weights`` by name, options ``cfg`` of their training, and their ``base``."""

    weights: dict[str, Tensor]
    cfg: Any
    base: Base

    def options(self) -> dict[str, Any]:
        """The model's options."""
        return model_options({"cfg": self.cfg})


def is_adapter(state: Mapping[str, Any]) -> bool:
    """Whether what was read from a file is an adapter file."""
    content = state.get("adapter")
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def read_adapter(path: str | Path) -> Adapter:
    """Reads an adapter file.

    Raises:
        CheckpointError: the file is missing, damaged or no adapter file of this version.
    """
    state = read_checkpoint(path)
    if not is_adapter(state) or state["adapter"].get("version") != VERSION:
        raise CheckpointError(f"{path}: is no adapter file; make one with `unival convert IN OUT --only-trained`")
    content = state["adapter"]
    try:
        base = content["base"]
        facts = zip(base["names"], base["shapes"], base["dtypes"], base["counts"], strict=True)
        entries, start = {}, 0
        for name, shape, dtype, count in facts:
            entries[name] = (tuple(shape), dtype, base["samples"][start : start + count])
            start += count
        return Adapter(weights_of(content["weights"]), content["cfg"], Base(entries, base["file"], base["sha256"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: a damaged adapter file ({type(error).__name__}: {error}); copy it anew"
        ) from error


def summary(adapter: Adapter) -> dict[str, Any]:
    """Facts about an adapter file, ready for JSON."""
    options = adapter.options()
    return {
        "tensors": len(adapter.weights),
        "numbers": sum(value.numel() for value in adapter.weights.values()),
        "architecture": printable(options.get("_name")),
        "base": {
            "tensors": len(adapter.base.entries),
            "file": None if adapter.base.file is None else printable(adapter.base.file),
            "sha256": None if adapter.base.sha256 is None else printable(adapter.base.sha256),
        },
    }


def apply_adapter(state: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """A whole checkpoint: the base ``state`` with the weights of the adapter file ``path`` and its training's options.

    It is as the checkpoint from which the adapter file was made, without averages and optimizer. ``state`` is not
    changed.

    Raises:
        CheckpointError: a bad file, or one that belongs to another base.
    """
    adapter = read_adapter(path)
    weights = weights_of(state)
    problem = adapter.base.problem(weights)
    if problem:
        raise CheckpointError(f"{path}: belongs to another base, {adapter.base}: {problem}; give it its own base")
    extra = {key: value for key, value in (state.get("extra_state") or {}).items() if key not in AVERAGES}
    others = ("last_optimizer_state", "state_dict")
    kept = {key: value for key, value in state.items() if key not in others} if "model" in state else {}
    model = {**weights, **adapter.weights}
    return {**kept, "args": None, "cfg": adapter.cfg, "model": model, "extra_state": extra}


def fold_lora(state: Mapping[str, Any], dtype: torch.dtype | None = None) -> dict[str, Any]:
    """The same checkpoint with LoRA's updates added to the weights they belong to, in the model and its averages.

    The optimizer's state is left out; ``state`` is not changed.

    Args:
        dtype: of the sums (default: as the weight).

    Raises:
        CheckpointError: there are no such updates, or no options that tell their factor.
    """
    weights = weights_of(state)
    ranks = {len(value) for key, value in weights.items() if key.endswith(f".{LORA_A}")}
    if not ranks:
        raise CheckpointError(
            "holds no LoRA matrices to fold; adapters and prompts are no part of linear layers and stay as they are"
        )
    options = model_options(state)
    if not options or len(ranks) > 1:
        raise CheckpointError("does not tell --lora-alpha; fold the checkpoint that fairseq-train has written")
    scale = (options.get("lora_alpha") or DEFAULT_ALPHA) / ranks.pop()
    extra = dict(state.get("extra_state") or {})
    for kind in AVERAGES:
        if any(is_lora(key) for key in extra.get(kind) or ()):
            extra[kind] = folded(extra[kind], scale, dtype)
    result = {key: value for key, value in state.items() if key != "last_optimizer_state"}
    result.update(model=folded(weights, scale, dtype), extra_state=extra)
    return _without_lora(result)


def _without_lora(state: dict[str, Any]) -> dict[str, Any]:
    """With options that ask for no LoRA."""
    off = {"lora_rank": 0, "lora_alpha": None, "lora_dropout": None, "lora_targets": None, "lora_train": None}

    def switched(options: Any) -> Any:
        if isinstance(options, argparse.Namespace):
            return argparse.Namespace(**{**vars(options), **off})
        return {**options, **off}

    if isinstance(state.get("cfg"), Mapping):
        state["cfg"] = {**state["cfg"], "model": switched(state["cfg"].get("model") or {})}
    else:
        state["args"] = switched(state["args"])
    return state


def trained_in(state: Mapping[str, Any], names: TrainedNames) -> list[str]:
    """Names of the entries of a checkpoint that its training changed.

    Raises:
        CheckpointError: the checkpoint does not tell how it was trained, or nothing is frozen.
    """
    weights, options = weights_of(state), model_options(state)
    words = weights.get("encoder.embed_tokens.weight")
    if not options or words is None:
        raise CheckpointError("does not tell what was trained; use the checkpoint that fairseq-train has written")
    trained = set(names(options, len(words)))
    found = [key for key in weights if key in trained or key.startswith("classification_heads.")]
    if not any(_tells(key, value) for key, value in weights.items() if key not in found):
        raise CheckpointError("all of the network was trained; use the checkpoint itself")
    return found


@dataclass
class WholeExport(Export):
    """As :class:`Export`, after putting an adapter file on the checkpoint and folding LoRA's updates.

    Attributes:
        adapter: file to put on the checkpoint.
        fold: fold the updates.
    """

    adapter: Path | None = None
    fold: bool = False

    def of(self, state: dict[str, Any]) -> dict[str, Any]:
        """As :meth:`Export.of`; also raises what :func:`apply_adapter` and :func:`fold_lora` raise."""
        changed: Mapping[str, Any] = state
        if self.adapter is not None:
            changed = apply_adapter(changed, self.adapter)
        if self.fold:
            changed = fold_lora(changed, DTYPES[self.dtype] if self.dtype == "fp32" else None)
        if "last_optimizer_state" in state and "last_optimizer_state" not in changed:
            self.notes.append("left out: the optimizer's state, which belongs to the parameters before the change")
        return super().of(dict(changed))


@dataclass
class AdapterExport(Export):
    """As :class:`Export`, but what is written is an adapter file.

    Attributes:
        names: see :data:`TrainedNames`.
        base: file that the training started from; it is then compared with the checkpoint, told in the adapter file,
            and what it lacks (such as a trunk of another file) is written too.
    """

    names: TrainedNames | None = None
    base: Path | None = None

    def of(self, state: dict[str, Any]) -> dict[str, Any]:
        """The contents of an adapter file.

        Raises:
            CheckpointError: as :meth:`Export.of`, :func:`trained_in`; or the training did not start from ``base``.
        """
        assert self.names is not None
        trained = trained_in(state, self.names)
        weights = weights_of(state)
        # an average of constants is rounded, so what stayed as it was is taken from the model
        kept = {key: value for key, value in weights.items() if key not in trained and _tells(key, value)}
        base = Base({key: _described(value) for key, value in kept.items()})
        if self.base is not None:
            base, lacking = self._compared(base)
            trained += lacking
        if self.average and average_of(state) is None:
            raise CheckpointError("holds no average of weights (--ema); it was trained without --store-ema")
        source = (average_of(state) if self.average else None) or weights
        small = {key: source[key] if key not in kept else weights[key] for key in trained}
        written = Export(dtype=self.dtype).of({"model": small})["model"]
        self.notes.append(
            f"{len(written)} tensors with {sum(value.numel() for value in written.values()):,} numbers; the other "
            f"{len(base.entries)} come from the base"
        )
        return {"adapter": _content(written, state.get("cfg") or {"model": state.get("args")}, base)}

    def _compared(self, base: Base) -> tuple[Base, list[str]]:
        """``base`` without what the base's file lacks, and the names of that."""
        assert self.base is not None
        try:
            others = weights_of(read_checkpoint(self.base, mmap=True))
        except CheckpointError as error:
            raise error if str(self.base) in str(error) else CheckpointError(f"{self.base}: {error}") from error
        shared = {name: entry for name, entry in base.entries.items() if name in others}
        lacking = [name for name in base.entries if name not in others]
        found = Base(shared, self.base.name, sha256(self.base))
        problem = found.problem(others) if shared else "no tensor has a name of the checkpoint's"
        if problem:
            raise CheckpointError(f"its training did not start from {self.base}: {problem}; give its own base")
        return found, lacking


def _content(weights: dict[str, Tensor], cfg: Any, base: Base) -> dict[str, Any]:
    samples = [values for _, _, values in base.entries.values()]
    return {
        "format": FORMAT,
        "version": VERSION,
        "weights": weights,
        "cfg": cfg,
        "base": {
            "names": list(base.entries),
            "shapes": [list(shape) for shape, _, _ in base.entries.values()],
            "dtypes": [dtype for _, dtype, _ in base.entries.values()],
            "counts": [len(values) for values in samples],
            "samples": torch.cat(samples),
            "file": base.file,
            "sha256": base.sha256,
        },
    }


def _tells(key: str, value: Tensor) -> bool:
    """Whether an entry that was not trained helps to recognise the base."""
    if not value.is_floating_point() or value.numel() == 0 or key.rpartition(".")[2] in NO_BASE:
        return False
    return not is_lora(key) and not any(part in key for part in FILTERS)


def _described(value: Tensor) -> tuple[tuple[int, ...], str, Tensor]:
    return tuple(value.shape), str(value.dtype).removeprefix("torch."), _sampled(value)


def _sampled(value: Tensor) -> Tensor:
    """Values of a tensor at places that depend on its size only, spread over all of it; float64."""
    flat = value.detach().flatten()
    places = torch.linspace(0, len(flat) - 1, min(SAMPLES, len(flat)), dtype=torch.float64).long()
    return flat[places.to(flat.device)].double().cpu()


def _same(first: Tensor, first_dtype: torch.dtype, second: Tensor, second_dtype: torch.dtype) -> bool:
    """Whether values are equal, or the ones are what the others become in their number format."""
    return torch.equal(first.to(second_dtype), second.to(second_dtype)) or torch.equal(
        first.to(first_dtype), second.to(first_dtype)
    )
