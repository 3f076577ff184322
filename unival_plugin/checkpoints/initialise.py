"""Weights of published trunks (torchvision and timm ResNets, Kinetics 3-D ResNeXts, PANNs) as state dicts of a trunk.

Nothing here knows the networks that use the trunks: a trunk is any module whose names are those of the published files.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from ..modules.logmel import FILTERS
from .reading import read_checkpoint, weights_of

logger = logging.getLogger(__name__)

PANN_PREFIXES = ("module.", "sed_model.", "audio_branch.")
PANN_MEL_BINS = 64
CLASSIFIERS = ("fc.", "fc1.", "fc_audioset.", "fc_transfer.")
OPTIONAL = (*CLASSIFIERS, *FILTERS, "bn0.")
"""What a file may lack: classifiers are never used, and a front end may be of another number of mel bands."""
RESNET_DEPTHS = {(3, 4, 6, 3): "50", (3, 4, 23, 3): "101", (3, 8, 36, 3): "152", (2, 2, 2, 2): "18"}
STAGES = tuple(f"layer{stage}" for stage in range(1, 5))


def resnet_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights of a ResNet with torchvision's or timm's names, e.g. ``resnet101-5d3b4d8f.pth``.

    Raises:
        ConfigError: no such file.
        CheckpointError: not a readable weights file.
    """
    return read_weights(path, "--resnet-model-path", "a torchvision or timm ResNet file")


def resnext3d_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights of a Kinetics 3-D ResNeXt, e.g. ``resnext-101-kinetics.pth``; errors as :func:`resnet_weights`."""
    weights = read_weights(path, "--video-model-path", "a Kinetics 3-D ResNeXt file")
    return {key.removeprefix("module."): value for key, value in weights.items()}


def pann_weights(path: str | Path, mel_bins: int) -> dict[str, Tensor]:
    """Weights of a PANN (Kong et al. 2020), e.g. ``Cnn14_mAP=0.431.pth``; errors as :func:`resnet_weights`.

    Args:
        path: the file.
        mel_bins: mel bands of the trunk. The published files have 64; for another number what depends on it is left
            out: filters and the batch norm over bands.
    """
    weights = {}
    for key, value in read_weights(path, "--audio-model-path", "a PANN file such as Cnn14").items():
        for prefix in PANN_PREFIXES:
            key = key.replace(prefix, "")
        weights[key] = value
    if mel_bins == PANN_MEL_BINS:
        return weights
    return {key: value for key, value in weights.items() if not key.startswith((*FILTERS, "bn0."))}


def read_weights(path: str | Path, flag: str, kind: str) -> dict[str, Tensor]:
    """The tensors by name of any file of weights; a new dictionary.

    Args:
        path: the file.
        flag: the flag that named it, for messages.
        kind: what kind of file the flag needs, for messages.

    Raises:
        ConfigError: no such file.
        CheckpointError: not a readable weights file.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file; {flag} needs {kind}")
    state = read_checkpoint(path)
    try:
        return weights_of(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}; {flag} needs {kind}") from error


def load_trunk(trunk: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Starts ``trunk`` from ``weights``.

    Classifiers, stages beyond the trunk's last one, batch norms' counts and constant filters may differ, the trunk then
    keeps its own; everything else must fit.

    Args:
        trunk: module with the names of the published files.
        weights: what one of the functions above returned.
        path: the file, for messages.

    Raises:
        CheckpointError: the weights are of a trunk of another kind or depth.
    """
    own = trunk.state_dict()
    beyond = tuple(f"{stage}." for stage in STAGES if not any(key.startswith(f"{stage}.") for key in own))
    given = {key: value for key, value in weights.items() if key in own or not key.startswith((*CLASSIFIERS, *beyond))}
    given = {key: value for key, value in given.items() if key in own or not key.endswith("num_batches_tracked")}
    for key in [key for key in given if key.startswith((*CLASSIFIERS, *FILTERS)) and not _fits(key, given, own)]:
        del given[key]
    shared = [key for key in given if key in own]
    if not shared:
        raise CheckpointError(f"{path}: no tensor fits the trunk; use a file of the trunk's own kind")
    _check_depth(own, given, path)
    unknown = [key for key in given if key not in own]
    lacking = [key for key in own if key not in given and not _may_lack(key)]
    if unknown or lacking:
        raise CheckpointError(
            f"{path}: weights of a trunk of another kind: {len(unknown)} tensors are not in the trunk"
            f"{_example(unknown)} and {len(lacking)} of the trunk's are not in the file{_example(lacking)}; use a file "
            "of the trunk's own kind"
        )
    wrong = [key for key in shared if not _fits(key, given, own)]
    if wrong:
        key = wrong[0]
        raise CheckpointError(
            f"{path}: weights of a trunk of another kind: {key} has shape {tuple(given[key].shape)}, the trunk needs "
            f"{tuple(own[key].shape)}, and {len(wrong) - 1} more differ; use a file of the trunk's own kind"
        )
    trunk.load_state_dict(given, strict=False)
    logger.info(f"{path}: {len(shared)} tensors taken, {len(weights) - len(shared)} not needed")


def _fits(key: str, given: dict[str, Tensor], own: dict[str, Tensor]) -> bool:
    return key in own and given[key].shape == own[key].shape


def _may_lack(key: str) -> bool:
    return key.startswith(OPTIONAL) or key.endswith("num_batches_tracked")


def _example(keys: list[str]) -> str:
    return f" ({keys[0]})" if keys else ""


def _check_depth(own: dict[str, Tensor], given: dict[str, Tensor], path: str | Path) -> None:
    """Compares the numbers of blocks of a ResNet's stages: deeper files would fit in part."""
    wanted, found = _blocks(own), _blocks(given)
    if wanted and found != wanted:
        raise CheckpointError(
            f"{path}: weights of a trunk with {_depth(found)}, the network has one with {_depth(wanted)}; use another "
            "file or choose the trunk of this depth"
        )


def _blocks(weights: dict[str, Tensor]) -> tuple[int, ...]:
    """Numbers of blocks of the stages ``layer1`` to ``layer4`` that there are."""
    stages: dict[str, set[str]] = defaultdict(set)
    for key in weights:
        stage, _, rest = key.partition(".")
        if stage in STAGES:
            stages[stage].add(rest.partition(".")[0])
    return tuple(len(stages[stage]) for stage in STAGES if stage in stages)


def _depth(blocks: tuple[int, ...]) -> str:
    names = [f"depth {name}" for sizes, name in RESNET_DEPTHS.items() if blocks and sizes[: len(blocks)] == blocks]
    stages = f"{'-'.join(map(str, blocks)) or 'no'} blocks"
    return f"{names[0]} ({stages})" if names else stages
