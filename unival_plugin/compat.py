"""Every workaround for stock fairseq and torch, one function each, with the reason in its docstring.

:func:`apply` is called when the package is imported, which fairseq does before it parses the command line. Nothing of
the installed packages is changed on disk. A replacement behaves as the original for tasks of other packages.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import logging
import os
import pickle
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.data import data_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.models.ema import ema
from fairseq.trainer import Trainer
from omegaconf import DictConfig
from torch.multiprocessing import ProcessRaisedException

from .errors import CheckpointError, ConfigError, DataError, UnivalError

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = "checkpoint_last.pt"
LAUNCHER_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")
ENGINE_METRICS = frozenset({"loss", "nll_loss", "ppl"})
MISTAKES = {kind.__name__: kind for kind in (DataError, CheckpointError, ConfigError)}
HELP_FLAGS = frozenset({"-h", "--help"})

command_line: dict[str, Any] = {}
"""The options of the running fairseq command, as parsed last; empty when the package is used as a library.

fairseq hands tasks only their own options, but a result file needs the checkpoint, the subset and the results folder.
"""


def apply() -> None:
    """Applies all workarounds once; further calls do nothing."""
    if getattr(options, "_unival_applied", False):
        return
    options._unival_applied = True
    drop_stray_log_handler()
    torch.serialization.add_safe_globals([argparse.Namespace])
    _replace(options, "parse_args_and_arch", note_command_line)
    _replace(data_utils, "raise_if_valid_subsets_unintentionally_ignored", accept_file_lists)
    _replace(distributed_utils, "call_main", join_launcher)
    _replace(checkpoint_utils, "load_checkpoint", check_and_resume)
    _replace(checkpoint_utils, "load_checkpoint_to_cpu", explain_unreadable)
    _replace(checkpoint_utils, "load_model_ensemble_and_task", name_checkpoints)
    _replace(checkpoint_utils, "overwrite_args_by_name", keep_tokenizer_name)
    _replace(checkpoint_utils, "_upgrade_state_dict", accept_missing_history)
    _replace(Trainer, "load_checkpoint", name_checkpoint)
    _replace(ema.EMA, "__init__", copy_integer_buffers)
    PathManager.copy = staticmethod(functools.partial(copy_atomically, PathManager.copy))
    sys.excepthook = functools.partial(one_line_errors, sys.excepthook)
    # fairseq-hydra-train: otherwise hydra prints a traceback of its own, and no error arrives at the hook
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")


def _replace(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Puts ``replacement(original, ...)`` in the place of ``owner.name``."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    setattr(owner, name, replaced)


def is_ours(task_name: str | None) -> bool:
    """Whether a registered task belongs to this package."""
    task = tasks.TASK_REGISTRY.get(task_name)
    return task is not None and task.__module__.split(".")[0] == __name__.split(".")[0]


def note_command_line(original: Callable[..., Any], parser: Any, *args: Any, **kwargs: Any) -> Any:
    """Keeps the parsed options (see :data:`command_line`) and makes ``--bf16`` and ``--help`` usable.

    fairseq takes ``--bf16`` for a wish to run on a TPU and then fails without the TPU library. It answers ``--help``
    before the options of task, model and criterion are known.
    """
    tpu_wanted = "--tpu" in (kwargs.get("input_args") or sys.argv)
    with help_at_the_end(parser):
        result = original(parser, *args, **kwargs)
    namespace = result[0] if isinstance(result, tuple) else result
    if getattr(namespace, "bf16", False) and getattr(namespace, "tpu", False) and not tpu_wanted:
        namespace.tpu = False
    if not kwargs.get("suppress_defaults"):
        command_line.clear()
        command_line.update(vars(namespace))
    return result


def drop_stray_log_handler() -> None:
    """Lets commands and programs set up their own log.

    Importing fairseq's wav2vec2_classification sets up another one before: everything down to debugging messages, to
    standard error.
    """
    root = logging.getLogger()
    stray = [handler for handler in root.handlers if getattr(handler.formatter, "_fmt", "") == logging.BASIC_FORMAT]
    if root.level == logging.DEBUG and stray:
        root.removeHandler(stray[0])
        root.setLevel(os.environ.get("LOGLEVEL", "INFO").upper())


@contextlib.contextmanager
def help_at_the_end(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Hides ``--help`` from ``parser``'s first pass, in which fairseq finds out whose options to add."""
    stock = parser.parse_known_args

    def first_pass(args: Any = None, namespace: Any = None) -> Any:
        parser.parse_known_args = stock  # type: ignore[method-assign]
        given = sys.argv[1:] if args is None else args
        return stock([word for word in given if word not in HELP_FLAGS], namespace)

    parser.parse_known_args = first_pass  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        parser.parse_known_args = stock  # type: ignore[method-assign]


