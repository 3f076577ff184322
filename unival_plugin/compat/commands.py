"""Command line, log and processes of fairseq's commands."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import queue
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from fairseq import tasks

from ..errors import ConfigError

LAUNCHER_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")
HELP_FLAGS = frozenset({"-h", "--help"})
LAST_BATCH_SECONDS = 10.0
"""How long a command that has ended waits for a batch that is being loaded."""

_loading: weakref.WeakSet[Any] = weakref.WeakSet()

command_line: dict[str, Any] = {}
"""The options of the running fairseq command, as parsed last; empty when the package is used as a library.

fairseq hands tasks only their own options, but a result file needs the checkpoint, the subset and the results folder.
"""


def is_ours(task_name: str | None) -> bool:
    """Whether a registered task belongs to this package."""
    task = tasks.TASK_REGISTRY.get(task_name)
    return task is not None and task.__module__.split(".")[0] == __name__.split(".")[0]


def note_command_line(original: Callable[..., Any], parser: Any, *args: Any, **kwargs: Any) -> Any:
    """Keeps the parsed options (see :data:`command_line`), makes ``--bf16`` and ``--help`` usable, generates all rows.

    fairseq takes ``--bf16`` for a wish to run on a TPU and then fails without the TPU library. It answers ``--help``
    before the options of task, model and criterion are known. fairseq-generate is one process, but takes as many
    shards as there are GPUs and answers only the first. Without ``--arch`` fairseq raises an error that says nothing.

    Raises:
        ConfigError: no ``--arch``, where one is needed.
    """
    given = kwargs.get("input_args") or sys.argv
    tpu_wanted = "--tpu" in given
    try:
        with help_at_the_end(parser):
            result = original(parser, *args, **kwargs)
    except RuntimeError as error:
        if error.args:
            raise
        raise ConfigError("--arch is missing: name the network, such as --arch unival_base") from error
    namespace = result[0] if isinstance(result, tuple) else result
    if getattr(namespace, "bf16", False) and getattr(namespace, "tpu", False) and not tpu_wanted:
        namespace.tpu = False
    if hasattr(namespace, "gen_subset") and not any(word.startswith("--distributed-world-size") for word in given):
        namespace.distributed_world_size = 1
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


def send_object(original: Callable[..., Any], obj: Any, src_rank: int, group: Any, dist_device: torch.device) -> Any:
    """Gives all processes what one of them has, such as the contents of a checkpoint without its tensors.

    fairseq packs that as a checkpoint file and unpacks it with ``torch.load``, which from torch 2.6 on refuses options:
    several processes could neither resume nor start from a file. What comes from another process of the same run is no
    file of unknown origin.
    """
    sent = [obj]
    torch.distributed.broadcast_object_list(sent, src=src_rank, group=group, device=dist_device)
    return sent[0]


def load_until_exit(original: Callable[..., None], iterator: Any) -> None:
    """Remembers the threads that load batches, for :func:`end_loading`."""
    original(iterator)
    _loading.add(iterator)


def end_loading() -> None:
    """Ends the threads in which fairseq loads batches ahead; called when the interpreter ends.

    fairseq leaves them to themselves. A thread that is inside torch then, which happens where ``--max-update`` ends an
    epoch early, aborts the program ("terminate called without an active exception", exit status 134) although all work
    is done.
    """
    deadline = time.monotonic() + LAST_BATCH_SECONDS
    for iterator in list(_loading):
        consumer = iterator._consumer
        consumer._max_len = 0  # the batch that is being loaded is its last
        while consumer.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                iterator._queue.get_nowait()  # it may be waiting for a free place
            consumer.join(0.01)
