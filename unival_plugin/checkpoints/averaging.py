"""Merges checkpoints: tensor by tensor, from mapped files, into a checkpoint that says what it was made of.

Which tensors belong together is decided in :mod:`.matching`, what is made of them in :mod:`.merge_methods`, and
:mod:`.streaming` writes the result. What is merged besides the model, and what the result keeps:

* Numbers are computed in float32, or in float64 where a file has float64, and stored in the first file's type.
* Running statistics of batch norm are averaged with the same coefficients. Methods with a base add up their whole
  differences, of which nothing is dropped, and a variance never falls below the smallest of the files'.
* Averages of weights (``extra_state``'s ``ema`` and ``ema_fp32_params``) are merged like the model where all files hold
  them, else the result has none: the first file's own average would not be one of the merged weights.
* With ``source="ema"`` the files' averages are merged in the place of their models. They become the result's model, and
  its average as well, so that it trains on with ``--store-ema``.
* Everything else is the first file's: options, task, progress. The optimizer's state is left out.
* ``merge`` in the result is a plain dictionary that tells files, checksums, coefficients and method.
"""

from __future__ import annotations

import copy
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .mapped import MappedFile
from .matching import Matched, Row, match
from .merge_methods import Method, running
from .merge_plan import MergePlan, check, check_output, notes_on
from .provenance import PROVENANCE, checksums, provenance_of
from .reading import AVERAGES, average_of, weights_of
from .safetensors_file import memory
from .streaming import streaming

STATISTICS = re.compile(r"(^|\.)running_(mean|var)$")
VARIANCE = "running_var"


def merge(plan: MergePlan, output: Path, progress: bool = True, overwrite: bool = True) -> dict[str, Any]:
    """Merges the files of ``plan`` into ``output`` (``.pt``, or ``.safetensors`` with a JSON file beside it).

    The file appears whole or not at all. Memory: the largest tensors a few times, for any number of files.

    Args:
        progress: show a progress bar, where the error stream is a terminal.
        overwrite: ``output`` may exist already.

    Returns:
        ``output``; ``merged``, ``copied``, ``skipped``, ``incomplete``, ``dropped``: numbers of tensors (see
        :class:`.matching.Matched`); ``averages``: ``merged``, ``kept``, ``dropped`` or ``none``; ``notes``: sentences
        about what may surprise.

    Raises:
        ConfigError: the plan contradicts itself, or ``output`` cannot be this file.
        CheckpointError: a file cannot be read, or the files do not fit together.
        OSError: the result cannot be written.
    """
    method = check(plan)
    check_output(plan, output, overwrite)
    files = [MappedFile(path) for path in plan.paths]
    base = MappedFile(plan.base) if plan.base else None
    merger = _Merger(plan, method, files, base)
    state = merger.state()
    with _fewer_threads(len(files)), checksums(plan) as sums, streaming(state, output, merger.release) as write:
        for stand_in, values in _shown(merger.results(), merger.total(), progress):
            write(stand_in, values)
        state[PROVENANCE] = provenance_of(plan, sums, files, merger.report)
    return {"output": str(output), **merger.report, "notes": [*notes_on(plan), *merger.notes]}


