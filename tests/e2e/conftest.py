"""Data for the end-to-end tests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import Data, checkpoint, copy_with, succeed, train

NUMBERS = [b"one", b"two", b"three"]


def _number_of_digits(_: int, cells: list[bytes]) -> list[bytes]:
    cells[2] = b"a " + NUMBERS[cells[3].count(b"&&")]
    return cells


@pytest.fixture(scope="session")
def data(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The small digits set with captions that tell only the number of digits, some of which are learnt in seconds."""
    folder = tmp_path_factory.mktemp("numbers")
    for name in ("train_1.tsv", "train_2.tsv", "val.tsv"):
        copy_with(digits / name, folder / name, _number_of_digits)
    shutil.copy(digits / "digits.model", folder)
    return Data(folder)


@pytest.fixture(scope="session")
def pretrained(data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Weights and options of a short training."""
    folder = tmp_path_factory.mktemp("pretrained")
    succeed(train(data, folder, "--max-update", "3", "--seed", "7", "--disable-validation"))
    state = checkpoint(folder / "checkpoint_last.pt")
    shutil.rmtree(folder)
    return {"model": state["model"], "cfg": state["cfg"]}
