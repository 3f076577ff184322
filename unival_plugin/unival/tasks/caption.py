"""Picture captioning (UnIVAL, ``tasks/mm_tasks/caption.py``): registered as task ``caption``."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq.logging import metrics
from fairseq.tasks import register_task

from ... import compat
from ...data.dataset import Place, RowDataset, RowReader
from ...data.samples import Example
from ...data.text import strip_punctuation
from ...errors import ConfigError
from ...generation.generator import Hypothesis, SequenceGenerator
from ...generation.options import parse_eval_args
from ...metrics.captions import SEPARATOR, CaptionMetric, split_references
from ...metrics.cider import DocumentFrequency
from .base import UnIVALTask
from .config import UnIVALTaskConfig, option
from .results import ResultFile, sha256

logger = logging.getLogger(__name__)

PROMPT = " what does the image describe?"


@dataclass
class CaptionConfig(UnIVALTaskConfig):
    """Flags of ``--task caption``."""

    eval_cider: bool = option(
        False, "generate captions in validation; metrics cider (CIDEr-D, 0 to 10) and exact_match"
    )
    eval_args: Optional[str] = option(
        "{}", 'how to generate in validation, as JSON: {"beam": 5, "max_len_b": 22, "no_repeat_ngram_size": 3}'
    )
    eval_print_samples: bool = option(False, "log a hypothesis and its references for every validation batch")
    eval_cider_cached_tokens: Optional[str] = option(
        None,
        "document frequencies for CIDEr-D (.json; from `unival data cider-df`, or from the original's .p file by "
        "`unival data convert-df`); default: counted in the references of the validation file",
    )
    scst: bool = option(False, "training rows for reward training: keep all references and their length")
    scst_args: str = option("{}", "how to generate in reward training, as JSON; read by the reward criterion")
    prompt: Optional[str] = option(None, f"what the encoder is asked; default: {PROMPT!r}")


@dataclass
class CaptionReader:
    """Row -> example; the columns are id, picture, caption (references joined with ``&&``)."""

    prompt: str
    max_words: Optional[int]

    def __call__(self, cells: list[str], place: Place) -> Example:
        row_id, image, text = cells[:3]
        caption = self._training(text) if self.max_words is not None else self._references(text)
        return Example(id=row_id, source=self.prompt, target=f" {caption}", image=image, where=place(1))

    def _training(self, text: str) -> str:
        return " ".join(strip_punctuation(text).split()[: self.max_words])

    def _references(self, text: str) -> str:
        return SEPARATOR.join(strip_punctuation(part) for part in " ".join(text.split()).split(SEPARATOR))


@register_task("caption", dataclass=CaptionConfig)
class CaptionTask(UnIVALTask):
    """Captions for pictures."""

    columns = ("id", "picture", "caption")

    def __init__(self, cfg: CaptionConfig, text: Any) -> None:
        super().__init__(cfg, text)
        self.prompt = cfg.prompt if cfg.prompt is not None else PROMPT
        self.eval_options = parse_eval_args(cfg.eval_args)
        self._evaluated: Optional[RowDataset] = None
        self._metric: Optional[CaptionMetric] = None
        self._generator: Optional[SequenceGenerator] = None
        self._result_file: Optional[ResultFile] = None
        self._references: list[list[str]] = []

    def row_reader(self, split: str) -> RowReader:
        """Training rows are cut to ``--max-tgt-length`` words, all others keep every reference."""
        words = self.cfg.max_tgt_length if split == "train" and not self.cfg.scst else None
        return CaptionReader(self.prompt, words)

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, **kwargs: Any) -> None:
        """As the base; where captions will be scored also reads or counts the frequencies of n-grams in references."""
        super().load_dataset(split, combine, task_cfg, **kwargs)
        if split != "train":
            self._metric = None
            self._evaluated = self.datasets[split]
            if self.cfg.eval_cider or compat.command_line.get("scoring") == "caption":
                self._build_metric()

    def _build_metric(self) -> CaptionMetric:
        """The metric of the data set loaded last; not before it is needed: the file may be of another machine."""
        if self._evaluated is None:
            raise ConfigError("captions are scored against a validation or test file: load one first")
        self._metric = CaptionMetric(self._document_frequency(self._evaluated))
        return self._metric

    def _document_frequency(self, dataset: RowDataset) -> DocumentFrequency:
        path = self.cfg.eval_cider_cached_tokens
        if path:
            return DocumentFrequency.load(Path(path))
        reader = self.row_reader("valid")
        examples = (reader(["", "", cell], str) for cell in dataset.cells(2))
        return DocumentFrequency.from_references([split_references(example.target) for example in examples])

    # ---- metrics

    def validation_metrics(self) -> set[str]:
        """``cider`` and ``exact_match`` with ``--eval-cider``."""
        return {"cider", "exact_match"} if self.cfg.eval_cider else set()

    def evaluate(self, sample: Any, model: Any) -> dict[str, Any]:
        """Sums of CIDEr-D and of exact matches, and the number of captions."""
        if not self.cfg.eval_cider:
            return {}
        if self._generator is None:
            options = self.eval_options.with_flags(
                {"constraint_range": self.cfg.constraint_range}, "--constraint-range"
            )
            self._generator = SequenceGenerator([], self.target_dictionary, options)
        hypotheses = [] if sample["is_dummy"] else self._generator.generate([model], sample)
        captions, references = self.captions(hypotheses), self.references(sample)
        if self.cfg.eval_print_samples and captions:
            logger.info(f"example hypothesis: {captions[0]} | references: {' && '.join(references[0])}")
        scores = self.score(captions, references)
        device = sample["target"].device
        return {
            "_cider_score_sum": torch.tensor(float(scores["cider"].sum()), device=device),
            "_exact_match_sum": torch.tensor(float(scores["exact_match"].sum()), device=device),
            "_cider_cnt": torch.tensor(float(len(captions)), device=device),
        }

    def captions(self, hypotheses: list[list[Hypothesis]]) -> list[str]:
        """Text of the best hypothesis of every row."""
        return [strip_punctuation(self.text.decode(best[0]["tokens"])) for best in hypotheses]

    def references(self, sample: Any) -> list[list[str]]:
        """References of every row of a batch, from its target."""
        if sample["is_dummy"]:
            return []
        return [split_references(self.text.decode(target)) for target in sample["target"]]

    def score(self, captions: list[str], references: list[list[str]]) -> dict[str, Any]:
        """Scores per caption; the one place where captions are scored.

        Raises:
            ConfigError: no validation or test file has been loaded.
        """
        return (self._metric or self._build_metric()).score(captions, references)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Means of the metrics."""
        super().reduce_metrics(logging_outputs, criterion)

        def total(key: str) -> float:
            return float(sum(log[key] for log in logging_outputs if key in log))

        count = total("_cider_cnt")
        if count > 0:
            metrics.log_scalar("cider", total("_cider_score_sum") / count, count, round=3)
            metrics.log_scalar("exact_match", total("_exact_match_sum") / count, count, round=4)

    # ---- result file of fairseq-generate

    def expect_results(self, dataset: RowDataset, batches: list[list[int]], shard: int, shards: int) -> None:
        """Prepares the result file when ``fairseq-generate --results-path`` is running."""
        flags = compat.command_line
        self._result_file, self._references = None, []
        if not flags.get("results_path") or "gen_subset" not in flags:
            return
        part = "" if shards == 1 else f"_part{shard + 1}of{shards}"
        path = Path(flags["results_path"]) / f"{flags['gen_subset']}_predict{part}.json"
        self._result_file = ResultFile(path, sum(map(len, batches)), self._describe(dataset, flags))

    def _describe(self, dataset: RowDataset, flags: dict[str, Any]) -> dict[str, Any]:
        paths = [Path(path) for path in str(flags.get("path") or "").split(":") if path]
        return {
            "task": "caption",
            "data": str(dataset.table.path),
            "checkpoint": {str(path): {"sha256": sha256(path)} for path in paths if path.is_file()},
            "prompt": self.prompt,
            "picture_size": self.cfg.patch_image_size,
        }

    def inference_step(
        self, generator: SequenceGenerator, models: Any, sample: Any, prefix_tokens: Any = None, constraints: Any = None
    ) -> list[list[Hypothesis]]:
        """As the base; also feeds the result file."""
        hypotheses = super().inference_step(generator, models, sample, prefix_tokens, constraints)
        if self._result_file is not None:
            ids = [str(row_id) for row_id in sample["id"]]
            captions = self.captions(hypotheses)
            answers = [{"image_id": i, "caption": caption} for i, caption in zip(ids, captions, strict=True)]
            self._references.extend(self.references(sample))
            if self._result_file.add(answers, sample.get("bad_rows", 0)):
                self._write_results(generator)
        return hypotheses

    def _write_results(self, generator: SequenceGenerator) -> None:
        assert self._result_file is not None
        answers = self._result_file.answers
        scores = self.score([answer["caption"] for answer in answers], self._references)
        means = {name: float(values.mean()) for name, values in scores.items() if len(values)}
        self._result_file.meta["generation"] = generator.options.as_dict()
        self._result_file.write(means)
        logger.info(f"wrote {self._result_file.path}: {means}")
        self._result_file = None
