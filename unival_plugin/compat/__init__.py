"""Every workaround for stock fairseq and torch, one function each, with the reason in its docstring.

:func:`apply` is called when the package is imported, which fairseq does before it parses the command line. Nothing of
the installed packages is changed on disk. A replacement behaves as the original for tasks of other packages, but that
no file can make a command execute anything.

Subjects: :mod:`.commands` (command line, processes), :mod:`.files` (reading, resuming and saving checkpoints),
:mod:`.stored_options` (options of other programs in checkpoints), :mod:`.averages` (averages of weights) and
:mod:`.messages` (errors).
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from fairseq import checkpoint_utils, options
from fairseq.data import data_utils, iterators
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.models.ema import ema
from fairseq.nan_detector import NanDetector
from fairseq.trainer import Trainer

from . import averages, commands, files, messages
from .commands import command_line
from .messages import user_error, user_mistake

__all__ = ["apply", "averages", "command_line", "commands", "files", "messages", "user_error", "user_mistake"]


def apply() -> None:
    """Applies all workarounds once; further calls do nothing."""
    if getattr(options, "_unival_applied", False):
        return
    options._unival_applied = True
    commands.drop_stray_log_handler()
    _replace(options, "parse_args_and_arch", commands.note_command_line)
    _replace(data_utils, "raise_if_valid_subsets_unintentionally_ignored", commands.accept_file_lists)
    _replace(distributed_utils, "call_main", commands.join_launcher)
    _replace(distributed_utils, "_broadcast_object_slow", commands.send_object)
    _replace(iterators.BufferedIterator, "_create_consumer", commands.load_until_exit)
    atexit.register(commands.end_loading)
    _replace(checkpoint_utils, "load_checkpoint", files.check_and_resume)
    _replace(checkpoint_utils, "load_checkpoint_to_cpu", files.read_safely)
    _replace(checkpoint_utils, "load_model_ensemble_and_task", files.evaluate_files)
    _replace(checkpoint_utils, "load_ema_from_checkpoint", averages.read_average)
    _replace(checkpoint_utils, "_upgrade_state_dict", files.accept_missing_history)
    _replace(Trainer, "load_checkpoint", files.restore_file)
    _replace(NanDetector, "add_hooks", messages.watch_gradients)
    _replace(ema.EMA, "__init__", averages.copy_integer_buffers)
    _replace(ema.EMA, "build_fp32_params", averages.fit_precise_average)
    PathManager.copy = staticmethod(functools.partial(files.copy_atomically, PathManager.copy))
    sys.excepthook = functools.partial(messages.one_line_errors, sys.excepthook)
    # fairseq-hydra-train: otherwise hydra prints a traceback of its own, and no error arrives at the hook
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")


def _replace(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Puts ``replacement(original, ...)`` in the place of ``owner.name``."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    setattr(owner, name, replaced)
