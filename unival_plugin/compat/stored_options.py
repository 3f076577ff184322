"""Options that other programs have stored in checkpoints, made usable here.

The released files come from a fairseq that was changed: their model options are an ``argparse.Namespace`` into which
all other options were merged, tasks and criterions have options that nobody here knows, and paths are the authors'.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from typing import Any

from fairseq import checkpoint_utils
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.dataclass.configs import FairseqConfig
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from .commands import command_line, is_ours

logger = logging.getLogger(__name__)

DEFAULT_CRITERION = "adjust_label_smoothed_cross_entropy"
MAX_SHOWN = 6


def adopt_options(state: dict[str, Any], overrides: Mapping[str, Any], path: str) -> None:
    """Turns ``state["cfg"]`` into a configuration with which fairseq can build task, model and criterion.

    For tasks of this package, the command's (or caller's) task and criterion win over the stored ones, their options
    over stored options, and what is unknown here is left out with one line in the log. fairseq itself overrides only
    options that the file has already, ignores another ``--task``, and turns ``--bpe``, which our tasks read as a name,
    into options of its own tokenizer. Files of other packages are treated as fairseq does.
    """
    named = overrides.get("task")
    asked = named if isinstance(named, str) else None
    ours = any(is_ours(name) for name in (asked, command_line.get("task"), _stored_task(state)))
    if ours and state.get("cfg") is None and state.get("args") is not None:
        state["cfg"] = _groups(vars(state["args"]), asked)
    if ours:
        state["args"] = None
    elif state.get("args") is not None:
        vars(state["args"]).update(overrides)
    if state.get("cfg") is None:
        return
    cfg = state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})
    stored_task, stored_criterion = _plain(cfg.get("task")), _plain(cfg.get("criterion"))
    checkpoint_utils.overwrite_args_by_name(cfg, overrides)
    if not ours:
        return
    with open_dict(cfg):
        name = asked or stored_task.get("_name")
        if name and is_ours(name):
            given = {**overrides, **(named if isinstance(named, Mapping) else {})}
            cfg.task = _fitted(cfg, TASK_DATACLASS_REGISTRY[name], name, stored_task, given, path)
        name = _criterion(overrides.get("criterion") or stored_criterion.get("_name"), path)
        if name in CRITERION_DATACLASS_REGISTRY:
            dataclass = CRITERION_DATACLASS_REGISTRY[name]
            cfg.criterion = _fitted(cfg, dataclass, name, stored_criterion, overrides, path)


def _stored_task(state: Mapping[str, Any]) -> str | None:
    cfg = state.get("cfg")
    if isinstance(cfg, Mapping):
        name = _plain(cfg.get("task")).get("_name")
    else:
        name = getattr(state.get("args"), "task", None)
    return name if isinstance(name, str) else None


def _groups(flat: dict[str, Any], task: str | None) -> dict[str, Any]:
    """One flat Namespace, as files before 2021 hold it, as groups; the model's has all options."""
    dataclass = TASK_DATACLASS_REGISTRY.get(task or flat.get("task"))
    criterion = CRITERION_DATACLASS_REGISTRY.get(flat.get("criterion"))
    return {
        "model": argparse.Namespace(**{**flat, "_name": flat.get("arch")}),
        "task": {**_known(flat, dataclass), "_name": flat.get("task")},
        "criterion": {**_known(flat, criterion), "_name": flat.get("criterion")},
    }


def _known(flat: dict[str, Any], dataclass: Any) -> dict[str, Any]:
    return {key: value for key, value in flat.items() if key in getattr(dataclass, "__dataclass_fields__", ())}


def _plain(group: Any) -> dict[str, Any]:
    if isinstance(group, argparse.Namespace):
        return dict(vars(group))
    if isinstance(group, DictConfig):
        plain = OmegaConf.to_container(group, resolve=False)
        return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}
    return dict(group) if isinstance(group, Mapping) else {}


def _criterion(name: Any, path: str) -> str:
    if name in CRITERION_REGISTRY:
        return str(name)
    logger.warning(
        f"{path}: criterion {name} is not in this version; where the file is evaluated, {DEFAULT_CRITERION} takes its "
        "place (the loss may differ, metrics do not)"
    )
    return DEFAULT_CRITERION


def _fitted(
    cfg: DictConfig, dataclass: Any, name: str, stored: dict[str, Any], given: Mapping[str, Any], path: str
) -> DictConfig:
    """Options of ``dataclass``: its defaults, overridden by usable stored ones, overridden by given ones."""
    node = OmegaConf.structured(dataclass)
    left = []
    for key, value in stored.items():
        if key == "_name" or key in given:
            continue
        try:
            node[key] = value
        except OmegaConfBaseException:
            left.append(key)
    for key in node:
        if key in given:
            node[key] = given[key]
    if left:
        shown = ", ".join(sorted(left)[:MAX_SHOWN]) + (", …" if len(left) > MAX_SHOWN else "")
        logger.info(f"{path}: {len(left)} stored options that {name} does not have here are left out ({shown})")
    plain = OmegaConf.to_container(node, resolve=False, enum_to_str=True)
    return OmegaConf.create({**_resolved(cfg, plain), "_name": name})


def _resolved(cfg: DictConfig, options: Any) -> dict[str, Any]:
    """References such as ``${optimization.sentence_avg}`` followed in ``cfg``, or else in fairseq's defaults."""
    defaults = OmegaConf.structured(FairseqConfig)
    values = dict(options)
    for key, value in options.items():
        if isinstance(value, str) and value.startswith("${") and value.endswith("}"):
            found = OmegaConf.select(cfg, value[2:-1])
            values[key] = OmegaConf.select(defaults, value[2:-1]) if found is None else found
    return values
