"""What a network that is to be trained starts from: trunk files and ``--init-from``.

Networks that are built to be filled from a checkpoint must not come here: the paths may be of another machine.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.initialise import (
    load_trunk,
    pann_weights,
    read_weights,
    resnet_weights,
    resnext3d_weights,
)
from ...errors import CheckpointError, ConfigError
from ...modules.logmel import FILTERS
from .config import UnIVALConfig
from .state import TIED_EMBEDDINGS, by_module, fit_state_dict
from .trunks import FrameTrunk

logger = logging.getLogger(__name__)

START_FILES = ("resnet_model_path", "video_model_path", "audio_model_path", "init_from", "init_adapter")
"""Fields of the configuration that name files to start from."""
PICTURES = "encoder.embed_images."
"""Of names of a picture trunk in an UnIVAL checkpoint."""
BART_SYMBOLS = 50264
"""Frame symbols and GPT-2 pieces with fairseq's padding words; the id of ``<mask>`` in our dictionary."""
BART_FIRST_POSITION = 2
"""Row of a BART position table that belongs to the first token: fairseq counts from the padding id on."""


def start_from_files(network: nn.Module, config: UnIVALConfig) -> None:
    """Fills ``network`` from the files that ``config`` names; what they do not hold stays as it is.

    Trunk files come first, so that the trunks of an UnIVAL checkpoint replace them.

    Raises:
        ConfigError: no such file, a file for a trunk that the network does not have, or one that does not go with the
            dictionary.
        CheckpointError: a file that cannot be read or is of another network.
    """
    _start_trunks(network, config)
    if config.init_from:
        _start_from_checkpoint(network, config, config.init_from)


def _start_trunks(network: Any, config: UnIVALConfig) -> None:
    encoder = network.encoder
    if config.resnet_model_path:
        load_trunk(encoder.embed_images, resnet_weights(config.resnet_model_path), config.resnet_model_path)
    if config.video_model_path:
        _start_films(_trunk(encoder, "video"), config.video_model_path)
    if config.audio_model_path:
        trunk = _trunk(encoder, "audio")
        weights = pann_weights(config.audio_model_path, config.mel_bins)
        load_trunk(trunk, _with_wanted_filters(weights, config), config.audio_model_path)


def _start_films(trunk: nn.Module, path: str) -> None:
    """From a Kinetics file; the trunk that sees single frames from the picture trunk of an UnIVAL checkpoint."""
    if not isinstance(trunk, FrameTrunk):
        load_trunk(trunk, resnext3d_weights(path), path)
        return
    weights = read_weights(path, "--video-model-path", "an UnIVAL checkpoint whose picture trunk is to see the frames")
    pictures = {key.removeprefix(PICTURES): value for key, value in weights.items() if key.startswith(PICTURES)}
    load_trunk(trunk.frames, pictures, path)


def _trunk(encoder: nn.Module, modality: str) -> nn.Module:
    trunk = getattr(encoder, f"embed_{modality}s", None)
    if trunk is None:
        raise ConfigError(
            f"--{modality}-model-path: the network has no trunk to load it into; give --{modality}-encoder-name, or "
            "leave the path out"
        )
    return trunk


def _with_wanted_filters(weights: dict[str, Tensor], config: UnIVALConfig) -> dict[str, Tensor]:
    if config.recompute_mel_filters:
        return {key: value for key, value in weights.items() if not key.startswith(FILTERS)}
    if any(key.startswith(FILTERS) for key in weights):
        logger.info(
            f"{config.audio_model_path}: its mel filters are taken too, as in the original; PANNs were trained at 32 "
            "kHz, sounds are at 48 kHz here: --recompute-mel-filters keeps filters for 48 kHz"
        )
    return weights


def _start_from_checkpoint(network: nn.Module, config: UnIVALConfig, path: str) -> None:
    state = read_weights(path, "--init-from", "a BART or UnIVAL checkpoint")
    source = "UnIVAL"
    if is_bart(state):
        source = "BART, rows by number" if config.init_from_verbatim else "BART"
        _check_dictionary(network, state, path)
        if not config.init_from_verbatim:
            state = aligned_bart(state)
    try:
        report = fit_state_dict(network, state)
    except CheckpointError as error:
        raise CheckpointError(f"--init-from {path}: {error}") from error
    nn.Module.load_state_dict(network, state)  # not the adapter's own: that would fit the state once more
    logger.info(f"--init-from {path} ({source}): {report}")
    if report.kept:
        logger.info(f"new weights: {by_module(report.kept)}")


def is_bart(state: dict[str, Any]) -> bool:
    """Whether a state dict is of a text-only encoder and decoder: positions, but no picture positions."""
    return "encoder.embed_positions.weight" in state and "encoder.embed_image_positions.weight" not in state


def aligned_bart(state: dict[str, Any]) -> dict[str, Any]:
    """BART's weights with every row of its tables where our network looks for it.

    * Tokens: fairseq's BART files have more rows than their dictionary (51201 for ``bart.base``, fairseq issue 2804),
      ``<mask>`` being the last. Kept are the rows of the 50264 common symbols and that of ``<mask>``; image codes and
      bins get new rows. By number (UnIVAL's way) ``<mask>`` and 936 codes would start as BART's padding words and mask.
    * Positions: BART's first token has row 2, ours row 0.

    Args:
        state: names and shapes of fairseq's BART; not changed.

    Raises:
        CheckpointError: a token table with fewer rows than symbols.
    """
    aligned = dict(state)
    for key in TIED_EMBEDDINGS:
        if key in state:
            rows = state[key]
            if len(rows) <= BART_SYMBOLS:
                raise CheckpointError(
                    f"{key} has {len(rows)} rows, a BART with <mask> at least {BART_SYMBOLS + 1}; give "
                    "--init-from-verbatim to copy rows by number"
                )
            aligned[key] = torch.cat([rows[:BART_SYMBOLS], rows[-1:]])
    for side in ("encoder", "decoder"):
        key = f"{side}.embed_positions.weight"
        aligned[key] = state[key][BART_FIRST_POSITION:]
    return aligned


def _check_dictionary(network: Any, state: dict[str, Any], path: str) -> None:
    """BART's rows mean something only in a dictionary that begins as BART's own, that of GPT-2's pieces."""
    symbols = network.encoder.embed_tokens.num_embeddings
    if symbols <= BART_SYMBOLS:
        raise ConfigError(
            f"--init-from {path}: BART's words are those of GPT-2's tokenizer ({BART_SYMBOLS + 1} symbols), this "
            f"model's dictionary has {symbols}; use --bpe gpt2"
        )


def without_start_files(config: Any) -> Any:
    """A copy of model options (Namespace, OmegaConf or dataclass) that names no files to start from."""
    config = copy.deepcopy(config)
    for name in START_FILES:
        if getattr(config, name, None) is not None:
            setattr(config, name, None)
    return config
