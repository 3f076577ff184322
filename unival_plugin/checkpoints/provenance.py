"""What a merged checkpoint tells about the files that it was made of."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from .mapped import MappedFile
from .merge_methods import METHODS
from .merge_plan import MergePlan
from .reading import sha256

PROVENANCE = "merge"
PROVENANCE_VERSION = 1


def provenance(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a checkpoint's contents tell about the files it was merged of; None if it was not."""
    found = state.get(PROVENANCE)
    return dict(found) if isinstance(found, Mapping) and "files" in found else None


@contextmanager
def checksums(plan: MergePlan) -> Iterator[dict[Path, Future[str]]]:
    """SHA-256 of all files, which other threads compute while the block runs."""
    paths = dict.fromkeys((*plan.paths, *([plan.base] if plan.base else [])))
    stop = threading.Event()
    with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1)) as thread:
        try:
            yield {path: thread.submit(sha256, path, stop) for path in paths}
        finally:
            stop.set()
            thread.shutdown(cancel_futures=True)


def provenance_of(
    plan: MergePlan, sums: Mapping[Path, Future[str]], files: Sequence[MappedFile], report: Mapping[str, Any]
) -> dict[str, Any]:
    """The entry ``merge`` of a result: plain data, which safe reading accepts.

    ``files`` holds path, SHA-256 and coefficient of every file, and ``merge`` of those that were merged themselves;
    ``base`` path and SHA-256; ``tensors`` how many were merged, copied, skipped, incomplete or dropped.
    """
    sources = []
    for file, coefficient in zip(files, plan.weights, strict=True):
        entry = {"path": str(file.path), "sha256": sums[file.path].result(), "coefficient": float(coefficient)}
        before = provenance(file.state)
        sources.append({**entry, PROVENANCE: before} if before else entry)
    return {
        "version": PROVENANCE_VERSION,
        "program": _program(),
        "method": plan.method,
        "files": sources,
        "base": {"path": str(plan.base), "sha256": sums[plan.base].result()} if plan.base else None,
        "options": {**METHODS[plan.method].options, **{name: float(value) for name, value in plan.options.items()}},
        "source": plan.source,
        "missing": plan.missing,
        "skip": list(plan.skip),
        "keep": list(plan.keep),
        "tensors": dict(report),
    }


def _program() -> str:
    try:
        return f"unival-plugin {metadata.version('unival-plugin')}"
    except metadata.PackageNotFoundError:  # run from the source folder
        return "unival-plugin"
