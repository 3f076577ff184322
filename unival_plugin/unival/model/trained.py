"""What a training changes: names of entries, the table that it prints first, and starting from an adapter file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...checkpoints.adapters import Adapter, read_adapter
from ...errors import CheckpointError, ConfigError
from .config import PRESETS, UnIVALConfig, from_preset
from .network import UnIVALNetwork

logger = logging.getLogger(__name__)

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
PARTS = ("lora", "adapter", "encoder_prompt", "decoder_prompt")
"""Beginnings of the names of options that decide which small parts a network has."""
FREELY_CHOSEN = frozenset({"lora_dropout", "lora_train"})


@dataclass
class Part:
    """Parameters of a part of the network: numbers of ``tensors``, of ``parameters`` in them, and ``trainable`` ones.

    A tensor with several names counts where it comes first.
    """

    name: str
    tensors: int = 0
    parameters: int = 0
    trainable: int = 0


def trainable_parts(network: nn.Module) -> list[Part]:
    """The parts of the network in order, and last their sum, ``all``."""
    parts: dict[str, Part] = {}
    total = Part("all")
    for name, parameter in network.named_parameters():
        words = name.split(".")[:-1]
        key = ".".join(words[: 2 if words and words[0] in ("encoder", "decoder") else 1])
        for part in (parts.setdefault(key, Part(key)), total):
            part.tensors += 1
            part.parameters += parameter.numel()
            part.trainable += parameter.numel() * parameter.requires_grad
    return [*parts.values(), total]


def table(parts: list[Part]) -> Iterator[str]:
    """The parts for people, a line each."""
    yield f"{'part':<36} {'tensors':>8} {'parameters':>13} {'trainable':>13} {'share':>8}"
    for part in parts:
        share = part.trainable / max(1, part.parameters)
        yield f"{part.name:<36} {part.tensors:>8} {part.parameters:>13,} {part.trainable:>13,} {share:>8.2%}"


def stored_network(options: Mapping[str, Any], symbols: int) -> UnIVALNetwork:
    """The network of a checkpoint without memory for its tensors.

    Args:
        options: the model's options in the checkpoint.
        symbols: rows of its token embedding.

    Raises:
        ConfigError: the options do not fit together.
    """
    name = options.get("_name") or options.get("arch")
    try:
        with torch.device("meta"):
            return UnIVALNetwork(from_preset(name if name in PRESETS else "unival_base", options), symbols)
    except ValueError as error:
        raise ConfigError(f"the stored options of the model: {error}") from error


def trained_names(options: Mapping[str, Any], symbols: int) -> list[str]:
    """Names of the entries of a checkpoint's state dict that its training changed; arguments as above.

    These are the trainable parameters, under all their names, and the statistics of batch norms, which also move in
    frozen trunks.
    """
    network = stored_network(options, symbols)
    names = [name for name, value in network.named_parameters(remove_duplicate=False) if value.requires_grad]
    for module, norm in network.named_modules():
        if isinstance(norm, _BatchNorm):
            names += [f"{module}.{statistic}" for statistic in STATISTICS]
    return names


def stored_parts(options: Mapping[str, Any], symbols: int) -> list[dict[str, Any]]:
    """:func:`trainable_parts` of a checkpoint's network, ready for JSON."""
    return [asdict(part) for part in trainable_parts(stored_network(options, symbols))]


def start_from_adapter(network: UnIVALNetwork, config: UnIVALConfig, path: str) -> None:
    """Puts the weights of an adapter file on those that the network has from ``--init-from``.

    Raises:
        ConfigError: the network has other small parts than that of the file; tells the flags to give.
        CheckpointError: a bad file, or one that belongs to another base.
    """
    adapter = read_adapter(path)
    flags = list(_differing_flags(adapter, config))
    if flags:
        raise ConfigError(f"--init-adapter {path}: was trained with other model flags; give {' '.join(flags)}")
    own = network.state_dict()
    weights = {key: value for key, value in adapter.weights.items() if key in own or not key.endswith(STATISTICS)}
    problem = adapter.base.problem(own) or next(
        (f"{key} does not fit" for key, value in weights.items() if key not in own or own[key].shape != value.shape),
        None,
    )
    if problem:
        raise CheckpointError(
            f"--init-adapter {path}: belongs to another base, {adapter.base}: {problem}; give its own base to "
            "--init-from"
        )
    nn.Module.load_state_dict(network, weights, strict=False)  # not the engine's own, which wants a whole checkpoint
    logger.info(f"--init-adapter {path}: {len(weights)} tensors taken")


def _differing_flags(adapter: Adapter, config: UnIVALConfig) -> Iterator[str]:
    """Flags of the small parts as the adapter file needs them, where the network's are others."""
    options = adapter.options()
    for name, own in vars(config).items():
        stored = options.get(name)
        if not name.startswith(PARTS) or name in FREELY_CHOSEN or stored is None or stored == own:
            continue
        flag = f"--{name.replace('_', '-')}"
        yield f"no {flag}" if stored is False else flag if stored is True else f"{flag} {stored}"
