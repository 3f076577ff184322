"""The scripts of dataset_tools are no package: make them importable by name, as they are for each other when run."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "dataset_tools"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Folder for what the owners of a data set publish."""
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Folder for the rows that are built."""
    return tmp_path / "output"


@pytest.fixture(scope="session")
def many_scenes():
    """1,500 training scenes of one file."""
    from digits_scenes import SceneMaker, load_source

    maker = SceneMaker(load_source(seed=7), seed=7)
    return [maker.make("train", 1, row) for row in range(1500)]
