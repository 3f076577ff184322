"""Closed sets of answers: prompts of the decoder, and masks of what may follow.

Legend: T target length, V vocabulary, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..modules.trie import AnswerTrie
from .batching import collate_tokens
from .samples import Example, Sample, SampleEncoder
from .text import TextEncoder

PROMPT_TYPES = ("none", "src", "prev_output")
SEPARATOR, MARK = "&&", "|!+"


class AnswerSet:
    """Answers as token numbers and as a trie.

    Args:
        answers: the texts; each is encoded with a space in front.
        text: tokenizer and dictionary.
    """

    def __init__(self, answers: Sequence[str], text: TextEncoder) -> None:
        self.answers, self.text = list(answers), text

    def __reduce__(self) -> tuple[Any, ...]:
        return AnswerSet, (self.answers, self.text)

    @cached_property
    def tokens(self) -> list[list[int]]:
        """Token numbers of every answer, without start and end symbol."""
        return [self.text.encode(f" {answer}").tolist() for answer in self.answers]

    @cached_property
    def trie(self) -> AnswerTrie:
        """The set as a trie."""
        return AnswerTrie(self.tokens, self.text.dictionary.eos())

    def check(self, answer: str, where: str) -> None:
        """Whether an answer can be learned.

        Raises:
            DataError: it is not in the set.
        """
        if answer not in self._known:
            raise DataError(
                f"{where}: the answer {answer[:40]!r} is not among the {len(self.answers)} answers of the set; add it "
                "(--ans2label-file), correct it, or leave such rows out (--on-bad-row skip counts them)"
            )

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(answer.strip() for answer in self.answers)

    def allowed(self, answer: Tensor) -> Tensor:
        """What may follow each beginning of an answer: bool (len(answer) + 1, V).

        An answer that is not in the set, as evaluation may meet, is unbound: its loss would not be a number otherwise.
        """
        path = torch.cat([answer.new_zeros(1), answer])  # the first entry is not read
        nodes = [torch.zeros(1, dtype=torch.int64)]
        for symbol in path[1:]:
            nodes.append(self.trie.follow(nodes[-1], symbol[None]))
        rows, edges = self.trie.edges_from(torch.cat(nodes))
        mask = torch.zeros(len(nodes), len(self.text.dictionary), dtype=torch.bool)
        mask[rows, self.trie.tokens[edges]] = True
        targets = torch.cat([answer, answer.new_tensor([self.text.dictionary.eos()])])
        if not bool(mask[torch.arange(len(targets)), targets].all()):
            mask.fill_(True)
        return mask


def parse_references(cell: str, where: str) -> dict[str, float]:
    """Answers with their confidences from ``conf|!+answer&&conf|!+answer``.

    Raises:
        DataError: another format.
    """
    references = {}
    for part in cell.split(SEPARATOR):
        confidence, mark, answer = part.partition(MARK)
        try:
            references[answer.strip()] = float(confidence)
        except ValueError:
            mark = ""
        if not mark or not answer.strip():
            raise DataError(f"{where}: {part[:40]!r} is no answer; needs confidence{MARK}answer, joined by {SEPARATOR}")
    return references


@dataclass
class AnswerEncoder(SampleEncoder):
    """Examples whose target is one of a set of answers.

    Adds to a sample ``decoder_prompt`` int64 (the tokens before the answer, start symbol included) and
    ``constraint_mask`` bool (T, V). ``extras`` may hold ``ref_dict`` (answer -> score) and ``conf`` float32 (1,).

    Args:
        base: how to encode everything else.
        answers: the set; None: every answer is possible.
        prompt_type: ``none`` (start symbol), ``src`` (the whole source) or ``prev_output`` (the source without end
            symbol).
    """

    base: SampleEncoder
    answers: Optional[AnswerSet]
    prompt_type: str

    def __post_init__(self) -> None:
        super().__init__(self.base.text, self.base.medium)

    def texts(self, example: Example) -> Sample:
        """As the base, the answer behind the decoder's prompt; the prompt is no target."""
        sample = super().texts(example)
        source, answer = sample["source"], sample["target"][:-1]
        prompt = {"none": source[:1], "src": source, "prev_output": source[:-1]}[self.prompt_type]
        before = prompt.new_full((len(prompt) - 1,), self.text.dictionary.pad())
        sample["target"] = torch.cat([before, sample["target"]])
        sample["prev_output_tokens"] = torch.cat([prompt, answer])
        sample["decoder_prompt"] = prompt
        if self.answers is not None:
            allowed = self.answers.allowed(answer)
            sample["constraint_mask"] = torch.cat([allowed.new_zeros(len(before), allowed.shape[1]), allowed])
        return sample


def collate_answers(samples: Sequence[Sample], pad: int) -> dict[str, Any]:
    """What batches of answers have beside the common keys, as far as the samples have it.

    Returns:
        ``ref_dict`` object array (B,), ``conf`` float32 (B,), ``constraint_masks`` bool (B, T, V) with padding True,
        ``decoder_prompts`` object array (B,) of lists, ``prefix_tokens`` int64 (B, P): the prompts without their start
        symbol, padded on the right.
    """
    batch: dict[str, Any] = {}
    first = samples[0]
    if "ref_dict" in first:
        batch["ref_dict"] = _objects([sample["ref_dict"] for sample in samples])
    if "conf" in first:
        batch["conf"] = torch.cat([sample["conf"] for sample in samples])
    if "constraint_mask" in first:
        batch["constraint_masks"] = collate_tokens([sample["constraint_mask"] for sample in samples], True)
    if "decoder_prompt" in first:
        prompts = [sample["decoder_prompt"] for sample in samples]
        batch["decoder_prompts"] = _objects([prompt.tolist() for prompt in prompts])
        batch["prefix_tokens"] = collate_tokens([prompt[1:] for prompt in prompts], pad)
    return batch


def _objects(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
