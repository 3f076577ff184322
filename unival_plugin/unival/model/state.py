"""Makes the state dict of a checkpoint fit a network, and says what was done.

Rules (UnIVAL, ``upgrade_state_dict_named`` of its model, encoder, decoder and layers): parameters that the checkpoint
lacks keep their current values; old names are translated; a smaller dictionary is filled with new random rows; position
tables of other sizes are rebuilt (:mod:`.resizing`); modalities that the network does not have are left out; integer
tables are constants of the configuration and never taken. Whatever else differs is an error, because leaving it out
would silently change what the network computes.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from ...modules.logmel import FILTERS, translate_filters
from ...modules.lora import is_lora
from .resizing import resized

logger = logging.getLogger(__name__)

TIED_EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
TRUNKS = {
    "encoder.embed_images.": "--image-encoder-name and --resnet-type",
    "encoder.embed_videos.": "--video-encoder-name",
    "encoder.embed_audios.": "--audio-encoder-name",
}
"""Where the trunks are, and the flags that choose them."""
OPTIONAL_MODALITIES = {
    kind: tuple(
        f"encoder.{part}."
        for part in (f"embed_{kind}s", f"{kind}_proj", f"embed_{kind}_positions", f"layernorm_{kind}_embedding")
    )
    for kind in ("video", "audio")
}
CONSTANTS = frozenset({"version", "token_rp_bucket", "image_rp_bucket", "image_position_idx"})
STATISTICS_COUNT = "num_batches_tracked"
UNUSED = frozenset({STATISTICS_COUNT, "_float_tensor"})
"""Last parts of names that no network needs; frozen batch norm has no count of batches."""
UNUSED_CLASSIFIER = "encoder.embed_images.fc."
SOUND_TRUNK = "encoder.embed_audios."
SOUND_FILTERS = tuple(SOUND_TRUNK + name for name in FILTERS)
HEADS = "classification_heads."
LAYER_NORMS = {
    "encoder": ("self_attn_layer_norm", "final_layer_norm"),
    "decoder": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
}
"""Today's names of ``layer_norms.0``, ``.1``, …"""
FLAGS = {
    r"\.lora_[AB]$": "--lora-rank and --lora-targets as in its training (or fold them: unival convert --fold-adapters)",
    r"\.v_adapter\.|\.l_adapter\.": "--adapter --adapter-type VL",
    r"^encoder\..*\.adapter\.(down|up)_proj": "--adapter --adapter-type UN",
    r"\.adapter\.": "--adapter",
    r"encoder_prompt_encoder\.trans": "--encoder-prompt --encoder-prompt-projection",
    r"encoder_prompt_encoder\.": "--encoder-prompt",
    r"decoder_prompt_encoder\.trans": "--decoder-prompt --decoder-prompt-projection",
    r"decoder_prompt_encoder\.": "--decoder-prompt",
    r"\.c_attn$": "--scale-heads",
    r"\.(attn_ln|self_attn_ln|cross_attn_ln)\.": "--scale-attn",
    r"\.ffn_layernorm\.": "--scale-fc",
    r"\.w_resid$": "--scale-resids",
    r"\.[qk]_norm\.": "--qk-norm",
    r"\.type_embedding\.": "--add-type-embedding",
    r"encoder\.layernorm_image_embedding\.": "--layernorm-image-embedding",
    r"encoder\.layernorm_video_embedding\.": "--layernorm-video-embedding",
    r"encoder\.layernorm_audio_embedding\.": "--layernorm-audio-embedding",
    **{f"^{re.escape(prefix)}": flags for prefix, flags in TRUNKS.items()},
}
"""The flag with which a network has the tensors of such names; the first pattern that is found counts."""
MIN_SHARED_FRACTION = 0.1
DICTIONARY_SEED = 1


@dataclass
class StateReport:
    """What :func:`fit_state_dict` did, by key.

    Attributes:
        taken: values of the checkpoint.
        kept: values that the network had before.
        resized: values of the checkpoint in a table of another size.
        left: what only the checkpoint has.
    """

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
                part("kept as initialised", self.kept),
                part("resized", self.resized),
                part("left out", self.left),
            ]
        )

    def modules(self) -> list[str]:
        """One line for each kind of change: the modules that it concerns, with their numbers of tensors."""
        changes = {"kept": self.kept, "resized": self.resized, "left out": self.left}
        return [f"{name}: {by_module(keys)}" for name, keys in changes.items() if keys]


