"""JSON lines that grow while a long command runs, and how they were made: what an interrupted run continues from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .files import atomic_output
from .light import light
from .merge_evaluations import Evaluation

COMMANDS = "evaluations"


def settings_of(plan: Any, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """What besides the coefficients decides about a merged file and its scores.

    Args:
        plan: a ``MergePlan``. Its files are told by their contents, so that they may be moved.
    """
    sha256 = light("checkpoints.reading").sha256
    return {
        "files": [sha256(path) for path in plan.paths],
        "method": plan.method,
        "base": None if plan.base is None else sha256(plan.base),
        "options": dict(plan.options),
        "source": plan.source,
        "missing": plan.missing,
        "skip": list(plan.skip),
        "keep": list(plan.keep),
        COMMANDS: {evaluation.name: evaluation.command for evaluation in evaluations},
    }


class Record:
    """Lines of JSON in ``path``; ``<path>.meta.json`` holds their settings.

    Settings must be those of the lines that are there. Only evaluations may be added, and changed as long as no line
    has their name: ``settings["evaluations"]`` maps names to commands, ``"evaluation"`` of a line is such a name.

    Attributes:
        lines: what is in the file. A line that an interruption left unfinished is cut off.

    Raises:
        ConfigError: the file was made with other settings, or is damaged.
    """

    def __init__(self, path: Path, settings: dict[str, Any], overwrite: bool) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        meta = path.with_name(f"{path.name}.meta.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        if overwrite:
            path.unlink(missing_ok=True)
        if path.exists():
            self._read()
        if self.lines:
            stored = _json(meta, meta.read_text(encoding="utf-8")) if meta.exists() else {}
            settings = self._agreed(stored, settings)
        with atomic_output(meta, overwrite=True) as file:
            file.write(json.dumps(settings, ensure_ascii=False, indent=1).encode() + b"\n")

    def add(self, line: dict[str, Any]) -> None:
        """Writes a line at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.lines.append(line)

    def _agreed(self, stored: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        old, new = stored.get(COMMANDS, {}), settings[COMMANDS]
        used = {line.get("evaluation") for line in self.lines}
        differing = [key for key in settings if key != COMMANDS and stored.get(key) != settings[key]]
        differing += [f"--evaluate {name}" for name in new if name in used and old.get(name) != new[name]]
        if differing:
            raise light("errors").ConfigError(
                f"{self.path}: was made with other settings ({', '.join(differing)}); choose another folder or add "
                "--overwrite"
            )
        return {**settings, COMMANDS: {**old, **new}}

    def _read(self) -> None:
        kept = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                kept += len(line)
                self.lines.append(_json(f"{self.path}:row {number}", line))
        with self.path.open("rb+") as file:
            file.truncate(kept)


def _json(where: object, text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise light("errors").ConfigError(f"{where}: damaged ({error}); add --overwrite to begin anew") from error
    if not isinstance(value, dict):
        raise light("errors").ConfigError(f"{where}: damaged; add --overwrite to begin anew")
    return value
