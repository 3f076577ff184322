"""The scripts of dataset_tools are no package: make them importable by name, as they are for each other when run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "dataset_tools"))
