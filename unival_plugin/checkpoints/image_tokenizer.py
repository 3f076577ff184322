"""The released VQGAN with a Gumbel quantiser: weights (``last.ckpt``) and sizes (``model.yaml``), read and written.

``last.ckpt`` is a file of PyTorch Lightning, which keeps the state of a training beside the weights. Where it names
objects of that library, such as the class of a callback, an object that does nothing stands in: the library is neither
imported nor needed. Any other object that is not plain data makes the file be refused, as by every other command.

``model.yaml`` holds numbers and names of classes. Only plain YAML is read, without references, and nothing is made
from the names: they only tell that the network is the known one. Memory is taken for no more than the weights that
the file holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..modules.vqgan import VQGAN
from ..modules.vqgan_layers import CHANNELS, VQGANConfig
from .plain import StandIn
from .reading import printable, read_checkpoint, refused_objects, weights_of
from .safetensors_file import replacing

MAX_CONFIG_BYTES = 2**14
MAX_CONFIG_DEPTH = 16
MAX_PARAMETERS = 200_000_000
"""The released network has about 70 million, and no larger one is known."""

TRAINER = "pytorch_lightning."
NOT_NEEDED = ("loss.",)
"""What names of the discriminator's and the perceptual loss's weights begin with."""

TARGET = "taming.models.vqgan.GumbelVQ"
PARAMS = ("embed_dim", "n_embed")
SIZES = tuple(field.name for field in dataclasses.fields(VQGANConfig) if field.name not in PARAMS)
OPTIONAL_SIZES = ("dropout", "num_groups")
LISTS = ("ch_mult", "attn_resolutions")
FIXED = {"double_z": False, "in_channels": CHANNELS, "out_ch": CHANNELS, "resamp_with_conv": True}
"""Sizes that the network does not vary; files may leave them out."""
OF_TRAINING = (
    *("kl_weight", "temperature_scheduler_config", "lossconfig", "monitor"),
    *("ckpt_path", "ignore_keys", "image_key", "colorize_nlabels"),
)
ROOT_IGNORED = ("data", "lightning")
SHOWN_LENGTH = 40


def read_image_tokenizer(weights: Path, config: Path) -> VQGAN:
    """The network in the two files, in evaluation mode, float32, on the CPU.

    Args:
        weights: ``last.ckpt``, or any other file of weights with the same names.
        config: ``model.yaml``.

    Raises:
        CheckpointError: a file is missing, damaged, of another network, too large, or asks for objects that are not
            plain data.
    """
    with torch.device("meta"):  # takes no memory, whatever sizes the file asks for
        network = VQGAN(read_config(config))
    own = network.state_dict()
    if sum(tensor.numel() for tensor in own.values()) > MAX_PARAMETERS:
        raise CheckpointError(
            f"{config}: the network would have more than {MAX_PARAMETERS:,} weights; use another file"
        )
    given = _read_weights(weights)
    _check_fits(given, own, weights, config)
    # a copy, because the file may be replaced while its tensors still lie in it
    copies = {key: given[key].to(torch.float32, copy=True).contiguous() for key in own}
    network.load_state_dict(copies, assign=True)
    return network.eval()


def write_image_tokenizer(tokenizer: VQGAN, weights: Path, config: Path) -> None:
    """Writes the two files that :func:`read_image_tokenizer` reads, each all or nothing, the weights last.

    Options of the training, which the released ``model.yaml`` also holds, are not written. ``num_groups`` is written
    if it is not the usual 32; other programs do not know it.

    Raises:
        ConfigError: a folder does not exist, or both names are the same.
    """
    import yaml

    for path in (weights, config):
        if not path.parent.is_dir():
            raise ConfigError(f"{path}: its folder does not exist; make it first")
    if weights == config:
        raise ConfigError(f"{weights}: weights and sizes need two files; choose another name for one")
    text = yaml.safe_dump({"model": {"target": TARGET, "params": _params(tokenizer.config)}}, sort_keys=False)
    state = {key: tensor.cpu() for key, tensor in tokenizer.state_dict().items()}
    with replacing(config) as scratch:
        scratch.write_text(text, encoding="utf-8")
    with replacing(weights) as scratch:
        torch.save({"state_dict": state}, scratch)


def _params(config: VQGANConfig) -> dict[str, Any]:
    values = {name: list(value) if name in LISTS else value for name, value in dataclasses.asdict(config).items()}
    if config.num_groups == VQGANConfig.num_groups:
        del values["num_groups"]
    params = {name: values.pop(name) for name in PARAMS}
    fixed = {name: value for name, value in FIXED.items() if name != "resamp_with_conv"}
    return {**params, "ddconfig": {**fixed, **values}}


# ---- weights


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    """The file's tensors by name without those of the losses; they may still lie in the file."""
    stand_ins: list[Any] = [(StandIn, name) for name in refused_objects(path) if name.startswith(TRAINER)]
    with torch.serialization.safe_globals(stand_ins):
        state = read_checkpoint(path, mmap=True)
    try:
        tensors = weights_of(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return {key: tensor for key, tensor in tensors.items() if not str(key).startswith(NOT_NEEDED)}


def _check_fits(given: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path, config: Path) -> None:
    lacking = [key for key in own if key not in given]
    if lacking:
        raise CheckpointError(
            f"{path}: {len(lacking)} of {len(own)} weights of the network in {config} are not in the file "
            f"({lacking[0]}); use the file that belongs to it"
        )
    unknown = [key for key in given if key not in own]
    if unknown:
        raise CheckpointError(
            f"{path}: {len(unknown)} weights are not of the network in {config} ({_shown(unknown[0])}); use the file "
            "that belongs to it"
        )
    for key, tensor in own.items():
        if not _usable(given[key], tensor.shape):
            raise CheckpointError(
                f"{path}: {key} is {given[key].dtype} of shape {tuple(given[key].shape)}, the network in {config} "
                f"needs numbers of shape {tuple(tensor.shape)}; use the file that belongs to it"
            )


def _usable(tensor: Tensor, shape: torch.Size) -> bool:
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return plain and tensor.is_floating_point() and tensor.shape == shape


# ---- sizes


def read_config(path: Path) -> VQGANConfig:
    """The sizes in a ``model.yaml``.

    Raises:
        CheckpointError: the file is missing, too large, no plain YAML, or not of the known network.
    """
    try:
        return _config_of(_read_yaml(path))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}; use the model.yaml that belongs to the weights") from error


