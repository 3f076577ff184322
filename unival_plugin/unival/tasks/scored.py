"""Tasks whose hypotheses are answers with a score: metrics of validation and the result file, in one place."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, cast

import numpy as np
import torch
from fairseq.logging import metrics

from ... import compat
from ...checkpoints.reading import sha256
from ...data.dataset import RowDataset
from ...data.samples import Query
from ...generation.generator import Hypothesis, SequenceGenerator
from ...generation.options import GenerationOptions, parse_eval_args
from .base import UnIVALTask
from .results import ResultFile

logger = logging.getLogger(__name__)


class ScoredTask(UnIVALTask, ABC):
    """Base of the tasks that validate by their answers.

    A subclass says what a hypothesis means (:meth:`predictions`), what is right (:meth:`references`), how they compare
    (:meth:`score`) and what a line of the result file looks like (:meth:`result`).

    Attributes:
        sums: by metric, the name of its sum in the log and the digits it is rounded to.
        count: name in the log of the number of answers.
        per: metrics that are a mean over some answers only, with the score that is 1 for those; it is one of
            :attr:`sums` too.
    """

    sums: dict[str, tuple[str, int]] = {}
    count = "_cnt"
    per: dict[str, str] = {}

    def __init__(self, cfg: Any, text: Any) -> None:
        super().__init__(cfg, text)
        self.eval_options = parse_eval_args(cfg.eval_args)
        self._generator: Optional[SequenceGenerator] = None
        self._result_file: Optional[ResultFile] = None
        self._references: list[Any] = []

    # ---- what a task says

    def validates(self) -> bool:
        """Whether validation answers rows, which takes longer than the loss alone."""
        return True

    @abstractmethod
    def predictions(self, hypotheses: list[list[Hypothesis]], sample: Any) -> list[Any]:
        """The answer of every row."""

    @abstractmethod
    def references(self, sample: Any) -> list[Any]:
        """What is right, for every row of a batch; none for a dummy batch."""

    @abstractmethod
    def score(self, predictions: list[Any], references: list[Any]) -> dict[str, np.ndarray]:
        """Scores of every answer by the names of :attr:`sums`; the one place where answers are scored."""

    @abstractmethod
    def result(self, row_id: str, prediction: Any) -> dict[str, Any]:
        """A line of the result file."""

    def example_line(self, prediction: Any, reference: Any) -> str:
        """What ``--eval-print-samples`` logs of the first row of a batch."""
        return f"example hypothesis: {prediction} | references: {reference}"

    # ---- prediction without data files

    def query_reader(self) -> Query:
        """How a picture and a text become an example without target: as the row reader does it."""
        return cast(Any, self.row_reader("test")).query

    # ---- validation

    def validation_metrics(self) -> set[str]:
        """The metrics, where validation answers rows."""
        return set(self.sums) if self.validates() else set()

    def answer_options(self, flags: Mapping[str, Any]) -> GenerationOptions:
        """How validation and predictions search: ``--eval-args`` changed by ``flags``.

        Raises:
            ConfigError: a flag out of range or of a search that is not supported.
        """
        return self.search_options(self.eval_options.with_flags(flags, "generation"))

    def evaluate(self, sample: Any, model: Any) -> dict[str, Any]:
        """Sums of the scores and the number of answers."""
        if not self.validates():
            return {}
        if self._generator is None:
            self._generator = SequenceGenerator([], self.target_dictionary, self.answer_options({}))
        hypotheses = [] if sample["is_dummy"] else self.search(self._generator, [model], sample)
        predictions, references = self.predictions(hypotheses, sample), self.references(sample)
        if getattr(self.cfg, "eval_print_samples", False) and predictions:
            logger.info(self.example_line(predictions[0], references[0]))
        scores = self.score(predictions, references)
        device = sample["target"].device
        log = {name: torch.tensor(float(scores[key].sum()), device=device) for key, (name, _) in self.sums.items()}
        return {**log, self.count: torch.tensor(float(len(predictions)), device=device)}

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Means of the metrics; where answers are scored, ``score`` is the task's and not a criterion's mean reward."""
        if "score" in self.sums and any(self.count in log for log in logging_outputs):
            logging_outputs = [{key: log[key] for key in log if key != "score"} for log in logging_outputs]
        super().reduce_metrics(logging_outputs, criterion)

        def total(key: str) -> float:
            return float(sum(log[key] for log in logging_outputs if key in log))

        for metric, (name, digits) in self.sums.items():
            part = self.per.get(metric)
            count = total(self.count if part is None else self.sums[part][0])
            if count > 0 and metric not in self.per.values():
                metrics.log_scalar(metric, total(name) / count, count, round=digits)

    # ---- result file of fairseq-generate

    def expect_results(self, dataset: RowDataset, batches: list[list[int]], shard: int, shards: int) -> None:
        """Prepares the result file when ``fairseq-generate --results-path`` is running."""
        flags = compat.command_line
        self._result_file, self._references = None, []
        if not flags.get("results_path") or "gen_subset" not in flags:
            return
        part = "" if shards == 1 else f"_part{shard + 1}of{shards}"
        path = Path(flags["results_path"]) / f"{flags['gen_subset']}_predict{part}.json"
        self._result_file = ResultFile(path, sum(map(len, batches)), self.describe(dataset, flags))

    def describe(self, dataset: RowDataset, flags: dict[str, Any]) -> dict[str, Any]:
        """What the file beside the answers tells about how they were made."""
        paths = [Path(path) for path in str(flags.get("path") or "").split(":") if path]
        return {
            "task": flags.get("task"),
            "data": str(dataset.table.path),
            "checkpoint": {str(path): {"sha256": sha256(path)} for path in paths if path.is_file()},
            "picture_size": self.cfg.patch_image_size,
        }

    def inference_step(
        self, generator: SequenceGenerator, models: Any, sample: Any, prefix_tokens: Any = None, constraints: Any = None
    ) -> list[list[Hypothesis]]:
        """As the base; also feeds the result file."""
        hypotheses = super().inference_step(generator, models, sample, prefix_tokens, constraints)
        if self._result_file is not None:
            predictions = self.predictions(hypotheses, sample)
            ids = [str(row_id) for row_id in sample["id"]]
            self._references.extend(self.references(sample))
            if self._result_file.add(list(zip(ids, predictions, strict=True)), sample.get("bad_rows", 0)):
                self._write_results(generator)
        return hypotheses

    def _write_results(self, generator: SequenceGenerator) -> None:
        assert self._result_file is not None
        answers = self._result_file.answers
        scores = self.score([prediction for _, prediction in answers], self._references)
        means = {
            name: float(scores[name].sum() / max(scores[self.per[name]].sum() if name in self.per else len(answers), 1))
            for name in self.sums
            if name not in self.per.values()
        }
        self._result_file.meta["generation"] = generator.options.as_dict()
        self._result_file.write([self.result(*answer) for answer in answers], means)
        logger.info(f"wrote {self._result_file.path}: {means}")
        self._result_file = None