def by_module(keys: Iterable[str]) -> str:
    """Names of modules with their numbers of tensors; layers count as one module, a trunk too."""

    def module(key: str) -> str:
        parts = key.split(".")
        end = 2 if key.startswith(tuple(TRUNKS)) else max(1, len(parts) - 1)
        return ".".join("*" if part.isdigit() else part for part in parts[:end])

    return ", ".join(f"{name} ({count})" for name, count in Counter(map(module, keys)).items())


def fit_state_dict(network: nn.Module, state: dict[str, Any]) -> StateReport:
    """Changes ``state`` in place so that ``network.load_state_dict(state, strict=True)`` succeeds.

    New tensors of ``state`` have the dtype of those that they replace.

    Raises:
        CheckpointError: the checkpoint belongs to another architecture or size, or needs model flags that were not
            given.
    """
    own = network.state_dict()
    report = StateReport()
    _translate_old_names(state)
    _replace_constants(own, state)
    _leave_unneeded(own, state, report)
    _fit_filters(network, own, state)
    _check_names(own, state)
    _fill_dictionary(own, state, report)
    _resize_tables(own, state, report)
    _check_shapes(own, state)
    _complete(own, state, report)
    for line in report.modules():
        logger.debug(line)
    return report


def _translate_old_names(state: dict[str, Any]) -> None:
    for key in list(state):
        if old := re.fullmatch(r"(.*\.)in_proj_(weight|bias)", key):
            for name, part in zip("qkv", state.pop(key).chunk(3), strict=False):
                state[f"{old[1]}{name}_proj.{old[2]}"] = part
        elif old := re.fullmatch(r"((en|de)coder)(\.layers\.\d+\.)layer_norms\.(\d)(\.\w+)", key):
            names = LAYER_NORMS[old[1]]
            if int(old[4]) < len(names):
                state[f"{old[1]}{old[3]}{names[int(old[4])]}{old[5]}"] = state.pop(key)