def _config_of(tree: Any) -> VQGANConfig:
    """Raises ConfigError without the file's name."""
    root = _entries(tree, "the file", required=("model",), ignored=ROOT_IGNORED)
    model = _entries(root["model"], "model", required=("target", "params"), ignored=("base_learning_rate",))
    target = model["target"]
    if not isinstance(target, str) or target.rpartition(".")[2] != TARGET.rpartition(".")[2]:
        raise ConfigError(f"model.target is {_shown(target)}, and only a GumbelVQ can be read")
    ignored = (*OF_TRAINING, "remap")
    params = _entries(model["params"], "model.params", required=(*PARAMS, "ddconfig"), ignored=ignored)
    if params.get("remap") is not None:
        raise ConfigError("model.params.remap renames codes, which is not supported")
    required = tuple(name for name in SIZES if name not in OPTIONAL_SIZES)
    place = "model.params.ddconfig"
    sizes = _entries(params["ddconfig"], place, required=required, ignored=(*OPTIONAL_SIZES, *FIXED))
    for name, value in FIXED.items():
        if name in sizes and (type(sizes[name]) is not type(value) or sizes[name] != value):
            raise ConfigError(f"{place}.{name} is {_shown(sizes[name])}, and only {value} can be read")
    values: dict[str, Any] = {name: params[name] for name in PARAMS}
    values |= {name: sizes[name] for name in SIZES if name in sizes}
    values |= {name: tuple(values[name]) for name in LISTS if type(values[name]) is list}
    return VQGANConfig(**values)


def _entries(value: Any, place: str, required: tuple[str, ...], ignored: tuple[str, ...]) -> dict[str, Any]:
    """``value`` as a dictionary with all of the ``required`` keys and none but these and the ``ignored``."""
    if type(value) is not dict:
        raise ConfigError(f"{place} is {_shown(value)} instead of names with values")
    for name in required:
        if name not in value:
            raise ConfigError(f"{place} lacks {name}")
    for name in value:
        if name not in required and name not in ignored:
            raise ConfigError(f"{place} holds {_shown(name)}, which is not known")
    return value


def _shown(value: Any) -> str:
    """A short text about a value of a file that may hold anything."""
    if isinstance(value, str):
        return repr(printable(value[:SHOWN_LENGTH]))
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 10**9):
        return str(value)
    return f"a {type(value).__name__}"


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror).lower()
        raise CheckpointError(f"{path}: {reason}; correct its path or permissions") from error
    if len(content) > MAX_CONFIG_BYTES:
        raise CheckpointError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes, so it is no model.yaml; use another file")
    try:
        _check_structure(content, path)
        return yaml.safe_load(content)
    except CheckpointError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: not plain YAML ({_first_words(error)}); use another file") from error


def _check_structure(content: bytes, path: Path) -> None:
    """Refuses what would take much time or memory: a few references can stand for gigabytes."""
    import yaml

    depth = 0
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise CheckpointError(f"{path}: refers to other places of itself (*name); write the values out")
        if depth > MAX_CONFIG_DEPTH:
            raise CheckpointError(
                f"{path}: nested more than {MAX_CONFIG_DEPTH} deep, so it is no model.yaml; use another file"
            )


def _first_words(error: Exception) -> str:
    problem = getattr(error, "problem", None) or str(error) or type(error).__name__
    mark = getattr(error, "problem_mark", None)
    return printable(" ".join(str(problem).split())[:120]) + (f", line {mark.line + 1}" if mark else "")
