"""The full-size network under the weight-fill rule of the golden files, and their inputs."""

from __future__ import annotations

import functools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unival_plugin.unival.model.config import SCRIPT_FLAGS, from_preset
from unival_plugin.unival.model.network import UnIVALNetwork

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "unival_model"
CASES: dict[str, Any] = json.loads((GOLDEN / "cases.json").read_text())
VOCAB_IDS = CASES["_meta"]["logits_vocab_ids"]
VOCABULARY = 59457


def fill(network: nn.Module) -> None:
    """Weights as a function of their names: both sides of a comparison get the same."""
    state = network.state_dict()
    for name in sorted(state):
        tensor = state[name]
        if not tensor.is_floating_point():
            continue
        drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape)).astype("float32")
        tensor.copy_(torch.from_numpy(np.asarray(_scaled(name, drawn), dtype="float32")))


def _scaled(name: str, drawn: np.ndarray) -> np.ndarray:
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(drawn)
    if name.endswith("running_mean"):
        return 0.1 * drawn
    if drawn.ndim <= 1:
        return 1 + 0.1 * drawn if name.endswith("weight") else 0.02 * drawn
    return drawn / np.sqrt(np.prod(drawn.shape[1:]))


@functools.lru_cache(maxsize=1)
def network() -> UnIVALNetwork:
    """The image-only ``unival_base`` with the flags of every released script, filled, in evaluation mode."""
    built = UnIVALNetwork(from_preset("unival_base", SCRIPT_FLAGS), VOCABULARY)
    fill(built)
    return built.eval()


def drawn(seed: int, *shape: int) -> Tensor:
    """Standard normal float32 input."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype("float32"))


def golden(name: str) -> dict[str, np.ndarray]:
    """Arrays of a case."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files if key != "allow_pickle"}
