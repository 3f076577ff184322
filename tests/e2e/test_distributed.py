"""Two processes on the CPU, started by torchrun, make one training."""

from __future__ import annotations

import collections
import json
import socket
from pathlib import Path

import pytest
from commands import SEARCH, Data, checkpoint, copy_with, differing, program, succeed, train, validate

EPOCHS = 2
SCORES = ["--eval-cider", "--eval-args", json.dumps(SEARCH)]


def torchrun(*command: str) -> list[str]:
    """Two processes that run ``command``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [program("torchrun"), "--nproc-per-node", "2", "--master-port", str(port), *command]


@pytest.mark.slow
def test_two_processes_train_on_every_row_once_and_agree(data: Data, tmp_path: Path):
    """Batch norm has fixed statistics here: otherwise every process has its own, also in validation."""
    flags = train(data, tmp_path / "run", "--max-epoch", str(EPOCHS), "--freeze-resnet", *SCORES)[1:]
    observed = str(Path(__file__).with_name("observed_train.py"))
    outcome = succeed(torchrun(observed, str(tmp_path), *flags))
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]

    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert len(set(ranks[0]["weights"])) == EPOCHS + 1  # they change from epoch to epoch
    for epoch in range(1, EPOCHS + 1):
        seen = collections.Counter(row for rank in ranks for e, row in rank["seen"] if e == epoch)
        rows = data.file(f"train_{epoch}.tsv").read_text().splitlines()
        assert seen == collections.Counter(row.split("\t")[0] for row in rows)
    assert all(len({row for _, row in rank["seen"]}) >= 2 * 22 for rank in ranks)  # both have worked

    alone = succeed(validate(data, tmp_path / "run" / "checkpoint_last.pt"))
    for name, tolerance in (("cider", 1e-9), ("exact_match", 1e-9), ("loss", 2e-3), ("nll_loss", 2e-3)):
        together = float(outcome.last("valid", f"valid_{name}"))
        assert float(alone.last("valid", f"valid_{name}")) == pytest.approx(together, abs=tolerance)


def test_a_file_shorter_than_one_step_of_all_processes_ends_too(data: Data, tmp_path: Path):
    """One process finds one row less than a batch, the other none: it takes part with a batch that counts nothing."""
    few = Data(tmp_path)
    for name, rows in (("train_1.tsv", 5), ("train_2.tsv", 1), ("val.tsv", 1)):
        copy_with(data.file(name), few.file(name), lambda _, cells: cells, rows)
    few.file("digits.model").write_bytes(data.file("digits.model").read_bytes())
    command = train(few, tmp_path / "run", "--max-epoch", "2", *SCORES)
    outcome = succeed(torchrun("--no-python", *command))
    assert outcome.stdout.count("done training") == 1  # one training, not two
    assert [record["train_num_updates"] for record in outcome.logged("train")] == ["1", "2"]
    assert float(outcome.last("valid", "valid_nsentences")) == 1


@pytest.mark.slow
def test_two_processes_resume_and_start_from_a_file(data: Data, tmp_path: Path):
    """All processes get what the first one has read, options included, whatever torch thinks of those."""
    last, length = "checkpoint_last.pt", ["--max-epoch", "1", "--update-freq", "2", "--disable-validation"]
    succeed(train(data, tmp_path / "start", *length, "--max-update", "1"))
    start = ["--finetune-from-model", str(tmp_path / "start" / last)]
    once = torchrun("--no-python", *train(data, tmp_path / "once", *start, *length))
    assert "Loaded checkpoint" in succeed(once).stdout
    command = train(data, tmp_path / "twice", *start, *length)
    succeed(torchrun("--no-python", *command, "--stop-time-hours", "1e-9"))  # over after the first update
    first = checkpoint(tmp_path / "twice" / last)
    assert first["optimizer_history"][-1]["num_updates"] == 1
    succeed(torchrun("--no-python", *command))
    expected, found = (checkpoint(tmp_path / name / last) for name in ("once", "twice"))
    assert found["optimizer_history"][-1]["num_updates"] > 2
    assert differing(found["model"], expected["model"]) == []
    assert differing(found["last_optimizer_state"], expected["last_optimizer_state"]) == []
