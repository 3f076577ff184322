"""Training with LoRA through the real programs: resume, validation, generation, and a start from an adapter file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Data, checkpoint, differing, generate, succeed, together, train, validate

from unival_cli.main import main

LAST = "checkpoint_last.pt"
LORA = ["--lora-rank", "2", "--lora-dropout", "0.1", "--lora-train", "image_proj"]
EMA = ["--store-ema", "--ema-fp32", "--ema-decay", "0.9", "--find-unused-parameters"]


def convert(*words: str | Path) -> None:
    assert main(["convert", *map(str, words)]) == 0


@pytest.mark.slow
def test_a_training_with_lora_goes_all_the_way(
    data: Data, digits: Path, pretrained: dict[str, Any], tmp_path: Path
) -> None:
    base = tmp_path / "base.pt"
    torch.save(pretrained, base)
    flags = ["--init-from", str(base), *LORA, *EMA, "--save-interval-updates", "3", "--max-update", "6"]
    outcome = succeed(train(data, tmp_path / "whole", *flags))
    assert "encoder.image_proj" in outcome.stdout and "share" in outcome.stdout, outcome.text
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    (tmp_path / "whole" / "checkpoint_1_3.pt").rename(resumed / LAST)
    assert "Loaded checkpoint" in succeed(train(data, resumed, *flags)).stdout
    final, expected = checkpoint(resumed / LAST), checkpoint(tmp_path / "whole" / LAST)
    for part in ("model", "last_optimizer_state"):
        assert differing(final[part], expected[part]) == []
    assert differing(final["extra_state"]["ema"], expected["extra_state"]["ema"]) == []

    moved = [
        key
        for key, value in pretrained["model"].items()
        if not torch.equal(value, final["model"][key]) and "running" not in key and "num_batches" not in key
    ]
    assert moved and all(key.startswith("encoder.image_proj.") for key in moved)
    updates = [key for key in final["model"] if "lora_" in key]
    assert len(final["last_optimizer_state"]["state"]) == len(updates) + len(moved)

    adapter, folded, again = tmp_path / "adapter.pt", tmp_path / "folded.pt", tmp_path / "again.pt"
    convert(resumed / LAST, adapter, "--only-trained", "--base", base)
    convert(resumed / LAST, folded, "--fold-adapters")
    convert(base, again, "--adapter", adapter)
    assert differing(checkpoint(again)["model"], dict(final["model"])) == []
    together(generate(data, again, tmp_path / "a"), generate(data, folded, tmp_path / "b"))
    answers = [(tmp_path / name / "valid_predict.json").read_text() for name in "ab"]
    assert answers[0] == answers[1]
    pictures = str(digits / "pictures")
    for name, model in {"whole": [again], "parts": [base, "--adapter", adapter]}.items():
        output = str(tmp_path / f"{name}.jsonl")
        assert main(["predict", pictures, "--output", output, "--device", "cpu", "--path", *map(str, model)]) == 0
    assert (tmp_path / "whole.jsonl").read_text() == (tmp_path / "parts.jsonl").read_text()

    still = [*LORA, "--init-adapter", str(adapter), "--lr", "0", "--max-update", "1", "--disable-validation"]
    succeed(train(data, tmp_path / "third", "--init-from", str(base), *still))
    third = checkpoint(tmp_path / "third" / LAST)
    assert all(torch.equal(third["model"][key], final["model"][key]) for key in [*updates, *moved])
    adapter.unlink()  # a checkpoint does not need the files that its training started from
    succeed(validate(data, tmp_path / "third" / LAST))
