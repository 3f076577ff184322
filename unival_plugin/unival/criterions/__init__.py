"""Criterions of the UnIVAL family; importing this package registers them with fairseq."""

from . import label_smoothed, label_smoothed_scst, scst

__all__ = ["label_smoothed", "label_smoothed_scst", "scst"]
