"""A user's mistake is printed as one line; numbers that are not finite are traced to their layer."""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing import ProcessRaisedException

from ..errors import CheckpointError, ConfigError, DataError, UnivalError

MISTAKES = (DataError, CheckpointError, ConfigError)


def one_line_errors(original: Callable[..., None], kind: type, error: BaseException, trace: Any) -> None:
    """Prints a user's mistake as one line instead of fairseq's traceback; all other errors as before."""
    mistake = user_error(error) or complaint_of_command(error)
    if mistake is None:
        original(kind, error, trace)
        return
    print(f"{Path(sys.argv[0]).name}: error: {mistake}", file=sys.stderr)


def complaint_of_command(error: BaseException) -> str | None:
    """fairseq's commands assert what options they need, e.g. a batch size: the words of such an assertion."""
    if not isinstance(error, AssertionError):
        return None
    *_, last = traceback.walk_tb(error.__traceback__)
    in_command = str(last[0].f_globals.get("__name__", "")).startswith("fairseq_cli.")
    return str(error).strip().replace("\n", " ") or None if in_command else None


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
            kind = _mistake_named(sent[1]) if sent else None
            if sent and kind:
                return kind(sent[2])
            if isinstance(error, UnivalError):
                return type(error)(lines[-1])
        error = error.__cause__ or error.__context__
    return None


def _mistake_named(name: str) -> type[UnivalError] | None:
    """The kind of mistake with this name, or the one of which the name is a special case."""
    for kind in MISTAKES:
        if name in (kind.__name__, *(special.__name__ for special in kind.__subclasses__())):
            return kind
    return None


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """Errors about the contents of a checkpoint name its file."""
    try:
        yield
    except Exception as error:
        mistake = user_mistake(error)
        if not isinstance(mistake, CheckpointError) or path in str(mistake):
            raise
        raise CheckpointError(f"{path}: {mistake}") from error


# ---- numbers that are not finite


def watch_gradients(original: Callable[..., None], detector: Any, module: torch.nn.Module) -> None:
    """fairseq looks for the first layer without finite numbers, and fails at layers that return more than tensors.

    When a gradient is not finite, its NanDetector computes the step once more with a hook on every module. torch's
    hook for gradients of modules needs a tensor in their output and ends in StopIteration where that is a dictionary
    of lists, as of encoders. Hooks on the tensors themselves tell the same for any output.
    """
    backward, detector.backward = detector.backward, False
    try:
        original(detector, module)
    finally:
        detector.backward = backward
    if not backward:
        return

    def watch(watched: torch.nn.Module, _: Any, output: Any) -> None:
        for tensor in _tensors(output):
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient: detector.bhook_fn(watched, (), gradient))

    detector.bhooks.append(module.register_forward_hook(watch))


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, (dict, list, tuple)):
        for part in output.values() if isinstance(output, dict) else output:
            yield from _tensors(part)
