"""``unival merge --greedy``: the greedy soup of "Model soups" (Wortsman et al. 2022, arXiv:2203.05482)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from .files import refuse_existing
from .light import light
from .merge_evaluations import Evaluation, merged
from .merge_record import Record, settings_of

RECORD = "greedy.jsonl"
SOUP = "soup.pt"
TRIED = "tried.pt"
RUNS = "evaluations"
ALONE, BEGUN, ADDED, LEFT_OUT = "alone", "begun", "added", "left out"


def make_soup(plan: Any, evaluation: Evaluation, folder: Path, minimise: bool, overwrite: bool) -> None:
    """Writes ``soup.pt``, the greedy soup of the plan's files, and ``greedy.jsonl``, a line for every decision.

    The files are sorted by their own metric. Beginning with the best, each is averaged in, all with equal weights, and
    stays in if the metric does not get worse.

    Raises:
        ConfigError: the evaluation fails, or its metric is a number for none of the files.
        FileExistsError: there is a ``soup.pt`` that no record tells about.
    """
    from tqdm import tqdm

    (metric,) = evaluation.metrics
    settings = {**settings_of(plan, [evaluation]), "metric": metric, "minimise": minimise}
    if not (folder / RECORD).exists():
        refuse_existing(folder / SOUP, overwrite)
    record = Record(folder / RECORD, settings, overwrite)
    with tqdm(total=2 * len(plan.paths) - 1, desc="soup", unit="evaluation", disable=None) as bar:
        search = _Search(plan, evaluation, record, minimise, bar.update)
        soup, best = search.soup()
    if best is None:
        raise light("errors").ConfigError(f"--metric {evaluation.name}={metric}: is a number for none of the files")
    with merged(_of(plan, soup), folder / SOUP, keep=True) as notes:
        for note in notes:
            print(note, file=sys.stderr)
        print(f"{folder / SOUP}: {len(soup)} of {len(plan.paths)} files, {evaluation.name} {best:g}")


def _of(plan: Any, files: Sequence[Path]) -> Any:
    return replace(plan, paths=tuple(files), coefficients=None)


class _Search:
    """Decides which files are in; what the record already tells is not evaluated again.

    Args:
        tell: called after every evaluation.
    """

    def __init__(
        self, plan: Any, evaluation: Evaluation, record: Record, minimise: bool, tell: Callable[[], object]
    ) -> None:
        self.plan, self.evaluation, self.record, self.tell = plan, evaluation, record, tell
        self.sign = -1.0 if minimise else 1.0

    def soup(self) -> tuple[list[Path], Optional[float]]:
        """The files of the soup, in the order in which they came in, and its metric."""
        alone = {path: self._alone(path, number) for number, path in enumerate(self.plan.paths)}
        first, *others = sorted(alone, key=lambda path: self._goodness(alone[path]), reverse=True)
        soup, best = [first], alone[first]
        if best is None:
            return soup, None
        if self._known([BEGUN], soup) is None:
            self._note(BEGUN, soup, best)
        for path in others:
            value = self._with(path, soup, best)
            if self._goodness(value) >= self._goodness(best):
                soup, best = [*soup, path], value
        return soup, best

    def _goodness(self, value: Optional[float]) -> float:
        """Larger is better; what is no number is worst."""
        return -math.inf if value is None else self.sign * value

    def _alone(self, path: Path, number: int) -> Optional[float]:
        line = self._known([ALONE], [path])
        if line is None:
            line = self._note(ALONE, [path], self._evaluated([path], f"alone_{number}"))
        self.tell()
        return line["value"]

    def _with(self, path: Path, soup: list[Path], best: Optional[float]) -> Optional[float]:
        """The metric of the soup with one more file."""
        larger = [*soup, path]
        line = self._known([ADDED, LEFT_OUT], larger)
        if line is None:
            value = self._evaluated(larger, f"with_{self.plan.paths.index(path)}")
            decision = ADDED if self._goodness(value) >= self._goodness(best) else LEFT_OUT
            line = self._note(decision, larger, value)
        self.tell()
        return line["value"]

    def _known(self, decisions: list[str], files: list[Path]) -> Optional[dict[str, Any]]:
        wanted = _names(files)
        return next((x for x in self.record.lines if x["decision"] in decisions and x["files"] == wanted), None)

    def _note(self, decision: str, files: list[Path], value: Optional[float]) -> dict[str, Any]:
        line = {
            "decision": decision,
            "file": str(files[-1]),
            "files": _names(files),
            "evaluation": self.evaluation.name,
            "metric": self.evaluation.metrics[0],
            "value": value,
        }
        self.record.add(line)
        return line

    def _evaluated(self, files: list[Path], run: str) -> Optional[float]:
        folder = self.record.path.parent
        with merged(_of(self.plan, files), folder / TRIED):
            values = self.evaluation.run(folder / TRIED, folder / RUNS / run)
        return values[self.evaluation.metrics[0]]


def _names(files: Sequence[Path]) -> list[str]:
    return [str(path) for path in files]
