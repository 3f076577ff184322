"""From an example (texts and a picture) to tensors, and from tensors to a batch.

Legend: B batch, S longest source, T longest target, s picture side in pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Protocol, Union

import numpy as np
import torch
from PIL import Image

from .batching import collate_tokens
from .image import DEFAULT_LIMITS, EvalTransform, ImageLimits, TrainTransform, decode_image, read_cell_image
from .text import TextEncoder

IMAGE_TYPE = 0
"""``patch_types`` of a picture (film is 1, sound 2)."""

Sample = dict[str, Any]
Batch = dict[str, Any]
Picture = Union[str, Image.Image]
"""A cell (base64 or path), or the picture itself."""


@dataclass
class Example:
    """What a row means, before any tokenizer or decoder has seen it.

    Attributes:
        id: identifier that result files repeat.
        source: prompt, given to the encoder.
        target: text to be generated; empty when only predicting.
        image: base64 or path of the picture, or the picture itself.
        where: place of the picture for messages.
        suffix: text behind the prompt that is tokenized by itself.
        symbols: the target is symbols of the dictionary, separated by spaces, instead of text.
        extras: what the sample has beside, by key.
    """

    id: str
    source: str
    target: str
    image: Picture
    where: str
    suffix: str = ""
    symbols: bool = False
    extras: dict[str, Any] = field(default_factory=dict)


class Query(Protocol):
    """From a picture, a text and what else is told to the encoder to an example without target."""

    def __call__(self, image: Picture, text: str, where: str, context: str = "") -> Example:
        """The example, whose id is ``where``; raises DataError where the text cannot be used."""


@dataclass
class ImageSource:
    """How picture cells are read.

    Attributes:
        image_dir: folder that paths are relative to.
        from_path: all cells are paths; otherwise only cells that contain ".jpg" are.
        limits: see :class:`ImageLimits`.
    """

    image_dir: Optional[Path] = None
    from_path: bool = False
    limits: ImageLimits = field(default_factory=lambda: DEFAULT_LIMITS)

    def read(self, cell: str, where: str) -> Image.Image:
        """RGB picture of a cell; raises DataError as :func:`read_cell_image`."""
        is_path = self.from_path or ".jpg" in cell[-8:]
        return read_cell_image(cell, where, self.image_dir, is_path, self.limits)


class SampleEncoder:
    """Examples to tensors.

    Args:
        text: tokenizer and dictionary.
        images: how to read pictures.
        transform: picture to tensor; a :class:`TrainTransform` also takes the row's random generator.
    """

    def __init__(self, text: TextEncoder, images: ImageSource, transform: EvalTransform | TrainTransform) -> None:
        self.text, self.images, self.transform = text, images, transform

    def __call__(self, example: Example, rng: Callable[[], np.random.Generator]) -> Sample:
        """Tensors of one example.

        Returns:
            ``id`` str, ``source`` int64 (S,) with start and end symbol, ``target`` int64 (T,) with end symbol,
            ``prev_output_tokens`` int64 (T,) with start symbol, ``patch_image`` float32 (3, s, s), ``patch_mask``
            bool (1,), ``patch_type`` int64 (1,), and the example's extras.

        Raises:
            DataError: the picture cannot be used; names its place.
        """
        pixels = self._pixels(self.open(example), rng)
        return {
            "id": example.id,
            **self.texts(example),
            "patch_image": pixels,
            "patch_mask": torch.tensor([True]),
            "patch_type": torch.tensor([IMAGE_TYPE]),
            **example.extras,
        }

    def open(self, example: Example) -> Image.Image:
        """The example's picture, decoded."""
        return self.images.read(example.image, example.where) if isinstance(example.image, str) else example.image

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

    def _pixels(self, image: Image.Image, rng: Callable[[], np.random.Generator]) -> torch.Tensor:
        return self.transform(image, rng()) if isinstance(self.transform, TrainTransform) else self.transform(image)

    def warm_up(self) -> None:
        """Imports and compiles what reading a picture needs.

        To be called before worker processes are forked: otherwise each of them does it, anew for every epoch.
        """
        jpeg = io.BytesIO()
        Image.new("RGB", (64, 64)).save(jpeg, "JPEG")
        picture = decode_image(jpeg.getvalue(), "warm-up")
        self._pixels(picture, lambda: np.random.default_rng(0))


def collate(samples: Sequence[Sample], pad: int) -> Batch:
    """Stacks samples.

    Returns:
        ``id`` numpy str (B,), ``nsentences`` int, ``ntokens`` int (target tokens without padding), ``target`` int64
        (B, T), and ``net_input`` with ``src_tokens`` int64 (B, S), ``src_lengths`` int64 (B,), ``prev_output_tokens``
        int64 (B, T), ``patch_images`` float32 (B, 3, s, s), ``patch_masks`` bool (B,), ``patch_types`` int64 (B,).
        Texts are padded on the right.
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
            "patch_images": torch.stack([sample["patch_image"] for sample in samples]),
            "patch_masks": torch.cat([sample["patch_mask"] for sample in samples]),
            "patch_types": torch.cat([sample["patch_type"] for sample in samples]),
        },
        "target": target,
    }
