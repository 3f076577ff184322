"""Training that starts from the weights of a file (``--init-from``), and what becomes of the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from commands import Data, checkpoint, succeed, train, validate


def test_the_average_of_weights_starts_from_the_file_and_validation_does_not_need_it(
    data: Data, pretrained: dict[str, Any], tmp_path: Path
) -> None:
    file, folder = tmp_path / "pretrained.pt", tmp_path / "run"
    torch.save(pretrained, file)
    # fairseq makes the average after the first update; a learning rate of zero shows what it starts from
    still = ["--store-ema", "--ema-decay", "1.0", "--lr", "0", "--max-update", "2", "--disable-validation"]
    outcome = succeed(train(data, folder, "--init-from", str(file), *still))
    assert f"--init-from {file} (UnIVAL): " in outcome.stdout + outcome.stderr, outcome.text
    state = checkpoint(folder / "checkpoint_last.pt")
    names = [key for key in pretrained["model"] if key.endswith(("embed_tokens.weight", "q_proj.weight", "fc1.bias"))]
    for kept in (state["model"], state["extra_state"]["ema"]):
        assert all(torch.equal(kept[name], pretrained["model"][name]) for name in names)

    file.unlink()
    succeed(validate(data, folder / "checkpoint_last.pt"))