def _last_part(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def _replace_constants(own: dict[str, Tensor], state: dict[str, Any]) -> None:
    for key in [key for key in state if _last_part(key) in CONSTANTS]:
        del state[key]
    state.update({key: value for key, value in own.items() if _last_part(key) in CONSTANTS})


def _leave_unneeded(own: dict[str, Tensor], state: dict[str, Any], report: StateReport) -> None:
    """Deletes what the network does not need: other modalities, unused tensors, foreign classification heads."""
    prefixes = [UNUSED_CLASSIFIER]
    for parts in OPTIONAL_MODALITIES.values():
        if not any(key.startswith(parts) for key in own):
            prefixes += parts
    foreign = _foreign_heads(own, state)
    if foreign:
        logger.warning(
            f"classification heads of the checkpoint that the model does not have in this size are left out: "
            f"{', '.join(sorted(foreign))}"
        )
    prefixes += [f"{HEADS}{head}." for head in foreign]
    unneeded = [key for key in state if key.startswith(tuple(prefixes))]
    for key in unneeded:
        if key not in own or key.startswith(HEADS) or state[key].shape != own[key].shape:
            del state[key]
            report.left.append(key)
    for key in [key for key in state if _last_part(key) in UNUSED and key not in own]:
        del state[key]


def _foreign_heads(own: dict[str, Tensor], state: dict[str, Any]) -> set[str]:
    """Names of classification heads of the checkpoint that are absent from the model or of another shape there."""
    heads = [key for key in state if key.startswith(HEADS)]
    return {key.split(".")[1] for key in heads if key not in own or state[key].shape != own[key].shape}


def _fit_filters(network: Any, own: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Translates the mel filters of the checkpoint; drops those that do not fit or that the flags do not want."""
    unwanted = set(translate_filters(state, SOUND_TRUNK, own))
    if network.config.recompute_mel_filters:
        unwanted |= {key for key in state if key.startswith(SOUND_FILTERS) and key in own}
    for key in unwanted:
        del state[key]


def _check_names(own: dict[str, Tensor], state: dict[str, Any]) -> None:
    unknown = [key for key in state if key not in own]
    needed = [key for key in own if not key.startswith(tuple(TRUNKS)) and _last_part(key) not in CONSTANTS]
    shared = [key for key in needed if key in state]
    foreign = len(shared) < MIN_SHARED_FRACTION * len(needed)
    flags = _missing_flags(unknown)
    if unknown and flags and not foreign:
        raise CheckpointError(
            f"the checkpoint was trained with other model flags: it holds {len(unknown)} tensors that this model does "
            f"not have ({_shown(unknown)}); give {', '.join(flags)}"
        )
    if unknown or foreign:
        raise CheckpointError(
            f"the checkpoint is of another architecture: it holds {len(unknown)} tensors that this model does not have "
            f"({_shown(unknown) or 'almost none of the needed ones'}) and lacks {len(needed) - len(shared)} of "
            f"{len(needed)}; check --arch and the model flags"
        )
    _check_trunks(own, state)


def _shown(keys: list[str]) -> str:
    return ", ".join(keys[:3])


def _missing_flags(unknown: list[str]) -> list[str]:
    """The flags that the tensors ``unknown`` to the model need, if there is one for each of them."""
    found = [next((flag for part, flag in FLAGS.items() if re.search(part, key)), None) for key in unknown]
    flags = sorted({flag for flag in found if flag}) if all(found) else []
    return [flag for flag in flags if not any(other != flag and other.startswith(flag + " ") for other in flags)]


def _check_trunks(own: dict[str, Tensor], state: dict[str, Any]) -> None:
    """A trunk is taken whole or not at all: half a trunk of another depth is no use."""
    for prefix, flags in TRUNKS.items():
        if not any(key.startswith(prefix) for key in state):
            continue
        optional = (*SOUND_FILTERS, UNUSED_CLASSIFIER)
        lacking = [key for key in own if key.startswith(prefix) and key not in state and not key.startswith(optional)]
        lacking = [key for key in lacking if _last_part(key) not in UNUSED]
        if lacking:
            raise CheckpointError(
                f"the checkpoint's {prefix}* is of another trunk: it lacks {len(lacking)} of this model's tensors "
                f"({_shown(lacking)}); check {flags}"
            )


def _fill_dictionary(own: dict[str, Tensor], state: dict[str, Any], report: StateReport) -> None:
    """Appends rows ~ N(0, D ** -0.5) for symbols that the checkpoint's dictionary does not have.

    The rows are the same every time, so that the weights of a file and their average (``--store-ema``) stay alike.
    """
    for key in TIED_EMBEDDINGS:
        if key not in state or key not in own:
            continue
        old, wanted = state[key], len(own[key])
        if len(old) > wanted:
            raise CheckpointError(
                f"the checkpoint's dictionary has {len(old)} symbols, that of this model {wanted}; check --bpe, "
                "--code-dict-size and --num-bins"
            )
        if len(old) == wanted or old.dim() != 2:
            continue
        width = old.shape[1]
        generator = torch.Generator().manual_seed(DICTIONARY_SEED)
        rows = torch.randn(wanted - len(old), width, generator=generator) * width**-0.5
        state[key] = torch.cat([old, rows.to(old)])
        report.resized.append(key)


def _resize_tables(own: dict[str, Tensor], state: dict[str, Any], report: StateReport) -> None:
    for key, value in own.items():
        if key in state and state[key].shape != value.shape:
            table = resized(key, state[key], value)
            if table is not None:
                state[key] = table
                report.resized.append(key)


def _check_shapes(own: dict[str, Tensor], state: dict[str, Any]) -> None:
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if not wrong:
        return
    key = wrong[0]
    rank = "give --lora-rank and --lora-targets as in the checkpoint's training" if is_lora(key) else ""
    advice = rank or {
        "encoder.type_embedding.weight": "give --add-mm-type-embedding",
        f"{SOUND_TRUNK}bn0.weight": "check --mel-bins",
    }.get(key, "check --arch and the model flags")
    raise CheckpointError(
        f"the checkpoint is of another size: {key} has shape {tuple(state[key].shape)}, the model needs "
        f"{tuple(own[key].shape)}, and {len(wrong) - 1} more differ; {advice}"
    )


def _complete(own: dict[str, Tensor], state: dict[str, Any], report: StateReport) -> None:
    """Fills in what the checkpoint lacks; a name of the token embedding is filled from another name of the same."""
    given = [key for key in TIED_EMBEDDINGS if key in state]
    for key, value in own.items():
        if _last_part(key) in CONSTANTS or key in report.resized:
            continue
        if key in state:
            report.taken.append(key)
            continue
        same = _another_name(key, own, given)
        state[key] = value if same is None else state[same]
        (report.kept if same is None else report.taken).append(key)


def _another_name(key: str, own: dict[str, Tensor], given: list[str]) -> str | None:
    """The name under which the checkpoint holds what ``key`` names: loading the old values would undo that one."""
    if key not in TIED_EMBEDDINGS:
        return None
    tied = [other for other in given if own[other].data_ptr() == own[key].data_ptr()]
    if not tied and key == "decoder.output_projection.weight" and "decoder.embed_tokens.weight" in given:
        return "decoder.embed_tokens.weight"
    return tied[0] if tied else None
