"""Merged files that are evaluated: the commands that do it, and the numbers in what they print or write."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from .light import light

CHECKPOINT, OUTPUT = "{checkpoint}", "{output}"
PATTERN = "re:"
LOG = "log.txt"
LAST_LINES = 5
TRAINING_TAGS = ("train", "train_inner")

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
SIMPLE_LINE = re.compile(r"\bvalid on '[^']*' subset \| (.+)")
JSON_LINE = re.compile(r"\| (\S+) \| (\{.*\})\s*$")

Values = dict[str, Optional[float]]


@contextmanager
def merged(plan: Any, target: Path, keep: bool = False) -> Iterator[list[str]]:
    """Makes the file that a ``MergePlan`` describes, and gives notes on it.

    It is removed when the block ends, unless the block ends well and ``keep`` is set.

    Raises:
        ConfigError: the plan's numbers do not fit its files.
        CheckpointError: a file cannot be read or does not fit the others.
    """
    report = light("checkpoints.averaging").merge(plan, target, progress=False)
    done = False
    try:
        yield report["notes"]
        done = True
    finally:
        if not (keep and done):
            target.unlink(missing_ok=True)


@dataclass(frozen=True)
class Evaluation:
    """A command that evaluates a checkpoint.

    Attributes:
        name: what the results are called, usually the task.
        command: one line as for a shell, without being run by one; ``{checkpoint}`` stands for the file to evaluate and
            ``{output}`` for a folder that belongs to this run of the command.
        metrics: what to look for: a score's name, or ``re:`` and a regular expression with one group.
    """

    name: str
    command: str
    metrics: tuple[str, ...]

    def run(self, checkpoint: Path, folder: Path) -> Values:
        """The metrics of ``checkpoint``; None for one that is infinite or not a number.

        Args:
            folder: the run's own folder, made anew; what the command prints goes there into ``log.txt``.

        Raises:
            ConfigError: the command cannot be started or fails, or a metric is not in what it printed or wrote.
        """
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        log = self._log_of(checkpoint, folder)
        values = {metric: self._find(metric, log, folder) for metric in self.metrics}
        return {metric: value if math.isfinite(value) else None for metric, value in values.items()}

    def _log_of(self, checkpoint: Path, folder: Path) -> str:
        error = light("errors").ConfigError
        places = {CHECKPOINT: str(checkpoint), OUTPUT: str(folder)}
        words = [_replaced(word, places) for word in shlex.split(self.command)]
        log = folder / LOG
        with log.open("wb") as file:
            try:
                run = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
            except OSError as reason:
                raise error(f"--evaluate {self.name}: {words[0]}: cannot be started ({reason.strerror})") from reason
        text = log.read_text(encoding="utf-8", errors="replace")
        if status := run.returncode:
            last = [line.strip() for line in text.splitlines() if line.strip()][-LAST_LINES:]
            ended = f"exit code {status}" if status > 0 else f"signal {-status}"
            raise error(
                f"--evaluate {self.name}: the command failed with {ended}: {shlex.join(words)}; "
                f"its last lines: {' / '.join(last) or '(none)'}; all of them: {log}"
            )
        return text

    def _find(self, metric: str, log: str, folder: Path) -> float:
        error = light("errors").ConfigError
        try:
            value = self._matched(metric, log) if metric.startswith(PATTERN) else self._named(metric, log, folder)
        except LookupError as reason:
            raise error(f"--metric {self.name}={metric}: {reason.args[0]}; see {folder / LOG}") from reason
        try:
            return float(value)
        except (TypeError, ValueError) as reason:
            raise error(f"--metric {self.name}={metric}: {value!r} is no number; see {folder / LOG}") from reason

    def _matched(self, metric: str, log: str) -> Any:
        found = re.findall(metric.removeprefix(PATTERN), log, re.MULTILINE)
        if not found:
            raise LookupError("matches nothing in the command's output")
        return found[-1]

    def _named(self, metric: str, log: str, folder: Path) -> Any:
        """The score in the result file in the run's folder, else in the last line of a validation that has it."""
        results = {path: scores for path in sorted(folder.rglob("*.meta.json")) if metric in (scores := _scores(path))}
        if len(results) > 1:
            files = ", ".join(str(path.relative_to(folder)) for path in results)
            raise LookupError(f"is in several result files ({files}); evaluate one file per command")
        if results:
            return next(iter(results.values()))[metric]
        lines = valid_lines(log)
        for line in reversed(lines):
            if metric in line:
                return line[metric]
        if not lines:
            raise LookupError("the command printed no line of a validation and wrote no result file into {output}")
        raise LookupError(f"not in the command's output; the last line of a validation has {', '.join(lines[-1])}")


