"""Fixtures that several test folders share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def gpt2_bpe_dir() -> Path:
    """Folder with GPT-2's encoder.json, vocab.bpe and fairseq's dict.txt; the test is skipped without them."""
    folder = Path(os.environ.get("UNIVAL_BPE_DIR", ROOT.parent / "shared" / "bpe" / "gpt2"))
    if not all((folder / name).is_file() for name in ("encoder.json", "vocab.bpe", "dict.txt")):
        pytest.skip("needs GPT-2's BPE files: set UNIVAL_BPE_DIR to their folder")
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small digits data set: train_1.tsv, train_2.tsv (45 rows each), val.tsv (13), test.tsv (14), digits.model."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    rows = ["--train-rows", "45", "--val-rows", "13", "--test-rows", "14", "--epoch-files", "2", "--pictures", "5"]
    command = [sys.executable, str(ROOT / "dataset_tools" / "digits.py"), "--output", str(folder), *rows]
    subprocess.run(command, check=True, capture_output=True)
    return folder
