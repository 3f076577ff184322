"""Learning-rate schedules; importing this package registers them with fairseq."""

from . import lr_schedule

__all__ = ["lr_schedule"]
