"""Public data sets as rows: one builder for each, found by name; ``dataset_tools/build.py`` runs them."""

from __future__ import annotations

from . import coco, films, okvqa, refcoco, snli_ve, sounds, vqa, web
from .parts import Builder

BUILDERS: dict[str, Builder] = {
    builder.name: builder
    for module in (coco, vqa, okvqa, refcoco, snli_ve, films, sounds, web)
    for builder in module.BUILDERS
}
