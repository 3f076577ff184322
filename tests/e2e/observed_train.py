"""fairseq-train that also notes, per process, which rows it trained on and with which weights it ended.

Run by torchrun: ``observed_train.py FOLDER <arguments of fairseq-train>``; writes ``FOLDER/rank<R>.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from fairseq_cli import train
from fairseq_cli.train import Trainer

folder = Path(sys.argv.pop(1))
seen: list[tuple[int, str]] = []
hashes: list[str] = []
stock_step, stock_iterator = Trainer.train_step, Trainer.get_train_iterator


def step(self: Trainer, samples: list[Any], *args: Any, **kwargs: Any) -> Any:
    epoch = self._epoch_of_rows
    seen.extend((epoch, str(row)) for sample in samples for row in sample["id"])
    return stock_step(self, samples, *args, **kwargs)


def begin_epoch(self: Trainer, epoch: int, *args: Any, **kwargs: Any) -> Any:
    """fairseq asks for the iterator of an epoch before it and, for the one after the last, at the end."""
    self._epoch_of_rows = epoch
    digest = hashlib.sha256()
    for value in self.model.state_dict().values():
        digest.update(value.numpy().tobytes())
    hashes.append(digest.hexdigest())
    return stock_iterator(self, epoch, *args, **kwargs)


Trainer.train_step, Trainer.get_train_iterator = step, begin_epoch
train.cli_main()
(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps({"seen": seen, "weights": hashes}))
