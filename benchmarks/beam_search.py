"""How much faster are beam-5 captions than with stock fairseq's generator around the same network?

Both generators search with the same weights and the same pictures, in turns in this process, in fp32, and must find the
same tokens and scores. Without n-gram blocking, because stock's blocker blocks nothing. Prints JSON lines; "encoder" is
the part of stock's search before the first step, "stock_with_our_kernels" is stock's generator with the matrix products
that ours uses: what is left is won by the search itself. The second network's row of ``</s>`` is scaled so that
hypotheses end at different steps.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import (
    BOS,
    EOS,
    FIRST_WORD,
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
from reference import Reference

SOURCE = 8
"""Tokens of "what does the image describe?" between its start and end symbols."""


def dictionary_of(size: int) -> Any:
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for index in range(FIRST_WORD, size):
        dictionary.add_symbol(f"w{index}")
    return dictionary


class Search:
    """One way to search; remembers what it found last."""

    def __init__(self, generate: Any, clock: str) -> None:
        self.generate, self.clock = generate, clock

    def __call__(self) -> None:
        self.found = self.generate()

    def seconds(self) -> float:
        return timed(self, self.clock)


def assert_same(ours: list[Any], stock: list[Any]) -> None:
    for mine, theirs in zip(ours, stock, strict=True):
        assert [h["tokens"].tolist() for h in mine] == [h["tokens"].tolist() for h in theirs], "different tokens"
        for a, b in zip(mine, theirs, strict=True):
            assert abs(float(a["score"]) - float(b["score"])) < 1e-4, "different scores"
            torch.testing.assert_close(a["positional_scores"], b["positional_scores"], atol=1e-4, rtol=0)


def compare(args: argparse.Namespace, model: Any, dictionary: Any, size: int, early_ends: bool) -> None:
    from fairseq.sequence_generator import SequenceGenerator as StockGenerator

    from unival_plugin.generation.generator import SequenceGenerator
    from unival_plugin.modules.cpu_kernels import fast_cpu_kernels

    batch = picture_batch(args.seed, args.batch_size, size, SOURCE, 1, len(dictionary))
    sample = {"net_input": batch}
    options = {"beam_size": args.beam, "max_len_b": args.max_len}
    ours = Search(partial(SequenceGenerator([model], dictionary, **options).generate, None, sample), args.clock)
    stock_generate = StockGenerator([model], dictionary, **options).generate
    stock = Search(partial(stock_generate, [model], sample, bos_token=BOS), args.clock)

    def with_our_kernels() -> Any:
        with fast_cpu_kernels():
            return stock.generate()

    helped = Search(with_our_kernels, args.clock)
    inputs = {k: v for k, v in batch.items() if k != "prev_output_tokens"}
    encode = Search(torch.no_grad()(partial(model.encoder, **inputs)), args.clock)
    ways = {"encoder": encode.seconds, "ours": ours.seconds, "stock": stock.seconds}
    ways["stock_with_our_kernels"] = helped.seconds
    reference = start_reference(args, model, size)
    if reference is not None:
        ways["reference"] = lambda: reference.ask()["seconds"]
    seconds = in_turns(args.rounds, ways)
    assert_same(ours.found, stock.found)
    values: dict[str, Any] = {name: spread(each) for name, each in seconds.items()}
    values["stock_by_ours"] = ratio(seconds["stock"], seconds["ours"])
    values["stock_with_our_kernels_by_ours"] = ratio(seconds["stock_with_our_kernels"], seconds["ours"])
    if reference is not None:
        values["reference_by_ours"] = ratio(seconds["reference"], seconds["ours"])
        values["reference_finds_the_same"] = reference.ask()["tokens"] == [
            [h["tokens"].tolist() for h in hypotheses] for hypotheses in ours.found
        ]
        reference.close()
    lengths = [len(h["tokens"]) for hypotheses in ours.found for h in hypotheses]
    report(
        question="beam search",
        arch=args.arch,
        pixels=size,
        batch=args.batch_size,
        early_ends=early_ends,
        lengths=[min(lengths), max(lengths)],
        seconds=values,
    )


def start_reference(args: argparse.Namespace, model: Any, size: int) -> Reference | None:
    if not args.reference:
        return None
    settings = {
        "question": "generate",
        "arch": args.arch,
        "vocabulary": args.vocabulary,
        "size": size,
        "batch": args.batch_size,
        "source": SOURCE,
        "beam": args.beam,
        "max_len": args.max_len,
        "threads": args.threads,
        "seed": args.seed,
        "clock": args.clock,
    }
    reference = Reference(args.reference, args.reference_python, settings, model.state_dict())
    if reference.why_not:
        report(reference=f"not runnable: {reference.why_not}")
        return None
    return reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_options(parser, rounds=5)
    parser.add_argument("--arch", default="unival_base", choices=sorted(VOCABULARY))
    parser.add_argument("--patch-image-size", type=int, nargs="+", default=[224, 384, 480])
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--max-len", type=int, default=16, help="tokens before the end symbol")
    parser.add_argument("--vocabulary", type=int, help="symbols (default: the published size)")
    parser.add_argument("--end-scale", type=float, default=-4.5, help="factor of the end symbol's row, second network")
    args = parser.parse_args()
    args.vocabulary = args.vocabulary or VOCABULARY[args.arch]
    torch.set_num_threads(args.threads)
    report_machine(args.clock)
    model = build_model(args.arch, args.vocabulary, args.seed).eval()
    dictionary = dictionary_of(args.vocabulary)
    for early_ends in (False, True):
        if early_ends:
            model.encoder.embed_tokens.weight.data[EOS] *= args.end_scale
        for size in args.patch_image_size:
            compare(args, model, dictionary, size, early_ends)


if __name__ == "__main__":
    main()
