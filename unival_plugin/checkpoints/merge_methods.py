"""Ways to make one tensor of several: each a function on the tensors of one name, registered by its own name.

The tensors come in a sequence that reads each from its file when it is asked for, as float32, or as float64 if one of
them is; a function that holds few of them at a time needs little memory for any number of files. It must not write
into them. Coefficients are in the order of the files.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import hardshrink

Function = Callable[[Sequence[Tensor], Sequence[float], "Tensor | None", Mapping[str, float]], Tensor]

Some = TypeVar("Some", bound=Function)

ONE = 1e-9
"""How far a sum of coefficients may be from 1 to count as 1."""

PARALLEL = 0.9995
"""Cosine from which on the arc between two tensors is taken for a line."""

BLOCK = 2**18
"""Elements that are computed with at a time where nothing but themselves matters."""

DENSITY = 0.2
SEED = 1.0


@dataclass(frozen=True)
class Method:
    """A registered way.

    Attributes:
        function: makes the merged tensor of the tensors, their coefficients, the base's tensor and the options.
        statistics: the same for running statistics of batch norm, of which nothing may be dropped or turned.
        summary: one sentence for people.
        paper: who described it.
        options: names and defaults of its options.
        base: it needs the file that the merged ones were finetuned from.
        pair: it merges two files, with coefficients that sum up to 1.
    """

    function: Function
    statistics: Function
    summary: str
    paper: str
    options: Mapping[str, float] = field(default_factory=dict)
    base: bool = False
    pair: bool = False


METHODS: dict[str, Method] = {}


def register(
    name: str,
    summary: str,
    paper: str,
    options: Mapping[str, float] | None = None,
    statistics: Function | None = None,
    base: bool = False,
    pair: bool = False,
) -> Callable[[Some], Some]:
    """Puts a function into :data:`METHODS`; ``statistics``: see :class:`Method`, by default the function itself."""

    def add(function: Some) -> Some:
        METHODS[name] = Method(function, statistics or function, summary, paper, dict(options or {}), base, pair)
        return function

    return add


@register(
    "weighted",
    "sum of coefficient x tensor; by default every file counts the same",
    "Model soups, Wortsman et al. 2022; rewarded soups, Ramé et al. 2023",
)
def weighted(
    tensors: Sequence[Tensor],
    coefficients: Sequence[float],
    base: Tensor | None = None,
    options: Mapping[str, float] | None = None,
) -> Tensor:
    """Sum of coefficient x tensor. Equal tensors come out bit for bit where the coefficients sum up to 1.

    Such a mean is taken as the tensor of the largest coefficient less the differences to it. Files with coefficient 0
    are not read, so that theirs may be infinite.
    """
    used = [i for i, coefficient in enumerate(coefficients) if coefficient]
    if not used:
        return torch.zeros_like(tensors[0])
    if abs(math.fsum(coefficients) - 1) > ONE:
        return _sum(tensors, coefficients, used)
    largest = max(used, key=lambda i: abs(coefficients[i]))
    anchor = tensors[largest]
    if used == [largest]:
        return anchor
    mean = _mean(tensors, coefficients, [i for i in used if i != largest], anchor)
    if bool(torch.isfinite(mean.sum())):
        return mean
    return _with_infinities(tensors, coefficients, used, anchor, mean)


def _mean(tensors: Sequence[Tensor], coefficients: Sequence[float], others: Sequence[int], anchor: Tensor) -> Tensor:
    """``anchor`` less coefficient x (anchor - tensor) of all others, in blocks that fit into the processor's cache."""
    mean = torch.empty(anchor.shape, dtype=anchor.dtype)
    start, result = anchor.reshape(-1), mean.view(-1)
    before = start
    for i in others:
        tensor = tensors[i].reshape(-1)
        for first in range(0, len(result), BLOCK):
            part = slice(first, first + BLOCK)
            # x - c * 0 keeps the sign of a zero, x + c * 0 would not
            torch.sub(before[part], start[part] - tensor[part], alpha=coefficients[i], out=result[part])
        before = result
    return mean


