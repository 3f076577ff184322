"""fairseq-train that also notes, per process, which rows each step held and the weights of every epoch.

Run by torchrun in the place of fairseq-train; writes ``rank<R>.json`` into the folder ``UNIVAL_OBSERVED``.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from fairseq_cli import train
from fairseq_cli.train import Trainer

steps: list[list[list[str]]] = []
hashes: list[str] = []
stock_step, stock_iterator = Trainer.train_step, Trainer.get_train_iterator


def step(self: Trainer, samples: list[Any], *args: Any, **kwargs: Any) -> Any:
    """Notes the ids of every batch of every step."""
    for sample in samples:
        steps.append([part["id"].tolist() for part in (sample if isinstance(sample, list) else [sample])])
    return stock_step(self, samples, *args, **kwargs)


def begin_epoch(self: Trainer, epoch: int, *args: Any, **kwargs: Any) -> Any:
    """fairseq asks for the iterator of an epoch before it and, for the one after the last, at the end."""
    digest = hashlib.sha256()
    for weight in self.model.parameters():  # no statistics of batch norm: every process has its own
        digest.update(weight.detach().numpy().tobytes())
    hashes.append(digest.hexdigest())
    return stock_iterator(self, epoch, *args, **kwargs)


Trainer.train_step, Trainer.get_train_iterator = step, begin_epoch
train.cli_main()
target = Path(os.environ["UNIVAL_OBSERVED"]) / f"rank{os.environ['RANK']}.json"
target.write_text(json.dumps({"steps": steps, "weights": hashes}))
