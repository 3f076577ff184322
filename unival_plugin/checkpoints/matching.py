"""Which tensors of several files belong together: the rules about names, shapes and number formats of merging.

* The first file tells the names. A name that another file lacks, or has with another shape, is an error that says so,
  unless a rule for missing names is chosen (:data:`MISSING`).
* Names that only later files have are an error, too, and are left out with the other rules.
* Integers, truth values and complex numbers (counters such as ``num_batches_tracked``, tables of positions) are those
  of the first file, and so are names that are to be skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..errors import CheckpointError
from .reading import printable

MISSING = ("error", "renormalise", "running")
"""Rules for names that a later file lacks: stop; share its coefficient out among the others; UnIVAL's rule, which puts
the sum so far in its place (and takes another shape for a lack)."""

WORDS = ("embed_tokens", "output_projection")
"""Parts of names of tables with a row per symbol of the dictionary."""
SHOWN = 4


@dataclass(frozen=True)
class Row:
    """What belongs to one name.

    Attributes:
        tensors: one per file, None where the name is missing; the first file has it.
        base: the base's tensor, None without a base.
    """

    tensors: tuple[Tensor | None, ...]
    base: Tensor | None = None

    @property
    def first(self) -> Tensor:
        tensor = self.tensors[0]
        assert tensor is not None
        return tensor


@dataclass
class Matched:
    """All names, sorted by what happens to them.

    Attributes:
        rows: to be merged, by name, in the first file's order.
        copied: of the first file because they are no real numbers.
        skipped: of the first file because a pattern says so.
        incomplete: merged although some file lacks them.
        dropped: left out because the first file lacks them.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def match(
    paths: Sequence[Path],
    weights: Sequence[Mapping[str, Tensor]],
    base: tuple[Path, Mapping[str, Tensor]] | None = None,
    missing: str = "error",
    skip: Sequence[str] = (),
) -> Matched:
    """Brings the tensors of several files together.

    Args:
        paths: names of the files, for messages.
        weights: tensors by name, of each file.
        base: the same of the file from which the others were finetuned.
        missing: one of :data:`MISSING`.
        skip: names that a pattern matches at their beginning, or that contain its text, are not merged.

    Raises:
        CheckpointError: names or shapes do not fit together.
    """
    first, found = weights[0], Matched()
    for path, each in zip(paths[1:], weights[1:], strict=True):
        _check_names(paths[0], first, path, each, missing, skip)
        _check_shapes(paths[0], first, path, each, missing, skip)
        found.dropped += [key for key in each if key not in first and key not in found.dropped]
    for key, tensor in first.items():
        left_alone = _skipped(key, skip)
        if not tensor.is_floating_point():
            found.copied.append(key)
        elif left_alone and missing != "running":
            found.skipped.append(key)
        else:
            others = [None if left_alone else _like(tensor, each.get(key)) for each in weights[1:]]
            found.rows[key] = Row((tensor, *others), base[1].get(key) if base else None)
            if None in others:
                (found.skipped if left_alone else found.incomplete).append(key)
    if base:
        _check_base(paths[0], base[0], found.rows)
    return found


def _skipped(key: str, patterns: Sequence[str]) -> bool:
    return any(re.match(pattern, key) or pattern in key for pattern in patterns)


def _like(tensor: Tensor, other: Tensor | None) -> Tensor | None:
    return other if other is not None and other.shape == tensor.shape else None


def _check_names(
    first_path: Path,
    first: Mapping[str, Tensor],
    path: Path,
    each: Mapping[str, Tensor],
    missing: str,
    skip: Sequence[str],
) -> None:
    if missing != "error":
        return
    lacking = _only_in(first, each, skip)
    further = _only_in(each, first, skip)
    if lacking:
        raise CheckpointError(
            f"{path}: lacks {_listed(lacking)}, which {first_path} has; merge files of one architecture, or choose a "
            "rule for missing tensors (--missing renormalise) or leave these alone (--skip)"
        )
    if further:
        raise CheckpointError(
            f"{path}: has {_listed(further)}, which {first_path}, the first file, lacks; merge files of one "
            "architecture, or leave these out (--missing renormalise, or --skip)"
        )


def _only_in(these: Mapping[str, Tensor], others: Mapping[str, Tensor], skip: Sequence[str]) -> list[str]:
    """Names to be merged; integers are the first file's in any case: a frozen batch norm has no counter."""
    return [
        key
        for key, tensor in these.items()
        if key not in others and tensor.is_floating_point() and not _skipped(key, skip)
    ]


def _check_shapes(
    first_path: Path,
    first: Mapping[str, Tensor],
    path: Path,
    each: Mapping[str, Tensor],
    missing: str,
    skip: Sequence[str],
) -> None:
    if missing == "running":
        return
    for key, tensor in first.items():
        other = each.get(key)
        if other is None or other.shape == tensor.shape or _skipped(key, skip):
            continue
        if any(part in key for part in WORDS) and other.shape[1:] == tensor.shape[1:]:
            raise CheckpointError(
                f"{path}: has another dictionary than {first_path}: {key} has {other.shape[0]} rows instead of "
                f"{tensor.shape[0]}; only models of one dictionary can be merged"
            )
        raise CheckpointError(
            f"{path}: {key} is {_shape(other)}, but {_shape(tensor)} in {first_path}; merge files of one architecture, "
            "or leave it alone (--skip)"
        )


def _check_base(first_path: Path, base: Path, rows: Mapping[str, Row]) -> None:
    lacking = [key for key, row in rows.items() if row.base is None]
    if lacking:
        raise CheckpointError(
            f"{base}: lacks {_listed(lacking)}, which {first_path} has; name the base that the files were finetuned "
            "from, or leave these alone (--skip)"
        )
    for key, row in rows.items():
        if row.base is not None and row.base.shape != row.first.shape:
            raise CheckpointError(
                f"{base}: {key} is {_shape(row.base)}, but {_shape(row.first)} in {first_path}; name the base that the "
                "files were finetuned from"
            )


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - SHOWN} more tensors" if len(keys) > SHOWN else ""
    return ", ".join(printable(key) for key in keys[:SHOWN]) + more


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