def accept_file_lists(original: Callable[..., None], train_cfg: Any) -> None:
    """Our ``data`` is a list of files, in which fairseq would look for a folder of that name."""
    if not is_ours(getattr(train_cfg.task, "_name", None)):
        original(train_cfg)


def join_launcher(original: Callable[..., Any], cfg: Any, main: Callable[..., Any], **kwargs: Any) -> Any:
    """Makes processes started by torchrun one training.

    fairseq asks only how many GPUs the machine has: with none, or one per node, every process of torchrun would train
    alone and write into the same folder. On the CPU it also needs the gloo backend and its own gradient exchange.
    """
    distributed = cfg.distributed_training
    launched = all(name in os.environ for name in LAUNCHER_VARIABLES)
    world_size = int(os.environ["WORLD_SIZE"]) if launched else 1
    on_cpu = cfg.common.cpu or not torch.cuda.is_available()
    if world_size > 1 and distributed.distributed_init_method is None:
        distributed.distributed_world_size = world_size
        if on_cpu:
            distributed.distributed_init_method = "env://"
            distributed.distributed_rank = int(os.environ["RANK"])
            distributed.distributed_no_spawn = True
            distributed.device_id = 0
    if on_cpu and distributed.distributed_world_size > 1:
        if not distributed.distributed_no_spawn:
            raise ConfigError(
                f"--distributed-world-size {distributed.distributed_world_size} without a GPU: start the processes "
                "with torchrun --nproc-per-node N instead"
            )
        distributed.distributed_backend = "gloo"
        if distributed.ddp_backend in ("c10d", "pytorch_ddp"):
            distributed.ddp_backend = "legacy_ddp"
    if on_cpu and cfg.common.fp16 and cfg.optimization is not None and _trains(main):
        raise ConfigError("--fp16 needs a GPU: leave it out, or use the task option --autocast bf16")
    return original(cfg, main, **kwargs)


def _trains(main: Callable[..., Any]) -> bool:
    return main.__module__ in ("fairseq_cli.train", "fairseq_cli.hydra_train")


def check_and_resume(original: Callable[..., Any], cfg: Any, trainer: Any, **kwargs: Any) -> Any:
    """Finds mistakes before the first epoch, and the newest intact checkpoint after a kill.

    fairseq notices an unknown ``--best-checkpoint-metric`` only after the first validation, silently starts anew when
    ``--restore-file`` does not exist, and stops at a ``checkpoint_last.pt`` that a kill cut short.
    """
    if is_ours(getattr(trainer.cfg.task, "_name", None)):
        _check_best_metric(cfg, trainer)
    if cfg.restore_file != LAST_CHECKPOINT and not Path(cfg.restore_file).is_file():
        raise CheckpointError(
            f"--restore-file {cfg.restore_file}: no such file; correct the path or leave the flag out"
        )
    last = Path(cfg.save_dir) / LAST_CHECKPOINT
    if cfg.restore_file == LAST_CHECKPOINT and last.exists() and not is_intact(last):
        sibling = newest_intact(last.parent)
        if sibling is None:
            raise CheckpointError(f"{last}: damaged, and no intact checkpoint beside it; delete it to start anew")
        logger.warning(f"{last} is damaged (a save was interrupted); resuming from {sibling}, the newest intact one")
        cfg = copy.deepcopy(cfg)
        cfg.restore_file, cfg.finetune_from_model = str(sibling), None
    return original(cfg, trainer, **kwargs)


def _check_best_metric(cfg: Any, trainer: Any) -> None:
    known = ENGINE_METRICS | set(trainer.task.validation_metrics())
    if not trainer.cfg.dataset.disable_validation and cfg.best_checkpoint_metric not in known:
        raise ConfigError(
            f"--best-checkpoint-metric {cfg.best_checkpoint_metric}: this run computes only {', '.join(sorted(known))}"
        )


