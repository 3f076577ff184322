"""How much faster are answers from a set of 3,129 than with stock fairseq's beam search under the same masks?

Ways, in turns in this process, in fp32, with the same weights and pictures: beam search in a trie of the answers
("trie"; "trie_after_softmax" as the original's zero-shot mode), scores of all answers with shared beginnings
("all_candidates"), stock fairseq's beam search with its own masks for prefixes ("stock"), and all answers read one
after the other in chunks of 20 as the original's validation does ("written_out"). The answers are made: one to four
symbols, with beginnings in common as those of VQA v2. Prints JSON lines. Where the masks apply behind the softmax the
two searches must find the same; the search in the trie must find what the best of all scores says unless its beam has
lost it ("agree"). "encoder" and "stock_encoder" are what they do first; "…_behind_the_encoder" are ratios of the rest.
Memory is the peak of a process of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from beam_search import SOURCE, dictionary_of
from common import (
    BOS,
    EOS,
    FIRST_WORD,
    PAD,
    VOCABULARY,
    add_common_options,
    build_model,
    in_own_process,
    in_turns,
    picture_batch,
    ratio,
    report,
    report_machine,
    resident_bytes,
    spread,
    timed,
)

LENGTHS = (0.55, 0.32, 0.11, 0.02)
"""How many of the answers have one, two, three and four symbols."""
WORDS = 2000
CHUNK = 20
WAYS = ("encoder", "stock_encoder", "trie", "trie_after_softmax", "all_candidates", "stock", "written_out")


def made_answers(count: int, vocabulary: int, seed: int) -> list[list[int]]:
    """Different answers; frequent words begin and fill many of them."""
    generator = torch.Generator().manual_seed(seed)
    words = min(WORDS, vocabulary - FIRST_WORD)
    answers: dict[tuple[int, ...], None] = {}
    while len(answers) < count:
        length = int(torch.multinomial(torch.tensor(LENGTHS), 1, generator=generator)) + 1
        ranks = torch.rand(length, generator=generator) ** 1.5 * words
        answers[tuple((FIRST_WORD + ranks.long()).tolist())] = None
    return [list(answer) for answer in answers]


class Question:
    """One network, one batch, one set of answers, and the ways to answer."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from unival_plugin.generation.candidates import CandidateScorer
        from unival_plugin.generation.generator import SequenceGenerator
        from unival_plugin.modules.trie import AnswerTrie

        vocabulary, size = settings["vocabulary"], settings["size"]
        self.model = build_model(settings["arch"], vocabulary, settings["seed"]).eval()
        self.answers = made_answers(settings["answers"], vocabulary, settings["seed"])
        batch = picture_batch(settings["seed"], settings["batch_size"], size, SOURCE, 1, vocabulary)
        self.sample = {"net_input": batch}
        self.prompt = batch["src_tokens"][:, 1 : 1 + settings["prompt"]] if settings["prompt"] else None
        dictionary = dictionary_of(vocabulary)
        options = {"beam_size": settings["beam"], "max_len_b": settings["prompt"] + len(LENGTHS) + 1}
        trie, scorer = AnswerTrie(self.answers, EOS), CandidateScorer(self.answers, EOS)
        ours = SequenceGenerator([self.model], dictionary, normalize_scores=False, **options)
        after = SequenceGenerator([self.model], dictionary, normalize_scores=False, zero_shot=True, **options)
        self.found: dict[str, Any] = {}
        self.ways: dict[str, Callable[[], Any]] = {
            "encoder": self._encode_as_ours,
            "stock_encoder": partial(torch.no_grad()(self.model.encoder), **batch),
            "trie": partial(ours.generate, None, self.sample, self.prompt, trie),
            "all_candidates": partial(scorer.best, [self.model], self.sample, self.prompt, settings["beam"]),
            "stock": self._stock(dictionary, options),
            "written_out": self._written_out,
        }
        if self.prompt is None:  # the original's zero-shot mode compares answers with the prompt included
            self.ways["trie_after_softmax"] = partial(after.generate, None, self.sample, None, trie)

    def run(self, way: str) -> None:
        self.found[way] = self.ways[way]()

    def best(self, way: str) -> list[tuple[list[int], float]]:
        """Answer and score of every row."""
        before = 0 if self.prompt is None or way in ("all_candidates", "written_out") else self.prompt.shape[1]
        return [(row[0]["tokens"][before:-1].tolist(), float(row[0]["score"])) for row in self.found[way]]

    @torch.no_grad()
    def _encode_as_ours(self) -> None:
        from unival_plugin.modules.cpu_kernels import fast_cpu_kernels, have_large_cpu_layers

        with fast_cpu_kernels(have_large_cpu_layers([self.model])):
            self.model.encoder(**self.sample["net_input"])

    def _stock(self, dictionary: Any, options: dict[str, Any]) -> Callable[[], Any]:
        from fairseq.search import BeamSearch, PrefixConstrainedBeamSearch
        from fairseq.sequence_generator import SequenceGenerator as StockGenerator

        tree: dict[int, Any] = {}
        for answer in self.answers:
            node = tree
            for symbol in [*answer, EOS]:
                node = node.setdefault(symbol, {})
        skipped = 1 + (0 if self.prompt is None else self.prompt.shape[1])

        def allowed(_: int, tokens: Tensor) -> Any:
            if len(tokens) < skipped:
                return slice(None)
            node = tree
            for symbol in tokens[skipped:].tolist():
                node = node.get(symbol, {})
            return list(node) or [EOS]

        class Masked(BeamSearch):
            """Stock's search with stock's mask; stock's own pair of them follows too few candidates."""

            mask = PrefixConstrainedBeamSearch.apply_mask
            prefix_allowed_tokens_fn = staticmethod(allowed)

            def step(self, step: int, lprobs: Tensor, scores: Any, prev: Any = None, original: Any = None) -> Any:
                sentences, beam, vocabulary = lprobs.shape
                lprobs += self.mask(lprobs.view(-1, 1, vocabulary), prev, original).view(sentences, beam, vocabulary)
                return super().step(step, lprobs, scores, prev, original)

        generator = StockGenerator(
            [self.model], dictionary, normalize_scores=False, search_strategy=Masked(dictionary), **options
        )
        return partial(generator.generate, [self.model], self.sample, prefix_tokens=self.prompt, bos_token=BOS)

    @torch.no_grad()
    def _written_out(self) -> list[list[dict[str, Any]]]:
        """Every answer in full, a chunk for all sentences at a time, among what the set allows at each place."""
        inputs = {k: v for k, v in self.sample["net_input"].items() if k != "prev_output_tokens"}
        encoder_out = self.model.encoder(**inputs)
        sentences = len(inputs["src_tokens"])
        prompt = inputs["src_tokens"].new_full((sentences, 1), BOS)
        if self.prompt is not None:
            prompt = torch.cat([prompt, self.prompt], dim=1)
        follows: dict[tuple[int, ...], set[int]] = {}
        for answer in self.answers:
            for place, symbol in enumerate([*answer, EOS]):
                follows.setdefault(tuple(answer[:place]), set()).add(symbol)
        scores = []
        for first in range(0, len(self.answers), CHUNK):
            chunk = self.answers[first : first + CHUNK]
            longest = max(map(len, chunk)) + 1
            targets = torch.full((len(chunk), longest), PAD)
            masks = torch.zeros(len(chunk), longest, self.model.decoder.output_projection.weight.shape[0]).bool()
            for row, answer in enumerate(chunk):
                targets[row, : len(answer) + 1] = torch.tensor([*answer, EOS])
                for place in range(len(answer) + 1):
                    masks[row, place, list(follows[tuple(answer[:place])])] = True
            order = torch.arange(sentences).repeat_interleave(len(chunk))
            tokens = torch.cat([prompt[order], targets[:, :-1].repeat(sentences, 1)], dim=1)
            repeated = self.model.encoder.reorder_encoder_out(encoder_out, order)
            logits = self.model.decoder(tokens, encoder_out=repeated)[0][:, prompt.shape[1] - 1 :].float()
            logits.masked_fill_(~masks.repeat(sentences, 1, 1), float("-inf"))
            wanted, log_probs = targets.repeat(sentences, 1), logits.log_softmax(dim=2)
            each = log_probs.gather(2, wanted[:, :, None])[:, :, 0].masked_fill(wanted.eq(PAD), 0)
            scores.append(each.sum(dim=1).view(sentences, -1))
        best = torch.cat(scores, dim=1).max(dim=1)
        return [
            [{"tokens": torch.tensor([*self.answers[number], EOS]), "score": score}]
            for number, score in zip(best.indices.tolist(), best.values, strict=True)
        ]


