"""What to merge and how, and whether that goes together; no checkpoint is opened for it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError
from .matching import MISSING
from .merge_methods import METHODS, ONE, Method
from .safetensors_file import SUFFIX

SOURCES = ("model", "ema")
KEPT = {"model": "averages", "ema": "model"}
"""By source: the part that may stay as it is in the first file."""


@dataclass(frozen=True)
class MergePlan:
    """What to merge, and how.

    Attributes:
        paths: the files; the first one tells names, types and options of the result.
        method: a name of :data:`.merge_methods.METHODS`.
        coefficients: one per file; None: all the same, with sum 1.
        base: the file that the others were finetuned from, for methods that work with differences to it.
        options: the method's options, as ``density`` and ``seed``.
        source: ``model``, or ``ema`` for the averages of weights.
        missing: rule for tensors that a later file lacks, one of :data:`.matching.MISSING`.
        skip: patterns of names that stay as they are in the first file (see :func:`.matching.match`).
        keep: parts that stay as they are in the first file: ``averages`` (with ``source="model"``), ``model`` (with
            ``source="ema"``: only the average is replaced); both are what UnIVAL's script does.
    """

    paths: tuple[Path, ...]
    method: str = "weighted"
    coefficients: tuple[float, ...] | None = None
    base: Path | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    source: str = "model"
    missing: str = "error"
    skip: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    @property
    def weights(self) -> tuple[float, ...]:
        """The coefficients, one per file."""
        return self.coefficients if self.coefficients is not None else (1 / len(self.paths),) * len(self.paths)


def check(plan: MergePlan) -> Method:
    """The plan's method, if everything in the plan goes together; no file is opened.

    Raises:
        ConfigError: it does not.
    """
    if plan.method not in METHODS:
        raise ConfigError(f"--method {plan.method}: unknown; choose one of {', '.join(METHODS)}")
    method = METHODS[plan.method]
    _check_coefficients(plan, method)
    if method.base and plan.base is None:
        raise ConfigError(f"--method {plan.method}: needs --base, the checkpoint that the files were finetuned from")
    if plan.base is not None and not method.base:
        raise ConfigError(f"--base: --method {plan.method} has no use for it; leave it out or choose another method")
    if plan.missing == "running" and plan.method != "weighted":
        raise ConfigError(f"--missing running: goes with --method weighted only, not with {plan.method}")
    for name, value, known in (("source", plan.source, SOURCES), ("missing", plan.missing, MISSING)):
        if value not in known:
            raise ConfigError(f"--{name} {value}: unknown; choose one of {', '.join(known)}")
    if set(plan.keep) - {KEPT[plan.source]}:
        raise ConfigError(f"keep={plan.keep}: with source {plan.source} only {KEPT[plan.source]!r} can be kept")
    _check_options(plan, method)
    for pattern in plan.skip:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"--skip {pattern}: no regular expression ({error})") from error
    return method


def _check_coefficients(plan: MergePlan, method: Method) -> None:
    if not plan.paths:
        raise ConfigError("nothing to merge; name at least one checkpoint")
    if method.pair and len(plan.paths) != 2:
        raise ConfigError(f"--method {plan.method}: merges two files, not {len(plan.paths)}")
    if len(plan.weights) != len(plan.paths):
        raise ConfigError(f"--coefficients: {len(plan.weights)} for {len(plan.paths)} files; give one per file")
    if not all(map(math.isfinite, plan.weights)):
        raise ConfigError(f"--coefficients: {', '.join(map(str, plan.weights))} are not all finite numbers")
    if method.pair and abs(math.fsum(plan.weights) - 1) > ONE:
        raise ConfigError(f"--coefficients: those of --method {plan.method} must sum up to 1")


def _check_options(plan: MergePlan, method: Method) -> None:
    for name, value in plan.options.items():
        if name not in method.options:
            raise ConfigError(f"--{name}: --method {plan.method} has no such option")
        if name == "density" and not 0 < value <= 1:
            raise ConfigError(f"--density {value:g}: must be more than 0 and at most 1")
        if name == "seed" and not (float(value).is_integer() and 0 <= value < 2**32):
            raise ConfigError(f"--seed {value:g}: must be a whole number from 0 to 4294967295")


def check_output(plan: MergePlan, output: Path, overwrite: bool) -> None:
    """Raises ConfigError if the result cannot be written under this name."""
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: its folder does not exist; make it first")
    read = [path for path in (*plan.paths, plan.base) if path is not None]
    inputs = [*read, *(path.with_suffix(".json") for path in read if path.suffix == SUFFIX)]
    for path in (output, output.with_suffix(".json")) if output.suffix == SUFFIX else (output,):
        if path.is_dir() or any(path.exists() and each.exists() and path.samefile(each) for each in inputs):
            raise ConfigError(f"{path}: is a folder or one of the files to merge; choose another name")
        if path.exists() and not overwrite:
            raise ConfigError(f"{path}: exists; choose another name or add --overwrite")


def notes_on(plan: MergePlan) -> list[str]:
    total = math.fsum(plan.weights)
    if plan.method == "weighted" and abs(total - 1) > ONE:
        return [f"the coefficients sum up to {total:g}, not to 1: the result is no mean of the files"]
    return []