def is_intact(path: Path) -> bool:
    """Whether a checkpoint file is a complete archive whose checksums are right (reads all of it)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


def newest_intact(folder: Path) -> Path | None:
    """The most recently written intact checkpoint of a folder; other ``.pt`` files that lie there do not count."""
    newest_first = sorted(folder.glob("checkpoint*.pt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path for path in newest_first if is_intact(path)), None)


def name_checkpoint(original: Callable[..., Any], self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
    """Names the file in errors about its contents, and starts an average of weights from it.

    With ``--store-ema`` fairseq wants to start the average from the weights of a file that holds no average, but has
    deleted them before.
    """
    with _named(filename), contextlib.ExitStack() as undo:
        if self.cfg.ema.store_ema:
            reader = checkpoint_utils.load_checkpoint_to_cpu
            undo.callback(setattr, checkpoint_utils, "load_checkpoint_to_cpu", reader)
            checkpoint_utils.load_checkpoint_to_cpu = functools.partial(with_average, reader)
        return original(self, filename, *args, **kwargs)


def with_average(reader: Callable[..., dict[str, Any]], path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """What ``reader`` reads; its weights also serve as their average where it holds none."""
    state = reader(path, *args, **kwargs)
    if "ema" not in state["extra_state"]:
        logger.info(f"{path} holds no average of weights (--store-ema): it starts from the weights")
        state["extra_state"]["ema"] = state["model"]
    return state


def name_checkpoints(original: Callable[..., Any], filenames: list[str], *args: Any, **kwargs: Any) -> Any:
    """Names the files in errors about them (fairseq-validate, fairseq-generate)."""
    with _named(", ".join(map(str, filenames))):
        try:
            return original(filenames, *args, **kwargs)
        except OSError as error:
            raise CheckpointError(f"{error.strerror or error}; correct --path") from error
        except RuntimeError as error:
            if "Neither args nor cfg" not in str(error):
                raise
            raise CheckpointError(
                "holds weights without their options; give it to fairseq-train --restore-file with the model's flags "
                "and use the checkpoint which that writes"
            ) from error


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        mistake = user_mistake(error)
        if not isinstance(mistake, CheckpointError) or path in str(mistake):
            raise
        raise CheckpointError(f"{path}: {mistake}") from error


def explain_unreadable(original: Callable[..., Any], path: str, *args: Any, **kwargs: Any) -> Any:
    """Turns torch's many errors about unreadable files into one line; nothing in the file is executed."""
    try:
        return original(path, *args, **kwargs)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_why_refused(path)}") from error
    except (FileNotFoundError, PermissionError) as error:
        raise CheckpointError(f"{path}: {error.strerror}; correct its path or permissions") from error
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = "damaged or cut short" if not is_intact(Path(path)) else " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({reason}); use another file or copy it anew"
        ) from error


def _why_refused(path: str) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, pickle.UnpicklingError):
        names = []
    if not names:
        return "not a torch checkpoint; use another file or copy it anew"
    return (
        f"asks for {', '.join(names)}, which safe reading does not allow; if you trust its source, allow them with "
        "torch.serialization.add_safe_globals"
    )


def keep_tokenizer_name(original: Callable[..., None], cfg: Any, overrides: dict[str, Any]) -> None:
    """fairseq-validate turns ``--bpe``, which our tasks read as a name, into options of fairseq's own tokenizer."""
    original(cfg, overrides)
    task = cfg.get("task")
    if isinstance(task, DictConfig) and is_ours(task.get("_name")) and isinstance(task.get("bpe"), DictConfig):
        task.bpe = task.bpe._name


def accept_missing_history(original: Callable[..., dict[str, Any]], state: dict[str, Any]) -> dict[str, Any]:
    """Reads files that hold weights (and options) only, which fairseq takes for very old ones and fails on."""
    if "optimizer_history" not in state and "best_loss" not in state:
        state["optimizer_history"] = [
            {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}
        ]
    if "epoch" not in state:
        state.setdefault("extra_state", {"train_iterator": {"version": 2, "epoch": 1, "iterations_in_epoch": 0}})
    return original(state)


def copy_integer_buffers(
    original: Callable[..., None], self: Any, model: Any, config: Any, device: Any = None, skip_keys: Any = None
) -> None:
    """fairseq averages every entry of the state dict and fails on integer ones; those are copied instead."""
    integers = {key for key, value in model.state_dict().items() if not value.is_floating_point()}
    original(self, model, config, device, set(skip_keys or ()) | integers)


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


def one_line_errors(original: Callable[..., None], kind: type, error: BaseException, trace: Any) -> None:
    """Prints a user's mistake as one line instead of fairseq's traceback; all other errors as before."""
    mistake = user_error(error)
    if mistake is None:
        original(kind, error, trace)
        return
    print(f"{Path(sys.argv[0]).name}: error: {mistake}", file=sys.stderr)


def user_error(error: BaseException | None) -> str | None:
    """Message of the user's mistake behind an exception, if there is one."""
    mistake = user_mistake(error)
    return None if mistake is None else str(mistake)


def user_mistake(error: BaseException | None) -> UnivalError | None:
    """The :class:`UnivalError` behind an exception, with a message of one line.

    Data loader workers and spawned processes send an error as the text of its traceback, whose last line names it.
    """
    while error is not None:
        if isinstance(error, (UnivalError, ProcessRaisedException)):
            lines = str(error).strip().splitlines() or [type(error).__name__]
            sent = re.fullmatch(r"[\w.]*\.(\w+Error): (.*)", lines[-1])
            kind = MISTAKES.get(sent[1]) if sent else None
            if sent and kind:
                return kind(sent[2])
            if isinstance(error, UnivalError):
                return type(error)(lines[-1])
        error = error.__cause__ or error.__context__
    return None