def _replaced(word: str, places: dict[str, str]) -> str:
    """Not str.format: commands hold other braces, as in ``--eval-args '{"beam": 1}'``."""
    return re.sub("|".join(map(re.escape, places)), lambda match: places[match[0]], word)


def _scores(path: Path) -> dict[str, Any]:
    """The scores in what our tasks write beside their result files; none in other JSON."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    scores = meta.get("scores") if isinstance(meta, dict) else None
    return scores if isinstance(scores, dict) else {}


def valid_lines(log: str) -> list[dict[str, Any]]:
    """Scores of every finished validation in the output of fairseq's commands (log formats simple, tqdm and json).

    fairseq ends a validation with ``valid on '<subset>' subset | loss 1.2 | …`` or, as JSON, with keys that begin with
    the subset's name; lines about single batches have neither.
    """
    found = []
    for line in log.splitlines():
        if match := SIMPLE_LINE.search(line):
            pairs = [part.strip().partition(" ") for part in match[1].split(" | ")]
            found.append({key: value for key, _, value in pairs})
        elif match := JSON_LINE.search(line):
            found.append(_json_scores(match[1], match[2]))
    return [scores for scores in found if scores]


def _json_scores(subset: str, text: str) -> dict[str, Any]:
    if subset in TRAINING_TAGS:
        return {}
    try:
        stats = json.loads(text)
    except ValueError:  # a line of the log that only looks like JSON: the printed options
        return {}
    start = f"{subset}_"
    return {key.removeprefix(start): value for key, value in stats.items() if key.startswith(start)}


# ---- from the command line


def evaluations_of(commands: list[str], metrics: list[str]) -> list[Evaluation]:
    """What ``--evaluate NAME=COMMAND`` and ``--metric NAME=WHAT`` ask for, in order.

    Raises:
        ConfigError: a malformed option, a name used twice, or a name without command or without metric.
    """
    error = light("errors").ConfigError
    wanted: dict[str, list[str]] = {}
    for option in metrics:
        name, what = _pair("--metric", option, "caption=cider")
        _check_metric(option, what)
        wanted.setdefault(name, []).append(what)
    found: dict[str, Evaluation] = {}
    for option in commands:
        name, command = _pair("--evaluate", option, "'caption=fairseq-validate … --path {checkpoint}'")
        if name in found:
            raise error(f"--evaluate {name}: given twice; choose two names")
        if name not in wanted:
            raise error(f"--evaluate {name}: add what to look for in its output: --metric {name}=loss")
        _check_command(name, command)
        found[name] = Evaluation(name, command, tuple(dict.fromkeys(wanted[name])))
    if useless := [name for name in wanted if name not in found]:
        raise error(f"--metric {useless[0]}: there is no --evaluate {useless[0]}=…")
    return list(found.values())


def _pair(flag: str, option: str, example: str) -> tuple[str, str]:
    name, _, rest = option.partition("=")
    if not NAME.fullmatch(name) or not rest.strip():
        raise light("errors").ConfigError(f"{flag} {option}: needs a name, = and a value, as in {flag} {example}")
    return name, rest.strip()


def _check_metric(option: str, what: str) -> None:
    error = light("errors").ConfigError
    if not what.startswith(PATTERN):
        return
    try:
        groups = re.compile(what.removeprefix(PATTERN), re.MULTILINE).groups
    except re.error as reason:
        raise error(f"--metric {option}: not a regular expression ({reason})") from reason
    if groups != 1:
        raise error(f"--metric {option}: needs exactly one group, the number: as in 're:score ([0-9.]+)'")


def _check_command(name: str, command: str) -> None:
    error = light("errors").ConfigError
    try:
        shlex.split(command)
    except ValueError as reason:
        raise error(f"--evaluate {name}: {reason} in {command}") from reason
    if CHECKPOINT not in command:
        raise error(f"--evaluate {name}: the command must say where the merged file goes: --path {CHECKPOINT}")
