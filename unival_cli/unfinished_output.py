"""An output file that is written in parts: it appears when it is complete, and a stopped tool goes on where it was."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Optional

from .light import light


@dataclass
class State:
    """How far an output is.

    Attributes:
        inputs: what it is made from; plain data (JSON).
        rows: rows that were read.
        written: rows that were written.
        size: bytes that were written.
        bad_rows: rows that were left out.
    """

    inputs: dict[str, Any]
    rows: int = 0
    written: int = 0
    size: int = 0
    bad_rows: int = 0


class UnfinishedOutput:
    """The file ``.NAME.part`` and, in ``.NAME.part.json``, how far it is.

    Args:
        output: the complete file.
        tool: name for messages.
    """

    def __init__(self, output: Path, tool: str) -> None:
        self.output, self.tool = output, tool
        self.path = output.with_name(f".{output.name}.part")
        self.note_path = self.path.with_name(f"{self.path.name}.json")

    @contextmanager
    def open(self, inputs: dict[str, Any]) -> Iterator[tuple[BinaryIO, State]]:
        """The file, open at its end, and its state; the file takes its name when the block ends without an error.

        What was made from other inputs is started anew. Raises DataError if another process writes it just now.
        """
        with self.path.open("ab") as handle:
            self._lock(handle)
            state = self._earlier(inputs) or State(inputs)
            handle.truncate(state.size)
            try:
                yield handle, state
            except BaseException:
                self._leave(handle, state)
                raise
            handle.flush()
            self.path.replace(self.output)
        self.note_path.unlink(missing_ok=True)

    def note(self, handle: BinaryIO, state: State) -> None:
        """From now on a later call goes on from this state."""
        handle.flush()
        scratch = self.note_path.with_name(f"{self.note_path.name}.tmp")
        scratch.write_text(json.dumps(asdict(state)), encoding="utf-8")
        scratch.replace(self.note_path)

    def _lock(self, handle: BinaryIO) -> None:
        busy = light("errors").DataError(f"{self.path} is being written by another process: wait for it")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise busy from error
        # Another process may have finished the file and given it its name between opening and locking.
        if not self.path.exists() or not os.path.samestat(os.fstat(handle.fileno()), self.path.stat()):
            raise busy

    def _earlier(self, inputs: dict[str, Any]) -> Optional[State]:
        """The state of a file that is made from the same inputs, if there is one."""
        try:
            state = State(**json.loads(self.note_path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            reason = "its state cannot be read"
        else:
            if state.inputs == inputs and self.path.stat().st_size >= state.size:
                return state
            reason = "it was made with other files or flags"
        from tqdm import tqdm

        tqdm.write(f"{self.tool}: note: {self.path} is started anew: {reason}", file=sys.stderr)
        return None

    def _leave(self, handle: BinaryIO, state: State) -> None:
        if state.rows:
            # A full disk can refuse the note, too: the one before it holds, what was written since is written again.
            with suppress(OSError):
                self.note(handle, state)
        else:
            self.path.unlink(missing_ok=True)
            self.note_path.unlink(missing_ok=True)


def fingerprint(path: Path) -> dict[str, Any]:
    """What a file is known by: its real path, size and time of change."""
    stat = path.stat()
    return {"path": str(path.resolve()), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
