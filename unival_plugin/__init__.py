"""Unified image, video, audio and text models for stock fairseq.

Importing the package, which ``fairseq-train --user-dir unival_plugin`` does, applies the workarounds of :mod:`.compat`
and registers all tasks, models, criterions, schedulers and scorers. It may be imported by path or as installed package,
any number of times.
"""

from . import compat

compat.apply()

from . import unival  # noqa: E402  (registers; fairseq must be mended first)
from .metrics import scorers  # noqa: E402
from .optim import lr_schedule  # noqa: E402

__version__ = "0.1.0"
__all__ = ["__version__", "compat", "lr_schedule", "scorers", "unival"]
