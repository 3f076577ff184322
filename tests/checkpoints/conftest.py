"""A released-style checkpoint and a picture; makes the command lines of the end-to-end tests importable."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from made_files import released_state

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))


@pytest.fixture(scope="session")
def released(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released-style file of task ``caption``."""
    path = tmp_path_factory.mktemp("released") / "caption.pt"
    torch.save(released_state(digits), path)
    return path


@pytest.fixture(scope="session")
def picture(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture file."""
    path = tmp_path_factory.mktemp("picture") / "digit.png"
    shutil.copy(sorted((digits / "pictures").glob("*.png"))[0], path)
    return path
