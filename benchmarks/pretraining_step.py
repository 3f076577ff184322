"""What does a step of pretraining gain from looking once at a picture that two samples share?

Both ways compute the same batch, in which every picture is in two rows, as in pretraining: through the trunk once
(``patch_first``) or twice. Forward and backward pass, in turns; the losses must agree. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import (
    VOCABULARY,
    add_common_options,
    build_model,
    in_turns,
    picture_batch,
    ratio,
    report,
    report_machine,
    spread,
    timed,
)
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LARGEST_LOSS_DIFFERENCE = 1e-4
"""Relative."""


def shared_batch(pictures: int, size: int, seed: int, vocabulary: int, device: str) -> dict[str, Tensor]:
    """Twice as many rows as pictures, each two neighbours with the same picture."""
    batch = picture_batch(seed, 2 * pictures, size, source=20, target=12, vocabulary=vocabulary)
    first = torch.arange(2 * pictures) // 2 * 2
    batch["patch_images"] = batch["patch_images"][first]
    return {name: value.to(device) for name, value in {**batch, "patch_first": first}.items()}


def step(model: Any, batch: dict[str, Tensor]) -> float:
    """Loss of a forward and backward pass."""
    model.zero_grad()
    scores = model(**batch)[0].float()
    loss = F.cross_entropy(scores.flatten(0, 1), batch["prev_output_tokens"].flatten())
    loss.backward()
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, rounds=3, reference=False)
    parser.add_argument("--arch", choices=sorted(VOCABULARY), default="unival_base")
    parser.add_argument("--patch-image-size", type=int, default=384)
    parser.add_argument("--pictures", type=int, default=3, help="pictures in a batch; it has twice as many rows")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report_machine(args.clock, args.device)

    vocabulary = VOCABULARY[args.arch]
    model = build_model(args.arch, vocabulary, args.seed).to(args.device).train()
    for module in model.modules():  # the same result every time
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    once = shared_batch(args.pictures, args.patch_image_size, args.seed, vocabulary, args.device)
    ways = {"once": once, "twice": {name: value for name, value in once.items() if name != "patch_first"}}
    losses = {name: step(model, batch) for name, batch in ways.items()}
    difference = abs(losses["once"] - losses["twice"]) / abs(losses["twice"])
    if difference > LARGEST_LOSS_DIFFERENCE:
        raise SystemExit(f"the losses differ: {losses}")
    seconds = in_turns(
        args.rounds,
        {name: lambda batch=batch: timed(lambda: step(model, batch), args.clock) for name, batch in ways.items()},
    )
    sizes = {"arch": args.arch, "size": args.patch_image_size, "pictures": args.pictures, "rows": 2 * args.pictures}
    for name, values in seconds.items():
        report(benchmark="pretraining_step", way=name, **sizes, seconds=spread(values))
    gained = ratio(seconds["twice"], seconds["once"])
    report(benchmark="pretraining_step", **sizes, times_faster=gained, loss_difference=difference)


if __name__ == "__main__":
    main()
