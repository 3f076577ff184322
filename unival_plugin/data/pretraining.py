"""What a row of pretraining means: one or two examples, some of them wrong on purpose.

Every row is a task of its own (UnIVAL, ``data/pretrain_data/unify_dataset.py``): a caption or an answer to be given, a
region to be found. In training a second example asks whether a caption or an answer is right, about half of the time
with a wrong one; a region is found and described in every split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, NamedTuple, Optional, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from .answers import SEPARATOR, parse_references
from .boxes import BoxCodec, parse_box
from .dataset import Place
from .media import Medium, Randomness
from .negatives import Draws, NegativeSamples
from .samples import Example, Sample, SampleEncoder
from .text import TextEncoder, pre_caption, pre_question

COLUMNS = ("id", "medium", "caption", "question", "refs", "objects", "dataset", "type")
MEDIUM_OF_TYPE = {
    "caption": "picture",
    "qa": "picture",
    "visual_grounding": "picture",
    "video_caption": "film",
    "video_qa": "film",
    "audio_caption": "sound",
}
"""The types of rows, and what their second cell is."""

_MEDIUM, _CAPTION, _QUESTION, _REFS, _TYPE = (
    COLUMNS.index(c) for c in ("medium", "caption", "question", "refs", "type")
)
_WORDS = {"picture": "image", "film": "video", "sound": "audio"}  # in prompts
_UNLEARNED = {"cc12m": 2}  # the original does not learn how captions of this data set begin


@dataclass
class PretrainingExample(Example):
    """An example with what only pretraining has. All examples of a row have the same medium, and share one view of it.

    Attributes:
        medium: picture, film or sound.
        box: region of the picture, float32 (4,) in pixels of the original; it moves with the picture as that is
            resized and cropped, so that its bins are known only then.
        bins: those bins; empty until they are known.
        box_in_source: the bins stand behind the source, not in the target.
        unlearned: so many symbols at the beginning of the target are padding, though the decoder sees them.
    """

    medium: str = "picture"
    box: Optional[Tensor] = None
    bins: tuple[int, ...] = ()
    box_in_source: bool = False
    unlearned: int = 0


class _Row(NamedTuple):
    id: str
    media: str
    caption: str
    question: str
    refs: str
    objects: str
    dataset: str
    type: str


@dataclass
class PretrainingReader:
    """Row -> examples; the columns are :data:`COLUMNS`.

    ``refs`` are answers (``conf|!+answer&&…``) or a box (``x0,y0,x1,y1`` in pixels), ``objects`` are joined by ``&&``.

    Attributes:
        max_source_words, max_target_words: texts are cut to these.
        negatives: given in training: captions and answers get a second example that asks whether one is right.
    """

    max_source_words: int
    max_target_words: int
    negatives: Optional[NegativeSamples] = None

    def __call__(self, cells: Sequence[str], place: Place, draws: Draws) -> list[PretrainingExample]:
        """One or two examples; each has ``conf`` float32 (1,) in its extras.

        Without ``negatives`` nothing is drawn. Otherwise the draws are, in this order and as the original's: those of
        the wrong caption or answer, then one that decides whether it is used.

        Raises:
            DataError: the type is unknown, or what it needs is empty or damaged.
        """
        row = _Row(*cells[: len(COLUMNS)])
        if row.type not in MEDIUM_OF_TYPE:
            known = ", ".join(MEDIUM_OF_TYPE)
            raise DataError(f"{place(_TYPE)}: the type {row.type[:40]!r} is not known; needs one of {known}")
        if row.type == "visual_grounding":
            return self._region(row, place)
        return (self._question if row.type.endswith("qa") else self._caption)(row, place, draws)

    def _caption(self, row: _Row, place: Place, draws: Draws) -> list[PretrainingExample]:
        medium = MEDIUM_OF_TYPE[row.type]
        text = _caption_of(row, place, self.max_target_words)
        unlearned = _UNLEARNED.get(row.dataset, 0) if row.type == "caption" else 0
        first = _example(row, place, f" what does the {_WORDS[medium]} describe?", f" {text}", unlearned=unlearned)
        if self.negatives is None:
            return [first]
        shown = partial(pre_caption, max_words=self.max_source_words)
        objects = [name for name in (part.strip() for part in row.objects.split(SEPARATOR)) if name]
        wrong = self.negatives.caption(medium, row.caption, objects, shown, draws)
        given, verdict = _right_or_wrong(shown(row.caption), wrong, draws)
        return [first, _example(row, place, f' does the {_WORDS[medium]} describe " {given} "?', verdict)]

    def _question(self, row: _Row, place: Place, draws: Draws) -> list[PretrainingExample]:
        question = pre_question(row.question, self.max_source_words)
        if not question:
            raise DataError(f"{place(_QUESTION)}: the question is empty; fill it in or delete the row")
        answers = parse_references(row.refs, place(_REFS))
        best = max(answers, key=lambda answer: answers[answer])
        confidence = answers[best]
        if not all(0 <= number < inf for number in answers.values()):  # a loss is multiplied by it
            raise DataError(
                f"{place(_REFS)}: {row.refs[:40]!r} has a confidence that is no number from 0 on; correct it"
            )
        first = _example(row, place, f" {question}", f" {best}", confidence)
        if self.negatives is None:
            return [first]
        wrong = self.negatives.answer(answers, best, confidence, draws)
        given, verdict = _right_or_wrong(best, wrong, draws)
        source = f' what is the answer to question " {question} ". is " {given} "?'
        return [first, _example(row, place, source, verdict, confidence)]

    def _region(self, row: _Row, place: Place) -> list[PretrainingExample]:
        box = parse_box(row.refs, place(_REFS))
        asked = _caption_of(row, place, self.max_source_words)
        told = _caption_of(row, place, self.max_target_words)
        find = _example(row, place, f' which region does the text " {asked} " describe?', "", box=box, symbols=True)
        prompt = "  what does the region describe? region:"  # with two spaces, as the original
        return [find, _example(row, place, prompt, f" {told}", box=box, box_in_source=True)]


def _caption_of(row: _Row, place: Place, max_words: int) -> str:
    caption = pre_caption(row.caption, max_words)
    if not caption:
        raise DataError(f"{place(_CAPTION)}: the caption is empty; fill it in or delete the row")
    return caption


def _right_or_wrong(right: str, wrong: Optional[str], draws: Draws) -> tuple[str, str]:
    """What is asked about, and the answer."""
    if draws.random() >= 0.5 or wrong is None:
        return right, " yes"
    return wrong, " no"


def _example(
    row: _Row, place: Place, source: str, target: str, confidence: float = 1.0, **more: Any
) -> PretrainingExample:
    extras = {"conf": torch.tensor([confidence], dtype=torch.float32)}
    medium, where = MEDIUM_OF_TYPE[row.type], place(_MEDIUM)
    return PretrainingExample(row.id, source, target, row.media, where, extras=extras, medium=medium, **more)


# ---- samples


class RegionView(Protocol):
    """A view of a picture around a box; see :class:`~.grounding_transform.GroundingTrainTransform`."""

    def __call__(
        self, image: Image.Image, box: Tensor, rng: np.random.Generator, where: str, /
    ) -> tuple[Tensor, Tensor]:
        """Pixels float32 (3, s, s) and the box float32 (4,) in them; raises DataError for a box outside the picture."""


class PretrainingEncoder(SampleEncoder):
    """Examples of a row to tensors.

    Args:
        text: tokenizer and dictionary.
        media: how to read pictures, films and sounds, by these names.
        region: how a picture with a box is seen.
        codec: bins of boxes in what is seen.
    """

    def __init__(self, text: TextEncoder, media: Mapping[str, Medium], region: RegionView, codec: BoxCodec) -> None:
        super().__init__(text, media["picture"])
        self.media, self.region, self.codec = media, region, codec

    def warm_up(self) -> None:
        """As the base, for all media."""
        for medium in self.media.values():
            medium.warm_up()

    def __call__(self, example: Example, rng: Randomness) -> Sample:
        """As the base, for one example."""
        assert isinstance(example, PretrainingExample)
        return self.row([example], rng)[0]

    def row(self, examples: Sequence[PretrainingExample], rng: Randomness) -> list[Sample]:
        """Samples of the examples of one row, which share the tensors of their picture, film or sound.

        Raises:
            DataError: the picture, film or sound cannot be used; names its place.
        """
        media, bins = self._seen(examples[0], rng)
        texts = [self.texts(replace(example, bins=bins)) for example in examples]
        return [{"id": e.id, **text, **media, **e.extras} for e, text in zip(examples, texts, strict=True)]

    def _seen(self, example: PretrainingExample, rng: Randomness) -> tuple[Sample, tuple[int, ...]]:
        medium = self.media[example.medium]
        if example.box is None:
            return medium.sample(example.media, example.where, rng), ()
        picture = medium.open(example.media, example.where, rng)
        pixels, box = self.region(picture, example.box, rng(), example.where)
        kind = {"patch_mask": torch.tensor([True]), "patch_type": torch.tensor([medium.kind])}
        return {"patch_image": pixels, **kind}, tuple(self.codec.encode(box, torch.ones(2)).tolist())

    def texts(self, example: Example) -> Sample:
        """As the base, with bins where the example has them, and padding where its target is not learned."""
        assert isinstance(example, PretrainingExample)
        symbols = " ".join(f"<bin_{number}>" for number in example.bins)
        if example.box is not None and not example.box_in_source:
            return super().texts(replace(example, target=symbols))
        sample = super().texts(example)
        source, target = sample["source"], sample["target"]
        sample["source"] = torch.cat([source[:-1], self.text.encode_symbols(symbols), source[-1:]])
        target[: min(example.unlearned, len(target) - 1)] = self.text.dictionary.pad()
        return sample
