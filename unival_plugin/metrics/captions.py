"""Caption scores as validation, ``fairseq-generate --scoring caption`` and result files report them.

Source: UnIVAL, ``tasks/mm_tasks/caption.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.text import strip_punctuation
from .cider import CiderD, DocumentFrequency

SEPARATOR = "&&"  # between the references of one picture in a data file


def split_references(text: str) -> list[str]:
    """``"a cat&&two cats"`` -> ``["a cat", "two cats"]``; always at least one entry."""
    return [part.strip() for part in text.split(SEPARATOR)]


class CaptionMetric:
    """CIDEr-D and exact match of captions, after removing punctuation on both sides.

    ``df`` None: document frequencies are counted in the references given to ``score``.
    """

    def __init__(self, df: DocumentFrequency | None = None) -> None:
        self.df = df

    def score(self, hyps: Sequence[str], refs: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        """One hypothesis and a list of references per picture -> float64 arrays "cider" (0..10) and "exact_match".

        Exact match is 1 where the caption equals one of its references up to white space, else 0. Raises DataError
        for unequal lengths or a picture without references.
        """
        cleaned = [strip_punctuation(hyp) for hyp in hyps]
        references = [[strip_punctuation(ref) for ref in group] for group in refs]
        df = self.df or DocumentFrequency.from_references(references)
        cider = CiderD(df).scores(cleaned, references)
        exact = [hyp.split() in [ref.split() for ref in group] for hyp, group in zip(cleaned, references, strict=True)]
        return {"cider": cider, "exact_match": np.array(exact, dtype=np.float64)}
