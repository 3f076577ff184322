"""UnIVAL: one 0.25B encoder-decoder for pictures, film, sound and text (Shukor et al. 2023)."""

from . import criterions
from .model import registration
from .tasks import caption, films_sounds, image_gen, refcoco, snli_ve, unify, vqa_gen

__all__ = [
    "caption",
    "criterions",
    "films_sounds",
    "image_gen",
    "refcoco",
    "registration",
    "snli_ve",
    "unify",
    "vqa_gen",
]
