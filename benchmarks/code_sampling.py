"""How many codes of pictures are drawn in a second, with the decoder's cache and without it?

Both ways sample with the same weights, the same captions and the same seed, in turns in this process, in fp32:
"cached" reads one new position at each step, "recomputed" calls the decoder without a cache on all codes drawn so far.
Prints JSON lines; "equal_codes" is the share of codes that both ways drew, which rounding may keep below 1. Without a
cache 1,024 codes take long: `--codes 256` shows as much in a sixteenth of the time, with a smaller ratio.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from beam_search import dictionary_of
from common import (
    BOS,
    FIRST_WORD,
    PAD,
    RELEASED_FLAGS,
    add_common_options,
    fill,
    in_turns,
    ratio,
    report,
    report_machine,
    spread,
    timed,
)

CODES = 8192
SOURCE = 20
"""Tokens of "what is the complete image? caption: ..." with its start and end symbols."""
WORDS = {"tiny": 480, "base": 50265}
"""Symbols before the first code."""
BINS = 1000
PIXELS = 8
"""A code stands for so many pixels along a side."""


class Forgetful(nn.Module):
    """A decoder that reads everything again at every step; knows what the generator asks of a decoder."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder, self.output_projection = decoder, decoder.output_projection
        self.output_layer, self.max_positions = decoder.output_layer, decoder.max_positions

    def forward(self, tokens: Tensor, incremental_state: Any = None, **more: Any) -> Any:
        return self.decoder(tokens, incremental_state=None, **more)

    def reorder_incremental_state(self, *_: Any, **__: Any) -> None:
        """There is nothing to reorder."""

    def select_sentences(self, *_: Any) -> None:
        """There is nothing to select from."""


class WithoutCache(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, Forgetful(model.decoder)


class Sampler:
    """One way to sample; remembers what it drew last."""

    def __init__(self, model: nn.Module, dictionary: Any, args: argparse.Namespace, sample: dict[str, Any]) -> None:
        from unival_plugin.generation.generator import SequenceGenerator

        first = WORDS[args.arch]
        self.generator = SequenceGenerator(
            [model],
            dictionary,
            beam_size=args.pictures,
            min_len=args.codes,
            max_len_b=args.codes,
            sampling=True,
            sampling_topk=args.topk,
            gen_code=True,
            constraint_range=f"{first},{first + CODES}",
        )
        self.sample, self.seed, self.clock = sample, args.seed, args.clock

    def __call__(self) -> None:
        torch.manual_seed(self.seed)
        self.drawn = self.generator.generate(None, self.sample)

    def seconds(self) -> float:
        return timed(self, self.clock)

    def codes(self) -> Tensor:
        """All drawn codes in one row."""
        return torch.cat([hypothesis["tokens"][:-1] for hypotheses in self.drawn for hypothesis in hypotheses])


def build(args: argparse.Namespace) -> Any:
    """The network with made weights; the picture trunk, which reads nothing here, is a small one."""
    import unival_plugin  # noqa: F401  (mends fairseq first)
    from unival_plugin.unival.model.config import from_preset
    from unival_plugin.unival.model.registration import UnIVALModel

    side = math.isqrt(args.codes - 1) + 1
    flags = {**RELEASED_FLAGS, "image_encoder_name": "timm_tiny", "code_image_size": side * PIXELS}
    model = UnIVALModel(from_preset(f"unival_{args.arch}", flags), WORDS[args.arch] + CODES + BINS, PAD)
    fill(model, args.seed)
    return model.eval()


def captions(args: argparse.Namespace) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(args.seed)
    tokens = torch.randint(FIRST_WORD, WORDS[args.arch], (args.captions, SOURCE), generator=generator)
    tokens[:, 0] = BOS
    return {"net_input": {"src_tokens": tokens, "src_lengths": torch.full((args.captions,), SOURCE)}}


def compare(args: argparse.Namespace) -> None:
    model, sample = build(args), captions(args)
    dictionary = dictionary_of(WORDS[args.arch] + CODES + BINS)
    cached, recomputed = Sampler(model, dictionary, args, sample), None
    ways = {"cached": cached.seconds}
    if not args.cached_only:
        recomputed = Sampler(WithoutCache(model), dictionary, args, sample)
        ways["recomputed"] = recomputed.seconds
    seconds = in_turns(args.rounds, ways)
    count = args.captions * args.pictures * args.codes
    values: dict[str, Any] = {
        "codes_per_second": {name: spread((count / each for each in times), 1) for name, times in seconds.items()}
    }
    if recomputed is not None:
        values["recomputed_by_cached"] = ratio(seconds["recomputed"], seconds["cached"])
        values["equal_codes"] = round(float(cached.codes().eq(recomputed.codes()).float().mean()), 4)
    report(
        question="code sampling",
        arch=args.arch,
        captions=args.captions,
        pictures=args.pictures,
        codes=args.codes,
        seconds={name: spread(times) for name, times in seconds.items()},
        **values,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_options(parser, rounds=2, reference=False)
    parser.add_argument("--arch", default="tiny", choices=sorted(WORDS))
    parser.add_argument("--captions", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=4, help="pictures of a caption, drawn together")
    parser.add_argument("--codes", type=int, default=1024, help="codes of a picture, at most 1024")
    parser.add_argument("--topk", type=int, default=256, help="draw among so many of the most likely codes")
    parser.add_argument("--cached-only", action="store_true", help="leave out the way without a cache")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report_machine(args.clock)
    compare(args)


if __name__ == "__main__":
    main()
