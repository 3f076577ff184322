"""Criterions of the UnIVAL family; importing this package registers them with fairseq."""

from . import clip_scst, label_smoothed, label_smoothed_scst, scst

__all__ = ["clip_scst", "label_smoothed", "label_smoothed_scst", "scst"]
