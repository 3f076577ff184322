"""Captions of pictures of digits that are nearly right, and how well features tell the right one from them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import torch
from digits_scenes import LAYOUTS, NAMES, describe
from torch import Tensor


@cache
def all_captions() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Layout and labels of every caption that there is."""
    return {
        describe(name, list(labels)): (name, labels)
        for name, layout in LAYOUTS.items()
        for labels in itertools.product(range(len(NAMES)), repeat=layout.count)
    }


@cache
def exchanged(caption: str) -> tuple[str, ...]:
    """The captions with one digit exchanged: 9 for each digit."""
    layout, labels = all_captions()[caption]
    return tuple(
        describe(layout, [*labels[:place], label, *labels[place + 1 :]])
        for place in range(len(labels))
        for label in range(len(NAMES))
        if label != labels[place]
    )


@cache
def rearranged(caption: str) -> tuple[str, ...]:
    """The other captions of the same digits, sorted; none of a single digit."""
    _, labels = all_captions()[caption]
    layouts = [name for name, layout in LAYOUTS.items() if layout.count == len(labels)]
    orders = itertools.permutations(labels)
    found = {describe(name, list(order)) for order, name in itertools.product(orders, layouts)}
    return tuple(sorted(found - {caption}))


def lead(pictures: Tensor, texts: Tensor, captions: Sequence[str]) -> dict[str, float]:
    """How often the right caption is nearest, and by how much.

    Args:
        pictures: features of pictures, length 1, (N, D).
        texts: features of :func:`all_captions`, in their order, length 1, (4210, D).
        captions: of the pictures.

    Returns:
        ``exchanged`` and ``rearranged``: share of the pictures whose caption beats all such wrong ones (pictures with
        one digit have no rearranged ones), ``..._gap`` the mean lead in cosine over the best of them; ``cosine``: mean
        of the right captions.
    """
    place = {caption: number for number, caption in enumerate(all_captions())}
    scores = pictures @ texts.T
    right = scores[torch.arange(len(captions)), [place[caption] for caption in captions]]
    found = {"cosine": round(float(right.mean()), 3)}
    for name, wrong in (("exchanged", exchanged), ("rearranged", rearranged)):
        gaps = [
            float(right[row] - scores[row, [place[each] for each in wrong(caption)]].max())
            for row, caption in enumerate(captions)
            if wrong(caption)
        ]
        if gaps:
            found[name] = round(sum(gap > 0 for gap in gaps) / len(gaps), 3)
            found[f"{name}_gap"] = round(sum(gaps) / len(gaps), 3)
    return found
