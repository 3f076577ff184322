"""Folders that appear when they are complete, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MANIFEST = "manifest.json"


@contextmanager
def complete_folder(output: Path) -> Iterator[Path]:
    """A folder that takes the name ``output`` when the block ends without an error, and vanishes otherwise."""
    scratch = output.with_name(f".{output.name}.tmp-{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if output.exists():
            shutil.rmtree(output)
        scratch.replace(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_free(output: Path, tool: str, overwrite: bool) -> None:
    """Raise FileExistsError if ``output`` exists, unless ``overwrite`` is given and ``tool`` has made it."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(f"{output} exists; choose another folder or add --overwrite")
    if not _made_by(output, tool):
        raise FileExistsError(f"{output} is no earlier build of this tool; it is not overwritten, remove it yourself")


def _made_by(folder: Path, tool: str) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("tool") == tool
