"""From an example (texts and a picture, film or sound) to tensors, and from tensors to a batch.

Legend: B batch, S longest source, L longest target, s picture side and p frame side in pixels, T frames, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from .batching import collate_tokens
from .media import Media, Medium, Randomness
from .text import TextEncoder

Sample = dict[str, Any]
Batch = dict[str, Any]
MEDIA = {"patch_image": "patch_images", "patch_video": "patch_videos", "patch_audio": "patch_audios"}
"""Names in a sample, and in a batch."""
PER_SAMPLE = {"patch_mask": "patch_masks", "patch_type": "patch_types", "code_mask": "code_masks"}
"""The same of what all samples of a batch have, or none."""


@dataclass
class Example:
    """What a row means, before any tokenizer or decoder has seen it.

    Attributes:
        id: identifier that result files repeat.
        source: prompt, given to the encoder.
        target: text to be generated; empty when only predicting.
        media: the picture, film or sound.
        where: its place for messages.
        suffix: text behind the prompt that is tokenized by itself.
        symbols: the target is symbols of the dictionary, separated by spaces, instead of text.
        extras: what the sample has beside, by key.
    """

    id: str
    source: str
    target: str
    media: Media
    where: str
    suffix: str = ""
    symbols: bool = False
    extras: dict[str, Any] = field(default_factory=dict)


class Query(Protocol):
    """From a picture, film or sound, a text and what else is told to the encoder to an example without target."""

    def __call__(self, media: Media, text: str, where: str, context: str = "") -> Example:
        """The example, whose id is ``where``; raises DataError where the text cannot be used."""


class SampleEncoder:
    """Examples to tensors.

    Args:
        text: tokenizer and dictionary.
        medium: how to read pictures, films or sounds.
    """

    def __init__(self, text: TextEncoder, medium: Medium) -> None:
        self.text, self.medium = text, medium

    def __call__(self, example: Example, rng: Randomness) -> Sample:
        """Tensors of one example.

        Returns:
            ``id`` str, ``source`` int64 (S,) with start and end symbol, ``target`` int64 (L,) with end symbol,
            ``prev_output_tokens`` int64 (L,) with start symbol, what :meth:`Medium.sample` gives, and the example's
            extras.

        Raises:
            DataError: the picture, film or sound cannot be used; names its place.
        """
        media = self.medium.sample(example.media, example.where, rng)
        return {"id": example.id, **self.texts(example), **media, **example.extras}

    def warm_up(self) -> None:
        """Imports and compiles what reading needs; called before worker processes are forked."""
        self.medium.warm_up()

    def texts(self, example: Example) -> Sample:
        """``source``, ``target`` and ``prev_output_tokens``."""
        dictionary = self.text.dictionary
        target = self.text.encode_symbols(example.target) if example.symbols else self.text.encode(example.target)
        parts = [self.text.encode(example.source, bos=True)]
        if example.suffix:
            parts.append(self.text.encode(example.suffix))
        return {
            "source": torch.cat([*parts, target.new_tensor([dictionary.eos()])]),
            "target": torch.cat([target, target.new_tensor([dictionary.eos()])]),
            "prev_output_tokens": torch.cat([target.new_tensor([dictionary.bos()]), target]),
        }


def collate(samples: Sequence[Sample], pad: int) -> Batch:
    """Stacks samples.

    Returns:
        ``id`` numpy str (B,), ``nsentences`` int, ``ntokens`` int (target tokens without padding), ``target`` int64
        (B, L), and ``net_input`` with ``src_tokens`` int64 (B, S), ``src_lengths`` int64 (B,), ``prev_output_tokens``
        int64 (B, L), ``patch_images`` float32 (B, 3, s, s), ``patch_masks`` bool (B,), ``patch_types`` int64 (B,): 0
        picture, 1 film, 2 sound; films have ``patch_videos`` float32 (F, 3, T, p, p), sounds ``patch_audios`` float32
        (A, N), with rows for the F films and A sounds of the batch only, in their order. Texts are padded on the right.
        Unlike the original's, no batch has frames or waveforms of zeros, which the network would ignore. Where samples
        have the very same tensor for a medium, ``patch_first`` int64 (B,) tells the first row that has it, so that the
        network need not look at it twice. Samples of text alone have none of these; those whose target is codes of a
        picture give ``code_masks`` bool (B,).
    """
    source = collate_tokens([sample["source"] for sample in samples], pad)
    target = collate_tokens([sample["target"] for sample in samples], pad)
    return {
        "id": np.array([sample["id"] for sample in samples]),
        "nsentences": len(samples),
        "ntokens": int(target.ne(pad).sum()),
        "net_input": {
            "src_tokens": source,
            "src_lengths": source.ne(pad).sum(dim=1),
            "prev_output_tokens": collate_tokens([sample["prev_output_tokens"] for sample in samples], pad),
            **{
                many: torch.stack([sample[one] for sample in samples if one in sample])
                for one, many in MEDIA.items()
                if any(one in sample for sample in samples)
            },
            **_shared(samples),
            **{
                many: torch.cat([sample[one] for sample in samples])
                for one, many in PER_SAMPLE.items()
                if one in samples[0]
            },
        },
        "target": target,
    }


def _shared(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    if "patch_type" not in samples[0]:
        return {}
    own = [id(sample[tuple(MEDIA)[int(sample["patch_type"])]]) for sample in samples]
    return {"patch_first": torch.tensor([own.index(one) for one in own])} if len(set(own)) < len(own) else {}
