"""Criterions of the UnIVAL family; importing this package registers them with fairseq."""

from . import label_smoothed

__all__ = ["label_smoothed"]
