"""Registers the network with fairseq as model ``unival`` and its architectures."""

import argparse
import logging
from dataclasses import field, fields, make_dataclass
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.models import (
    BaseFairseqModel,
    FairseqEncoder,
    FairseqIncrementalDecoder,
    register_model,
    register_model_architecture,
)

from ...errors import ConfigError
from .config import PRESETS, UnIVALConfig, from_preset
from .decoder import UnIVALDecoder
from .encoder import UnIVALEncoder
from .network import UnIVALNetwork
from .starting import start_from_files
from .state import fit_state_dict
from .trained import start_from_adapter, table, trainable_parts

logger = logging.getLogger(__name__)

# every field of UnIVALConfig, but None by default: only so can a preset tell what the user gave
UnIVALModelConfig = make_dataclass(
    "UnIVALModelConfig",
    [(f.name, Optional[f.type], field(default=None, metadata=dict(f.metadata))) for f in fields(UnIVALConfig)],  # type: ignore[misc]
    bases=(FairseqDataclass,),
)
UnIVALModelConfig.__module__ = __name__


class _Encoder(UnIVALEncoder, FairseqEncoder):
    """fairseq recognises encoders and decoders by their base classes; nothing of these is used but defaults."""

    def forward_torchscript(self, net_input: dict[str, Any]) -> dict[str, Any]:
        return self.forward(**{k: v for k, v in net_input.items() if k != "prev_output_tokens"})


class _Decoder(UnIVALDecoder, FairseqIncrementalDecoder):
    onnx_trace = False


@register_model("unival", dataclass=UnIVALModelConfig)
class UnIVALModel(UnIVALNetwork, BaseFairseqModel):
    """The network as a fairseq model; all behaviour is the network's."""

    def __init__(self, config: UnIVALConfig, vocab_size: int, pad: int) -> None:
        super().__init__(config, vocab_size, pad, encoder_class=_Encoder, decoder_class=_Decoder)
        self._is_generation_fast = False
        self._is_announced = False

    @classmethod
    def build_model(cls, args: Any, task: Any) -> "UnIVALModel":
        """Builds the model for ``task``'s dictionary from a configuration or Namespace with the model's fields.

        It starts from the files that ``--init-from``, ``--init-adapter`` and ``--*-model-path`` name.

        Raises:
            ConfigError: model flags that do not fit together.
            CheckpointError: such a file cannot be read or does not fit.
        """
        values = vars(args) if isinstance(args, argparse.Namespace) else dict(args)
        name = values.get("_name") or values.get("arch") or "unival_base"
        dictionary = task.target_dictionary
        try:
            config = from_preset(name if name in PRESETS else "unival_base", values)
            model = cls(config, len(dictionary), dictionary.pad())
        except ValueError as error:
            raise ConfigError(str(error)) from error
        start_from_files(model, config)
        if config.init_adapter and config.init_from:
            start_from_adapter(model, config, config.init_adapter)
        return model

    def train(self, mode: bool = True) -> "UnIVALModel":
        """As of every module; when a training begins, the first call tells what is trained.

        Raises:
            ConfigError: ``--init-adapter`` without ``--init-from``. :meth:`build_model` cannot tell this from reading a
                checkpoint, where options that name files to start from count no more.
        """
        if mode and not self._is_announced:
            if self.config.init_adapter and not self.config.init_from:
                raise ConfigError("--init-adapter needs --init-from with the base that the file belongs to")
            self._is_announced = True
            for line in table(trainable_parts(self)):
                logger.info(line)
        super().train(mode)
        return self

    def max_positions(self) -> tuple[int, int]:
        """Longest source and target in tokens."""
        return self.encoder.max_positions(), self.decoder.max_positions()

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> None:
        """Makes a checkpoint's state dict fit; see :func:`fit_state_dict`.

        Raises:
            CheckpointError: the checkpoint belongs to another architecture or size.
        """
        logger.info(f"checkpoint: {fit_state_dict(self, state_dict)}")


def _fill_from_preset(name: str) -> Any:
    def architecture(args: Any) -> None:
        """Sets every model option that was not given to the preset's value."""
        values = vars(args) if isinstance(args, argparse.Namespace) else dict(args)
        for key, value in vars(from_preset(name, values)).items():
            if values.get(key) is None:
                setattr(args, key, value)

    return architecture


for _name in PRESETS:
    if _name != "unival":  # registering the model has registered the architecture of its own name
        register_model_architecture("unival", _name)(_fill_from_preset(_name))