@contextmanager
def _fewer_threads(others: int) -> Iterator[None]:
    """Leaves processors to ``others`` threads; torch's own, which wait by spinning, would take their time."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before - others))
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---- merging


class _Tensors(Sequence[Tensor]):
    """The tensors of a name, read one at a time in the type that is computed with."""

    def __init__(self, files: Sequence[MappedFile], tensors: Sequence[Tensor], dtype: torch.dtype) -> None:
        self._files, self._tensors, self._dtype = files, tensors, dtype
        self._last = 0

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        if index != self._last:
            self._files[self._last].release(self._tensors[self._last])
        self._last = index
        return self._tensors[index].detach().to(self._dtype)


@dataclass(frozen=True)
class _Job:
    """A tensor to be made."""

    name: str
    row: Row
    stand_in: Tensor


class _Merger:
    """Makes the result's tree with stand-ins, and the tensors that they stand for."""

    def __init__(self, plan: MergePlan, method: Method, files: list[MappedFile], base: MappedFile | None) -> None:
        self._plan, self._method, self._files, self._base = plan, method, files, base
        self._options = {**method.options, **plan.options}
        self._jobs: list[_Job] = []
        self.notes: list[str] = []
        self.report: dict[str, Any] = {}

    # ---- the tree

    def state(self) -> dict[str, Any]:
        """The result, with stand-ins for merged tensors."""
        first = self._files[0].state
        model = first["model"] if "model" in first else _of(self._files[0], weights_of)
        state = {**first, "model": model} if "model" in first else {"model": model}
        if state.pop("last_optimizer_state", None) is not None:
            self.notes.append("left out: the optimizer's state; continue with --reset-optimizer")
        extra = state.get("extra_state")
        state["extra_state"] = extra = dict(extra) if isinstance(extra, Mapping) else {}
        if self._plan.source == "ema":
            self._replace_averages(state, extra)
        else:
            state["model"] = self._part(model, [_of(file, weights_of) for file in self._files], self._base_weights())
            self._merge_averages(extra)
        return state

    def _replace_averages(self, state: dict[str, Any], extra: dict[str, Any]) -> None:
        averages = [_of(file, _average) for file in self._files]
        merged = self._part(averages[0], averages, self._base_weights(average=True))
        if "model" not in self._plan.keep:
            state["model"] = merged
        extra["ema"] = merged
        extra.pop("ema_fp32_params", None)
        self.report["averages"] = "merged"

    def _merge_averages(self, extra: dict[str, Any]) -> None:
        held = [kind for kind in AVERAGES if extra.get(kind)]
        if not held or "averages" in self._plan.keep:
            self.report["averages"] = "kept" if held else "none"
            return
        everywhere = [kind for kind in held if all(_average_in(file, kind) for file in self._files)]
        for kind in held:
            if kind in everywhere:
                weights = [_average_in(file, kind) for file in self._files]
                extra[kind] = self._part(extra[kind], weights, self._base_weights(average=True), count=False)
            else:
                del extra[kind]
        self.report["averages"] = "merged" if everywhere else "dropped"
        if not everywhere:
            self.notes.append("left out: the average of weights (--store-ema), which not all files hold")

    def _base_weights(self, average: bool = False) -> Mapping[str, Tensor] | None:
        if self._base is None:
            return None
        return (average_of(self._base.state) if average else None) or _of(self._base, weights_of)

    def _part(
        self,
        template: Mapping[str, Any],
        weights: list[dict[str, Tensor]],
        base: Mapping[str, Tensor] | None,
        count: bool = True,
    ) -> Any:
        """A mapping like ``template`` with stand-ins; names that are one tensor in all files remain one."""
        plan = self._plan
        named = (plan.base, base) if plan.base is not None and base is not None else None
        found = match(plan.paths, weights, named, plan.missing, plan.skip)
        if count:
            self._count(found)
        result = copy.copy(template)
        stand_ins: dict[Any, Tensor] = {}
        for name, row in found.rows.items():
            places = tuple(None if each is None else memory(each) for each in (*row.tensors, row.base))
            if places not in stand_ins:
                stand_ins[places] = torch.empty(row.first.shape, dtype=row.first.dtype)
                self._jobs.append(_Job(name, row, stand_ins[places]))
            result[name] = stand_ins[places]  # type: ignore[index]
        return result

    def _count(self, found: Matched) -> None:
        kinds = ("copied", "skipped", "incomplete", "dropped")
        self.report = {"merged": len(found.rows), **{kind: len(getattr(found, kind)) for kind in kinds}}
        for kind, words in (("incomplete", "not in all files"), ("dropped", "left out, because the first file lacks")):
            names: list[str] = getattr(found, kind)
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                self.notes.append(f"{words}: {', '.join(names[:3])}{more} (--missing {self._plan.missing})")

    # ---- the tensors

    def total(self) -> int:
        """Bytes of all results."""
        return sum(job.stand_in.numel() * job.stand_in.element_size() for job in self._jobs)

    def results(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every stand-in with its values; the memory of the values is reused afterwards."""
        for job in self._jobs:
            try:
                yield job.stand_in, _stored(self._merged(job), job.stand_in.dtype)
            except CheckpointError as error:
                raise CheckpointError(f"{job.name}: {error}") from error
            for file, tensor in zip(self._files, job.row.tensors, strict=True):
                if tensor is not None:
                    file.release(tensor)
            if self._base is not None and job.row.base is not None:
                self._base.release(job.row.base)

    def release(self, tensor: Tensor) -> None:
        """Gives back the memory of a tensor of the first file that was copied."""
        self._files[0].release(tensor)

    def _merged(self, job: _Job) -> Tensor:
        row, plan = job.row, self._plan
        dtype = torch.float64 if any(t.dtype == torch.float64 for t in _present(row)) else torch.float32
        if plan.missing == "running":
            return running([None if each is None else each.detach().to(dtype) for each in row.tensors], plan.weights)
        there = [i for i, each in enumerate(row.tensors) if each is not None]
        tensors = _Tensors([self._files[i] for i in there], [t for t in row.tensors if t is not None], dtype)
        coefficients = _shared_out(plan.weights, there)
        base = None if row.base is None else row.base.detach().to(dtype)
        if not STATISTICS.search(job.name):
            return self._method.function(tensors, coefficients, base, self._options)
        merged = self._method.statistics(tensors, coefficients, base, self._options)
        if self._method.base and job.name.endswith(VARIANCE):
            merged = torch.maximum(merged, functools.reduce(torch.minimum, tensors))
        return merged


def _present(row: Row) -> list[Tensor]:
    return [each for each in (*row.tensors, row.base) if each is not None]


def _shared_out(coefficients: Sequence[float], there: Sequence[int]) -> list[float]:
    """The coefficients of the files that have a tensor, enlarged to the sum of all."""
    present = [coefficients[i] for i in there]
    if len(present) == len(coefficients):
        return present
    share, total = math.fsum(present), math.fsum(coefficients)
    if not share:
        return [total / len(present)] * len(present)
    return [coefficient / share * total for coefficient in present]


def _stored(values: Tensor, dtype: torch.dtype) -> Tensor:
    stored = values.to(dtype)
    if dtype == torch.float16 and not torch.equal(stored.isinf(), values.isinf()):
        raise CheckpointError(
            f"comes out as {float(values.abs().max()):.3g}, which {dtype}, the first file's type, cannot hold; convert "
            "that file first (unival convert --dtype fp32)"
        )
    return stored


def _of(file: MappedFile, part: Any) -> dict[str, Tensor]:
    try:
        return part(file.state)
    except CheckpointError as error:
        raise CheckpointError(f"{file.path}: {error}") from error


def _average(state: Mapping[str, Any]) -> dict[str, Tensor]:
    average = average_of(state)
    if average is None:
        raise CheckpointError("holds no average of weights (--ema); it was trained without --store-ema")
    return average


def _average_in(file: MappedFile, kind: str) -> dict[str, Tensor]:
    extra = file.state.get("extra_state")
    average = extra.get(kind) if isinstance(extra, Mapping) else None
    if not isinstance(average, Mapping):
        return {}
    return {name: value for name, value in average.items() if isinstance(value, Tensor)}


# ---- progress


def _shown(results: Iterator[tuple[Tensor, Tensor]], total: int, progress: bool) -> Iterator[tuple[Tensor, Tensor]]:
    from tqdm import tqdm

    with tqdm(total=total, desc="merging", unit="B", unit_scale=True, disable=None if progress else True) as bar:
        for stand_in, values in results:
            yield stand_in, values
            bar.update(stand_in.numel() * stand_in.element_size())
