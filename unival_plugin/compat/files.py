"""Reading, resuming and saving checkpoint files."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from ..checkpoints.export import with_history
from ..checkpoints.reading import is_intact, newest_intact, read_checkpoint, weights_of
from ..errors import CheckpointError, ConfigError
from . import averages
from .commands import command_line, is_ours
from .messages import named
from .stored_options import adopt_options

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = "checkpoint_last.pt"
ENGINE_METRICS = frozenset({"loss", "nll_loss", "ppl"})

# ---- reading


def read_safely(
    original: Callable[..., dict[str, Any]],
    path: str,
    arg_overrides: dict[str, Any] | None = None,
    load_on_all_ranks: bool = False,
) -> dict[str, Any]:
    """Reads a file without executing anything in it, in all formats and layouts that this package knows.

    fairseq reads only its own layout, and leaves it to torch's version and to an environment variable whether a file
    may execute something. ``original`` is not called, and ``load_on_all_ranks`` matters only for remote files, which
    fairseq-fixed cannot read either.
    """
    state = read_checkpoint(path)
    try:
        state["model"] = weights_of(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    adopt_options(state, arg_overrides or {}, path)
    return checkpoint_utils._upgrade_state_dict(state)


def accept_missing_history(original: Callable[..., dict[str, Any]], state: dict[str, Any]) -> dict[str, Any]:
    """Reads files that hold weights (and options) only, which fairseq takes for very old ones and fails on."""
    if "best_loss" not in state and "epoch" not in state:
        with_history(state)
    return original(state)


@contextlib.contextmanager
def _reading_with(change: Callable[..., dict[str, Any]], *first: Any) -> Iterator[None]:
    """While the context lasts, fairseq reads checkpoints with ``change(*first, reader, path, ...)``."""
    reader = checkpoint_utils.load_checkpoint_to_cpu
    checkpoint_utils.load_checkpoint_to_cpu = functools.partial(change, *first, reader)
    try:
        yield
    finally:
        checkpoint_utils.load_checkpoint_to_cpu = reader


def restore_file(original: Callable[..., Any], self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
    """Names the file in errors about its contents, and prepares its weights and their average for training.

    fairseq lacks the original's flags for averages (see :func:`.averages.starting_weights`), and prints a traceback
    when the file's optimizer or criterion is another one.
    """
    with named(filename), _reading_with(averages.starting_weights, self.cfg):
        try:
            return original(self, filename, *args, **kwargs)
        except AssertionError as error:
            if "--reset-optimizer" not in str(error):
                raise
            raise CheckpointError(f"{filename}: {' '.join(str(error).split())}") from error


def evaluate_files(original: Callable[..., Any], filenames: list[str], *args: Any, **kwargs: Any) -> Any:
    """Names the files in errors about them (fairseq-validate, fairseq-generate); reads averages for ``--ema-eval``."""
    with contextlib.ExitStack() as context:
        context.enter_context(named(", ".join(map(str, filenames))))
        if command_line.get("ema_eval"):
            context.enter_context(_reading_with(averages.evaluated_weights))
        try:
            return original(filenames, *args, **kwargs)
        except (OSError, RuntimeError, AssertionError) as error:
            reason = _why_not_evaluated(error)
            if reason is None:
                raise
            raise CheckpointError(reason) from error


def _why_not_evaluated(error: Exception) -> str | None:
    if isinstance(error, OSError):
        return f"{error.strerror or error}; correct --path"
    if "Neither args nor cfg" in str(error):
        return (
            "holds weights without their options; give it to fairseq-train --restore-file with the model's flags and "
            "use the checkpoint which that writes"
        )
    if "Could not infer task type" in str(error):
        name = re.search(r"'_name': '(\w+)'", str(error))
        return (
            f"was trained for task {name[1] if name else 'unknown'}, which this version does not have; say which task "
            "to use it for, e.g. --task caption"
        )
    return None


# ---- resuming


def check_and_resume(original: Callable[..., Any], cfg: Any, trainer: Any, **kwargs: Any) -> Any:
    """Finds mistakes before the first epoch, and the newest intact checkpoint after a kill.

    fairseq notices an unknown ``--best-checkpoint-metric`` only after the first validation, silently starts anew when
    ``--restore-file`` or ``--continue-once`` does not exist, and stops at a ``checkpoint_last.pt`` that a kill cut
    short.
    """
    if is_ours(getattr(trainer.cfg.task, "_name", None)):
        _check_best_metric(cfg, trainer)
    if cfg.restore_file != LAST_CHECKPOINT and not Path(cfg.restore_file).is_file():
        raise CheckpointError(
            f"--restore-file {cfg.restore_file}: no such file; correct the path or leave the flag out"
        )
    last = Path(cfg.save_dir) / LAST_CHECKPOINT
    once = getattr(cfg, "continue_once", None)
    if once is not None and not last.exists() and not Path(once).is_file():
        raise CheckpointError(f"--continue-once {once}: no such file; correct the path or leave the flag out")
    if cfg.restore_file == LAST_CHECKPOINT and last.exists() and not is_intact(last):
        sibling = newest_intact(last.parent)
        if sibling is None:
            raise CheckpointError(f"{last}: damaged, and no intact checkpoint beside it; delete it to start anew")
        logger.warning(f"{last} is damaged (a save was interrupted); resuming from {sibling}, the newest intact one")
        cfg = copy.deepcopy(cfg)
        cfg.restore_file, cfg.finetune_from_model = str(sibling), None
    return original(cfg, trainer, **kwargs)


def _check_best_metric(cfg: Any, trainer: Any) -> None:
    own = getattr(getattr(trainer, "criterion", None), "validation_metrics", set)
    known = ENGINE_METRICS | set(trainer.task.validation_metrics()) | set(own())
    if not trainer.cfg.dataset.disable_validation and cfg.best_checkpoint_metric not in known:
        raise ConfigError(
            f"--best-checkpoint-metric {cfg.best_checkpoint_metric}: this run computes only {', '.join(sorted(known))}"
        )


# ---- saving


def copy_atomically(original: Callable[..., Any], src_path: str, dst_path: str, overwrite: bool = False) -> bool:
    """fairseq writes the first file of a save atomically and copies the others, which a kill can cut short."""
    if PathManager.path_requires_pathmanager(dst_path):
        return original(src_path, dst_path, overwrite=overwrite)
    temporary = Path(f"{dst_path}.tmp")
    try:
        shutil.copyfile(src_path, temporary)
        temporary.replace(dst_path)
    finally:
        temporary.unlink(missing_ok=True)
    return True
