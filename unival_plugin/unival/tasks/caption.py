"""Picture captioning (UnIVAL, ``tasks/mm_tasks/caption.py``): registered as task ``caption``."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

from fairseq.tasks import register_task
from tqdm import tqdm

from ... import compat
from ...data.dataset import Place, RowDataset
from ...data.media import Media
from ...data.samples import Example
from ...data.text import strip_punctuation
from ...data.tsv import TsvTable
from ...errors import ConfigError, DataError
from ...generation.generator import Hypothesis
from ...metrics.captions import SEPARATOR, CaptionMetric, split_references
from ...metrics.cider import DocumentFrequency
from .config import UnIVALTaskConfig, option
from .rewarded import SCST_ARGS_HELP, RewardedTask, RewardSearch


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
    scst_args: Optional[str] = option("{}", SCST_ARGS_HELP)
    prompt: Optional[str] = option(None, "what the encoder is asked; default: the original's question")


@dataclass
class CaptionReader:
    """Row -> example; the columns are id, picture, caption (references joined with ``&&``)."""

    prompt: str
    max_words: Optional[int]

    def __call__(self, cells: list[str], place: Place) -> Example:
        row_id, media, text = cells[:3]
        caption = self._training(text) if self.max_words is not None else self._references(text)
        return Example(id=row_id, source=self.prompt, target=f" {caption}", media=media, where=place(1))

    def query(self, media: Media, text: str, where: str, context: str = "") -> Example:
        """A picture to be described; there is no text or context: the prompt is the task's.

        Raises:
            DataError: a text.
        """
        if text:
            raise DataError(f"{where}: captions take no text; leave it out or choose another task")
        return Example(where, self.prompt, "", media, where)

    def _training(self, text: str) -> str:
        return " ".join(strip_punctuation(text).split()[: self.max_words])

    def _references(self, text: str) -> str:
        return SEPARATOR.join(strip_punctuation(part) for part in " ".join(text.split()).split(SEPARATOR))


@register_task("caption", dataclass=CaptionConfig)
class CaptionTask(RewardedTask):
    """Captions for pictures."""

    columns: tuple[str, ...] = ("id", "picture", "caption")
    question = " what does the image describe?"
    sums = {"cider": ("_cider_score_sum", 3), "exact_match": ("_exact_match_sum", 4)}
    count = "_cider_cnt"

    def __init__(self, cfg: CaptionConfig, text: Any) -> None:
        super().__init__(cfg, text)
        self.prompt = cfg.prompt if cfg.prompt is not None else self.question
        self._evaluated: Optional[RowDataset] = None
        self._metric: Optional[CaptionMetric] = None

    def row_reader(self, split: str) -> CaptionReader:
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

    # ---- reward training

    @cached_property
    def scst_generator(self) -> RewardSearch:
        """As the base.

        Raises:
            ConfigError: without ``--scst`` training rows have no references to compare with; or ``--scst-args`` gives
                one caption a picture.
        """
        if not self.cfg.scst:
            raise ConfigError("captions are rewarded by their references, which training rows keep only with --scst")
        search = super().scst_generator
        if search.options.beam_size < 2:
            raise ConfigError('--scst-args: captions are compared with each other; needs at least {"beam": 2}')
        return search

    def training_references(self) -> Iterator[list[str]]:
        """References of every row of all training files, or of the only file there is; a row should be a picture.

        Raises:
            DataError: a file is missing, or a row of it bad.
        """
        files = [name.strip() for name in (self.cfg.data or "").split(",")]
        reader, encoder, pad = self.row_reader("valid"), self.sample_encoder(), self.text.dictionary.pad()
        for path in dict.fromkeys(files[:-1] or files):
            table = TsvTable(path, self.cfg.selected_cols)
            rows = RowDataset(table, reader, encoder, pad, skip_bad_rows=str(self.cfg.on_bad_row) == "skip")
            for cell in tqdm(rows.cells(2), Path(path).name, len(table), disable=None):
                yield split_references(reader(["", "", cell], str).target)

    # ---- answers

    def validates(self) -> bool:
        """With ``--eval-cider``."""
        return bool(self.cfg.eval_cider)

    def predictions(self, hypotheses: list[list[Hypothesis]], sample: Any = None) -> list[str]:
        """Text of the best hypothesis of every row."""
        return [strip_punctuation(self.text.decode(best[0]["tokens"])) for best in hypotheses]

    def references(self, sample: Any) -> list[list[str]]:
        """References of every row of a batch, from its target."""
        if sample["is_dummy"]:
            return []
        return [split_references(self.text.decode(target)) for target in sample["target"]]

    def score(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        """CIDEr-D and exact match of every caption.

        Raises:
            ConfigError: no validation or test file has been loaded.
        """
        return (self._metric or self._build_metric()).score(predictions, references)

    def result(self, row_id: str, prediction: str) -> dict[str, Any]:
        """As COCO's evaluation takes it."""
        return {"image_id": row_id, "caption": prediction}

    def example_line(self, prediction: str, reference: list[str]) -> str:
        """A caption and its references."""
        return super().example_line(prediction, " && ".join(reference))

    def describe(self, dataset: RowDataset, flags: dict[str, Any]) -> dict[str, Any]:
        """As the base, with the prompt."""
        return {**super().describe(dataset, flags), "task": str(self.cfg._name), "prompt": self.prompt}