def _sum(tensors: Sequence[Tensor], coefficients: Sequence[float], used: Sequence[int]) -> Tensor:
    total = tensors[used[0]] * coefficients[used[0]]
    for i in used[1:]:
        total.add_(tensors[i], alpha=coefficients[i])
    return total


def _with_infinities(
    tensors: Sequence[Tensor], coefficients: Sequence[float], used: Sequence[int], anchor: Tensor, mean: Tensor
) -> Tensor:
    """``mean`` without what subtracting infinities from each other makes of it."""
    same = torch.ones_like(anchor, dtype=torch.bool)
    for i in used:
        same &= (tensors[i] == anchor) | (tensors[i].isnan() & anchor.isnan())
    mean = torch.where(mean.isfinite(), mean, _sum(tensors, coefficients, used))
    return torch.where(same, anchor, mean)


def running(tensors: Sequence[Tensor | None], coefficients: Sequence[float]) -> Tensor:
    """UnIVAL's rule for names that some file lacks (None): the sum so far counts in its place.

    UnIVAL, ``preprocess/average_save_models.py``. The coefficients that result do not sum up to 1.
    """
    total: Tensor | None = None
    for i, coefficient in enumerate(coefficients):
        tensor = tensors[i]
        if total is None:
            assert tensor is not None, "the first file has every name"
            total = tensor * coefficient
        else:
            total = total + (total if tensor is None else tensor) * coefficient
    assert total is not None
    return total


class _Behind(Sequence[Tensor]):
    """A base's tensor with the others behind it, which are still read one at a time."""

    def __init__(self, base: Tensor, tensors: Sequence[Tensor]) -> None:
        self._base, self._tensors = base, tensors

    def __len__(self) -> int:
        return len(self._tensors) + 1

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        return self._tensors[index - 1] if index else self._base


@register(
    "task_arithmetic",
    "base + sum of coefficient x (tensor - base)",
    "Editing models with task arithmetic, Ilharco et al. 2022",
    base=True,
)
def task_arithmetic(
    tensors: Sequence[Tensor],
    coefficients: Sequence[float],
    base: Tensor | None,
    options: Mapping[str, float] | None = None,
) -> Tensor:
    """``base + sum(coefficient * (tensor - base))``, which is a mean in which the base has what is left of 1."""
    assert base is not None
    rest = 1 - math.fsum(coefficients)
    return weighted(_Behind(base, tensors), [rest if abs(rest) > ONE else 0.0, *coefficients])


@register(
    "ties",
    "task vectors trimmed to their largest part (--density); where signs differ, only those of the heavier side count",
    "TIES-Merging, Yadav et al. 2023",
    options={"density": DENSITY},
    statistics=task_arithmetic,
    base=True,
)
def ties(
    tensors: Sequence[Tensor], coefficients: Sequence[float], base: Tensor | None, options: Mapping[str, float]
) -> Tensor:
    """Trim, elect a sign for every element, and average what agrees with it.

    Task vectors (tensor - base) keep the ``density`` of their elements that are largest. The sign of the weighted sum
    is elected. The mean over the kept elements of that sign, weighted with the coefficients, times the sum of the
    coefficients' sizes is added to the base: equal coefficients that sum up to the paper's lambda are the paper's
    method, which trims all of a model at once and not every tensor. Density 1 drops nothing, also not elements of the
    other sign: it is task arithmetic.
    """
    assert base is not None
    density = options.get("density", DENSITY)
    if density == 1:
        return task_arithmetic(tensors, coefficients, base)
    bounds: list[float] = []
    sign = torch.zeros_like(base)
    for i, coefficient in enumerate(coefficients):
        vector = (tensors[i] - base).mul_(coefficient)
        bounds.append(_bound(vector, density))
        sign.add_(hardshrink(vector, bounds[-1]))
    sign.sign_()
    total, weight = torch.zeros_like(base), torch.zeros_like(base)
    for i, coefficient in enumerate(coefficients):
        # read a second time instead of kept, so that many files need no more memory than few
        vector = (tensors[i] - base).mul_(coefficient)
        agreeing = hardshrink(vector, bounds[i]).mul_(sign).clamp_min_(0)
        total.add_(agreeing)
        weight.add_(agreeing.sign_(), alpha=abs(coefficient))
    total.mul_(sign).mul_(math.fsum(map(abs, coefficients)))
    return total.div_(weight.masked_fill_(weight == 0, 1)).add_(base)


