"""Makes the state dict of a checkpoint fit a network, and says what was done.

Rules (UnIVAL, ``upgrade_state_dict_named`` of its encoder and decoder): parameters that the checkpoint lacks keep their
current values; a smaller dictionary is filled with new random rows; trunks of modalities that the network does not have
are left out; any other difference is an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError

TIED_EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
OTHER_MODALITIES = tuple(
    f"encoder.{part}."
    for part in (
        "embed_videos", "video_proj", "embed_video_positions", "layernorm_video_embedding",
        "embed_audios", "audio_proj", "embed_audio_positions", "layernorm_audio_embedding",
    )
)  # fmt: skip
MIN_SHARED_FRACTION = 0.1


@dataclass
class StateReport:
    """What :func:`fit_state_dict` did, by key."""

    taken: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        def part(name: str, keys: list[str]) -> str:
            shown = ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
            return f"{len(keys)} {name}" + (f" ({shown})" if keys else "")

        return "; ".join(
            [
                f"{len(self.taken)} tensors taken",
                part("not in the checkpoint and kept as initialised", self.kept),
                part("resized", self.resized),
                part("of other modalities left out", self.left),
            ]
        )


def fit_state_dict(network: nn.Module, state: dict[str, Any]) -> StateReport:
    """Changes ``state`` in place so that ``network.load_state_dict(state, strict=True)`` succeeds.

    Raises:
        CheckpointError: the checkpoint belongs to another architecture or size.
    """
    own = network.state_dict()
    report = StateReport()
    _leave_other_modalities(own, state, report)
    unknown = [key for key in state if key not in own]
    shared = [key for key in state if key in own]
    if unknown or len(shared) < MIN_SHARED_FRACTION * len(own):
        shown = ", ".join(unknown[:3]) or "almost none of the needed tensors"
        raise CheckpointError(
            f"the checkpoint is of another architecture: it holds {len(unknown)} tensors that this model does not have "
            f"({shown}) and lacks {len(own) - len(shared)} of {len(own)}; check --arch and the model flags"
        )
    _resize_dictionary(own, state, report)
    wrong = [key for key in shared if state[key].shape != own[key].shape]
    if wrong:
        key = wrong[0]
        raise CheckpointError(
            f"the checkpoint is of another size: {key} has shape {tuple(state[key].shape)}, the model needs "
            f"{tuple(own[key].shape)}, and {len(wrong) - 1} more differ; check --arch, the dictionary and --num-bins"
        )
    for key, value in own.items():
        if key not in state:
            tied = key == TIED_EMBEDDINGS[2] and TIED_EMBEDDINGS[1] in state
            state[key] = state[TIED_EMBEDDINGS[1]] if tied else value
            (report.taken if tied else report.kept).append(key)
        elif key not in report.resized:
            report.taken.append(key)
    return report


def _leave_other_modalities(own: dict[str, Tensor], state: dict[str, Any], report: StateReport) -> None:
    for key in [key for key in state if key.startswith(OTHER_MODALITIES) and key not in own]:
        del state[key]
        report.left.append(key)
    if "decoder.image_position_idx" in state:  # a constant of the configuration, not a weight
        state["decoder.image_position_idx"] = own["decoder.image_position_idx"]


def _resize_dictionary(own: dict[str, Tensor], state: dict[str, Any], report: StateReport) -> None:
    """Appends rows ~ N(0, D ** -0.5) for symbols that the checkpoint's dictionary does not have."""
    rows: Tensor | None = None
    for key in TIED_EMBEDDINGS:
        if key not in state or key not in own or state[key].shape[0] >= own[key].shape[0]:
            continue
        old = state[key]
        if rows is None:
            width = old.shape[1]
            rows = torch.empty(own[key].shape[0] - old.shape[0], width, dtype=old.dtype).normal_(std=width**-0.5)
        state[key] = torch.cat([old, rows])
        report.resized.append(key)
