"""The shell scripts: their help, their errors, and a training and an evaluation through them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("common.sh", "digits.sh")
SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "run_scripts").rglob("*.sh") if path.name not in SHARED
)


def bash(script: str, *settings: str, seconds: int = 300) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / script), *settings]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself(script: str) -> None:
    done = bash(script, "--help")
    assert done.returncode == 0
    assert "usage: bash run_scripts/" in done.stdout


def test_a_missing_input_and_an_unknown_argument_are_named(tmp_path: Path) -> None:
    script = "run_scripts/caption/eval/eval_caption.sh"
    done = bash(script, f"DATA={tmp_path}/none.tsv")
    assert done.returncode == 2
    assert "none.tsv: no such file or folder" in done.stderr
    done = bash(script, "data.tsv")
    assert done.returncode == 2
    assert "unknown argument 'data.tsv'" in done.stderr


@pytest.mark.slow
def test_the_caption_script_trains_and_the_evaluation_script_scores(
    digits: Path, gpt2_bpe_dir: Path, tmp_path: Path
) -> None:
    trained = bash(
        "run_scripts/caption/unival_caption_stage_1.sh",
        f"DATA={digits}/train_1.tsv,{digits}/val.tsv",
        f"BPE_DIR={gpt2_bpe_dir}",
        f"SAVE_DIR={tmp_path}/run",
        "INIT_FROM=",
        "PRECISION=",
        "ARCH=unival_tiny",
        "BATCH_SIZE=16",
        "MAX_EPOCH=1",
        "PATCH_IMAGE_SIZE=32",
        "WORKERS=0",
        "PROCESSES=2",
        "EXTRA=--image-encoder-name timm_tiny --cpu",
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    scored = bash(
        "run_scripts/caption/eval/eval_caption.sh",
        f"DATA={digits}/test.tsv",
        "SELECTED_COLS=0,4,2",
        f"BPE_DIR={gpt2_bpe_dir}",
        f"CHECKPOINT={tmp_path}/run/checkpoint_best.pt",
        f"RESULTS={tmp_path}/results",
        "PATCH_IMAGE_SIZE=32",
        "WORKERS=0",
        "BEAM=2",
        "EXTRA=--cpu",
    )
    assert scored.returncode == 0, scored.stdout + scored.stderr
    assert "14 captions" in scored.stdout
    assert len(json.loads((tmp_path / "results" / "test_predict.json").read_text())) == 14
