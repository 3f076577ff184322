"""OmegaConf's objects in checkpoints, read as plain dictionaries and lists without running any code of OmegaConf.

Files of fairseq 1.0.0a0 hold their options as pickled OmegaConf trees. The names that such a pickle asks for are given
to classes of this module instead, which do nothing but keep what the pickle puts into them.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

CONTAINERS = ("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig")
NODES = tuple(
    f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Bytes", "Float", "Integer", "Path", "String", "Union")
)
DESCRIPTIONS = (
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "typing.Any"),
    *(f"builtins.{kind}" for kind in ("bool", "bytes", "dict", "float", "int", "list", "str", "tuple")),
)


class StandIn:
    """An object of a pickle that keeps its contents and does nothing; what it is made from does not matter."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


class _Container(StandIn):
    """A dictionary or list of options; its contents are nodes by key, nodes, a text (a reference) or None."""


class _Node(StandIn):
    """One option."""


class _Description(StandIn):
    """Types of options, which plain data does not need."""


def _empty(*_: Any) -> dict[Any, Any]:
    return {}


STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((_Container, name) for name in CONTAINERS),
    *((_Node, name) for name in NODES),
    *((_Description, name) for name in DESCRIPTIONS),
    (_empty, "collections.defaultdict"),
]
"""What torch's safe reader may make of each name, in the form that ``torch.serialization.safe_globals`` takes."""


def plain_options(value: Any) -> Any:
    """``value`` with stand-ins replaced by what they hold; a structure without stand-ins keeps its objects."""
    if isinstance(value, _Container):
        return plain_options(vars(value).get("_content"))
    if isinstance(value, _Node):
        return plain_options(vars(value).get("_val"))
    if isinstance(value, _Description):
        return None
    if type(value) in (dict, OrderedDict):
        for key, entry in value.items():
            value[key] = plain_options(entry)
    elif type(value) is list:
        value[:] = [plain_options(entry) for entry in value]
    elif type(value) is tuple:
        return tuple(plain_options(entry) for entry in value)
    elif type(value) is argparse.Namespace:
        plain_options(vars(value))
    return value
