"""UnIVAL: one 0.25B encoder-decoder for pictures, film, sound and text (Shukor et al. 2023)."""

from . import criterions
from .model import registration
from .tasks import caption, refcoco, snli_ve, vqa_gen

__all__ = ["caption", "criterions", "refcoco", "registration", "snli_ve", "vqa_gen"]