def peak(way: str, settings: dict[str, Any]) -> float:
    """GB that answering takes on top of the network, batch and answers."""
    torch.set_num_threads(settings["threads"])
    question = Question(settings)
    before = resident_bytes("VmRSS")
    question.run(way)
    return round(max(0, resident_bytes() - before) / 1e9, 2)


def behind(whole: list[float], encoder: list[float]) -> list[float]:
    """Seconds of the search alone."""
    return [seconds - first for seconds, first in zip(whole, encoder, strict=True)]


def same(first: list[tuple[list[int], float]], second: list[tuple[list[int], float]]) -> int:
    """Rows in which two ways give the same answer with the same score."""
    return sum(a == b and abs(x - y) < 1e-3 for (a, x), (b, y) in zip(first, second, strict=True))


def compare(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    question = Question(settings)
    ways = [way for way in WAYS if way in question.ways and way not in args.without]
    seconds = in_turns(args.rounds, {w: partial(timed, partial(question.run, w), args.clock) for w in ways})
    if {"trie_after_softmax", "stock"} <= set(ways):
        agreement = same(question.best("trie_after_softmax"), question.best("stock"))
        assert agreement == args.batch_size, "the two searches found different answers"
    if "written_out" in ways:
        agreement = same(question.best("all_candidates"), question.best("written_out"))
        assert agreement == args.batch_size, "the two ways to score all answers differ"
    memory = {way: in_own_process(peak, way, settings) for way in ways} if args.memory else {}
    ratios = {}
    for slow in ("stock", "written_out"):
        for fast in ("trie", "trie_after_softmax", "all_candidates"):
            if slow in ways and fast in ways:
                ratios[f"{slow}_by_{fast}"] = ratio(seconds[slow], seconds[fast])
                alone = behind(seconds[slow], seconds["stock_encoder"]), behind(seconds[fast], seconds["encoder"])
                ratios[f"{slow}_by_{fast}_behind_the_encoder"] = ratio(*alone)
    pairs = zip(question.best("trie"), question.best("all_candidates"), strict=True)
    report(
        question="answers from a set",
        **{key: settings[key] for key in ("arch", "size", "batch_size", "beam", "prompt", "answers")},
        agree=sum(searched == scored for (searched, _), (scored, _) in pairs),
        seconds={name: spread(each) for name, each in seconds.items()},
        ratios=ratios,
        extra_peak_GB=memory,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_options(parser, rounds=3, reference=False)
    parser.add_argument("--arch", default="unival_base", choices=sorted(VOCABULARY))
    parser.add_argument("--patch-image-size", type=int, default=480)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--answers", type=int, default=3129, help="number of answers")
    parser.add_argument(
        "--prompt", type=int, nargs="+", default=[0, SOURCE - 1], help="symbols that the decoder begins with"
    )
    parser.add_argument("--vocabulary", type=int, help="symbols (default: the published size)")
    parser.add_argument("--memory", action="store_true", help="also the peak of memory, each way in its own process")
    parser.add_argument("--without", nargs="*", default=[], choices=WAYS[5:], help="leave a slow way out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report_machine(args.clock)
    settings = {name: getattr(args, name) for name in ("arch", "batch_size", "beam", "answers", "seed", "threads")}
    settings |= {"vocabulary": args.vocabulary or VOCABULARY[args.arch], "size": args.patch_image_size}
    for prompt in args.prompt:
        compare(args, {**settings, "prompt": prompt})


if __name__ == "__main__":
    main()