def _bound(vector: Tensor, density: float) -> float:
    """The largest size that is dropped when ``density`` of the elements stay; those of equal size all stay."""
    if not vector.numel():
        return 0.0
    dropped = vector.numel() - max(1, round(density * vector.numel()))
    sizes = vector.abs().reshape(-1).numpy()
    sizes.partition(dropped)
    return float(np.nextafter(sizes[dropped], sizes.dtype.type(0)))


@register(
    "dare",
    "a random part of every task vector is dropped (--density stays) and the rest enlarged to make up for it",
    "Language models are super Mario (DARE), Yu et al. 2023",
    options={"density": DENSITY, "seed": SEED},
    statistics=task_arithmetic,
    base=True,
)
def dare(
    tensors: Sequence[Tensor], coefficients: Sequence[float], base: Tensor | None, options: Mapping[str, float]
) -> Tensor:
    """``base + sum(coefficient * mask * (tensor - base) / density)``; a mask keeps an element with chance ``density``.

    Masks follow from ``seed`` and the tensor's contents, so that they do not depend on the order of the files.
    Density 1 is task arithmetic.
    """
    assert base is not None
    density = options.get("density", DENSITY)
    if density == 1:
        return task_arithmetic(tensors, coefficients, base)
    total = base.clone()
    for i, coefficient in enumerate(coefficients):
        if coefficient:
            tensor = tensors[i]
            mask = torch.rand(tensor.shape, generator=_generator(tensor, options.get("seed", SEED))) < density
            total.add_((tensor - base).mul_(mask), alpha=coefficient / density)
    return total


def _generator(tensor: Tensor, seed: float) -> torch.Generator:
    contents = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)
    return torch.Generator().manual_seed(zlib.crc32(contents.data, int(seed)))


@register(
    "slerp",
    "on the arc from the first file's tensor to the second's, for two files",
    "Animating rotation with quaternion curves, Shoemake 1985",
    statistics=weighted,
    pair=True,
)
def slerp(
    tensors: Sequence[Tensor],
    coefficients: Sequence[float],
    base: Tensor | None = None,
    options: Mapping[str, float] | None = None,
) -> Tensor:
    """Spherical interpolation of two tensors, each taken as one long vector; the second's coefficient is the way.

    Tensors that are almost parallel, opposite or zero are averaged.
    """
    if len(tensors) != 2 or 0 in coefficients:
        return weighted(tensors, coefficients)
    one, two = tensors[0], tensors[1]
    lengths = math.sqrt(_dot(one, one)) * math.sqrt(_dot(two, two))
    cosine = _dot(one, two) / lengths if lengths else 1.0
    if not abs(cosine) < PARALLEL:
        return weighted(tensors, coefficients)
    angle = math.acos(cosine)
    parts = [math.sin(coefficient * angle) / math.sin(angle) for coefficient in coefficients]
    return (one * parts[0]).add_(two, alpha=parts[1])


def _dot(one: Tensor, two: Tensor) -> float:
    """The dot product in double precision: squares of small numbers vanish in float32."""
    pairs = zip(one.reshape(-1).split(BLOCK), two.reshape(-1).split(BLOCK), strict=True)
    return sum(float(torch.dot(part.double(), other.double())) for part, other in pairs)
