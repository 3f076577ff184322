"""A user's mistake is printed as one line."""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.multiprocessing import ProcessRaisedException

from ..errors import CheckpointError, ConfigError, DataError, UnivalError

MISTAKES = {kind.__name__: kind for kind in (DataError, CheckpointError, ConfigError)}


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
            kind = MISTAKES.get(sent[1]) if sent else None
            if sent and kind:
                return kind(sent[2])
            if isinstance(error, UnivalError):
                return type(error)(lines[-1])
        error = error.__cause__ or error.__context__
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
