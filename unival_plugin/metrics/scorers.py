"""fairseq scorers: ``fairseq-generate --scoring caption`` prints the numbers of ``captions.CaptionMetric``.

``from __future__ import annotations`` is left out on purpose: fairseq reads the dataclass field types at run time, and
only understands ``Optional[...]``.
"""

from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
from fairseq.dataclass import FairseqDataclass
from fairseq.scoring import BaseScorer, register_scorer

from .captions import CaptionMetric, split_references
from .cider import DocumentFrequency


@dataclass
class CaptionScorerConfig(FairseqDataclass):
    """Flags of ``--scoring caption``."""

    caption_cider_df: Optional[str] = field(
        default=None,
        metadata={
            "help": "document frequencies for CIDEr-D (.json, see: unival data convert-df); default: counted in the "
            "references of the scored set"
        },
    )


@register_scorer("caption", dataclass=CaptionScorerConfig)
class CaptionScorer(BaseScorer):
    """CIDEr-D and exact match. A reference string holds all references of a picture, joined by "&&"."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        path = cfg.caption_cider_df
        self.metric = CaptionMetric(DocumentFrequency.load(path) if path else None)

    def _scores(self) -> dict[str, np.ndarray]:
        return self.metric.score(self.pred, [split_references(ref) for ref in self.ref])

    def score(self) -> float:
        """Mean CIDEr-D (0..10); 0 without captions."""
        return float(self._scores()["cider"].mean()) if self.pred else 0.0

    def result_string(self) -> str:
        """One line, such as ``CIDEr-D 1.234 | exact match 93.50 % | 400 captions``."""
        if not self.pred:
            return "CIDEr-D - | exact match - | 0 captions"
        scores = self._scores()
        cider, exact = scores["cider"].mean(), scores["exact_match"].mean()
        return f"CIDEr-D {cider:.3f} | exact match {100 * exact:.2f} % | {len(self.pred)} captions"
