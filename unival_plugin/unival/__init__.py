"""UnIVAL: one 0.25B encoder-decoder for pictures, film, sound and text (Shukor et al. 2023)."""

from . import criterions
from .model import registration
from .tasks import caption

__all__ = ["caption", "criterions", "registration"]
