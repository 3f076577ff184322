"""What all UnIVAL tasks do alike: data files, batches, precision, generation; registered as task ``unival``."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq.data import Dictionary, iterators
from fairseq.tasks import FairseqTask, register_task

from ...data.dataset import RowDataset, RowReader
from ...data.image import HALF_MEAN, HALF_STD, IMAGENET_MEAN, IMAGENET_STD, ImageLimits, eval_transform, train_transform
from ...data.media import Medium, Pictures
from ...data.samples import Batch, Sample, SampleEncoder
from ...data.text import TextEncoder, build_text_encoder
from ...data.tsv import TsvTable, epoch_file
from ...errors import ConfigError, DataError
from ...generation.generator import Hypothesis, SequenceGenerator
from ...generation.options import GenerationOptions
from ...optim.lr_schedule import note_train_batches
from ..model.starting import without_start_files
from .config import UnIVALTaskConfig

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 16
AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@register_task("unival", dataclass=UnIVALTaskConfig)
class UnIVALTask(FairseqTask):
    """Base of the tasks; a subclass names its columns, reads rows and scores hypotheses.

    Attributes:
        columns: what ``--selected-cols`` must select, in order, for messages.
        text: tokenizer and dictionary.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, cfg: UnIVALTaskConfig, text: TextEncoder) -> None:
        super().__init__(cfg)
        self.text = text

    @classmethod
    def setup_task(cls, cfg: UnIVALTaskConfig, **kwargs: Any) -> "UnIVALTask":
        """Builds the dictionary.

        Raises:
            ConfigError: a tokenizer file is missing.
        """

        def path(name: Optional[str]) -> Optional[Path]:
            return Path(name) if name else None

        text = build_text_encoder(
            cfg.bpe or "gpt2", path(cfg.bpe_dir), path(cfg.sentencepiece_model), cfg.code_dict_size, cfg.num_bins
        )
        logger.info(f"dictionary: {len(text.dictionary)} symbols")
        return cls(cfg, text)

    # ---- model

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """The model; one that is to be filled from a checkpoint never opens the files that training started from."""
        return super().build_model(without_start_files(cfg) if from_checkpoint else cfg, from_checkpoint)

    # ---- data

    def row_reader(self, split: str) -> RowReader:
        """Meaning of a row in ``split``; given by the task."""
        raise ConfigError("--task unival is only the common base: choose a task such as caption")

    def sample_encoder(self, training: bool = False) -> SampleEncoder:
        """Examples to tensors, with augmentation when ``training`` and ``--use-dataaug``."""
        return SampleEncoder(self.text, self.medium(training))

    def medium(self, training: bool = False) -> Medium:
        """What a row shows or plays."""
        cfg = self.cfg
        make = train_transform if training and cfg.use_dataaug else eval_transform
        return Pictures(make(cfg.patch_image_size, *normalisation(cfg)), **picture_options(cfg))

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, **kwargs: Any) -> None:
        """Opens the file of ``split`` and epoch ``kwargs["epoch"]``.

        Raises:
            ConfigError: ``data`` or ``--selected-cols`` does not suit the task.
            DataError: the file is missing, empty or has too few columns.
        """
        if not self.cfg.data:
            raise ConfigError("no data: name the files, e.g. train.tsv,valid.tsv")
        table = TsvTable(epoch_file(self.cfg.data, split, kwargs.get("epoch", 1)), self.cfg.selected_cols)
        if len(table) == 0:
            raise DataError(f"{table.path}: the file is empty; needs rows with the columns {', '.join(self.columns)}")
        if len(table.columns) < len(self.columns):
            raise ConfigError(
                f"{table.path}: {len(table.columns)} columns selected, the task needs {len(self.columns)} "
                f"({', '.join(self.columns)}); set --selected-cols, e.g. 0,4,2"
            )
        self.datasets[split] = RowDataset(
            table,
            self.row_reader(split),
            self.sample_encoder(training=split == "train"),
            self.text.dictionary.pad(),
            skip_bad_rows=str(self.cfg.on_bad_row) == "skip",
            collate_more=self.collate_more(),
        )

    def collate_more(self) -> Optional[Callable[[Sequence[Sample]], Batch]]:
        """Function that makes what batches of this task have beside the common keys."""
        return None

    def has_sharded_data(self, split: str) -> bool:
        """True: fairseq then loads the data of every epoch anew, which may be another file."""
        return True

    def get_batch_iterator(
        self,
        dataset: RowDataset,
        max_sentences: Optional[int] = None,
        seed: int = 1,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        epoch: int = 1,
        data_buffer_size: int = 0,
        **_: Any,
    ) -> iterators.EpochBatchIterator:
        """Iterator over this process' batches of one epoch.

        Every process gets the same number of batches, and rows in an order that is a function of seed and epoch. Token
        limits, size filters and ``--required-batch-size-multiple`` do not apply: no row is ever dropped.
        """
        if max_sentences is None:
            max_sentences = DEFAULT_BATCH_SIZE
            logger.warning(
                f"no --batch-size given (--max-tokens does not apply to rows with pictures): using {max_sentences}"
            )
        training = dataset is self.datasets.get("train")
        shuffle = training and str(self.cfg.row_order) == "shuffled"
        batches = dataset.batches(num_shards, shard_id, max_sentences, seed, epoch, shuffle)
        if training:
            note_train_batches(len(batches))
            self.expect_training(max_sentences, num_shards)
        else:
            self.expect_results(dataset, batches, shard_id, num_shards)
        if num_workers > 0:
            dataset.encoder.warm_up()
        return iterators.EpochBatchIterator(
            dataset=dataset,
            collate_fn=dataset.collater,
            batch_sampler=batches,
            seed=seed,
            num_workers=num_workers,
            epoch=epoch,
            buffer_size=data_buffer_size,
            disable_shuffling=True,
            persistent_workers=False,
        )

    def expect_training(self, batch_size: int, shards: int) -> None:
        """Hook: an epoch of training follows, with so many rows in a batch of each process."""

    def expect_results(self, dataset: RowDataset, batches: list[list[int]], shard: int, shards: int) -> None:
        """Hook: an evaluation of these batches may follow."""

    # ---- one step

    def _precision(self, sample: Any) -> torch.autocast:
        name = str(self.cfg.autocast)
        device = parts_of(sample)[0]["net_input"]["src_tokens"].device.type
        if name == "fp16" and device == "cpu":
            raise ConfigError("--autocast fp16 needs a GPU: use --autocast bf16 on the CPU")
        return torch.autocast(device, dtype=AUTOCAST_DTYPES.get(name, torch.bfloat16), enabled=name != "none")

    def train_step(
        self,
        sample: Any,
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
        **_: Any,
    ) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        """Forward and backward pass of a batch, or a list of two (pretraining); dummy batches count nothing."""
        model.train()
        model.set_num_updates(update_num)
        with torch.autograd.profiler.record_function("forward"), self._precision(sample):
            loss, sample_size, log = criterion(model, sample, update_num=update_num)
        if ignore_grad or all(part["is_dummy"] for part in parts_of(sample)):
            loss, sample_size, log = loss * 0, sample_size * 0, nothing_of(log)
        log["bad_rows"] = sum(part.get("bad_rows", 0) for part in parts_of(sample))
        with torch.autograd.profiler.record_function("backward"):
            optimizer.backward(loss)
        return loss, sample_size, log

    def valid_step(self, sample: Any, model: Any, criterion: Any, **_: Any) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        """Loss and metrics of a batch; a dummy batch counts nothing."""
        model.eval()
        with torch.no_grad(), self._precision(sample):
            loss, sample_size, log = criterion(model, sample)
            log.update(self.evaluate(sample, model))
        if sample["is_dummy"]:
            loss, sample_size, log = loss * 0, sample_size * 0, nothing_of(log)
        log["bad_rows"] = sample.get("bad_rows", 0)
        return loss, sample_size, log

    def evaluate(self, sample: Any, model: Any) -> dict[str, Any]:
        """Sums of the task's metrics over a batch, by log name; the same names for every batch."""
        return {}

    def validation_metrics(self) -> set[str]:
        """Names that ``--best-checkpoint-metric`` may have beside the criterion's."""
        return set()

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Adds the number of rows that were left out to the criterion's metrics."""
        from fairseq.logging import metrics

        super().reduce_metrics(logging_outputs, criterion)
        bad = sum(int(log.get("bad_rows", 0)) for log in logging_outputs)
        if str(self.cfg.on_bad_row) == "skip":
            metrics.log_scalar_sum("bad_rows", bad)

    # ---- generation

    def build_generator(
        self, models: Any, args: Any, seq_gen_cls: Any = None, extra_gen_cls_kwargs: Any = None, **_: Any
    ) -> SequenceGenerator:
        """Beam search, or sampling, with fairseq's generation flags.

        Raises:
            ConfigError: a kind of search that is not supported.
        """
        flags = dict(args) if not hasattr(args, "__dict__") or hasattr(args, "keys") else vars(args)
        options = self.search_options(GenerationOptions().with_flags(flags, "generation flags"))
        return SequenceGenerator(models, self.target_dictionary, options)

    def search_options(self, options: GenerationOptions) -> GenerationOptions:
        """Those of a command with what the task's own flags say; for validation, generation and prediction alike."""
        own = {"constraint_range": self.cfg.constraint_range, "zero_shot": self.cfg.zero_shot or None}
        return options.with_flags(own, "--constraint-range, --zero-shot")

    def inference_step(
        self, generator: SequenceGenerator, models: Any, sample: Any, prefix_tokens: Any = None, constraints: Any = None
    ) -> list[list[Hypothesis]]:
        """Hypotheses of a batch, best first; none for a dummy batch."""
        if sample["is_dummy"]:
            return []
        with torch.no_grad(), self._precision(sample):
            return self.search(generator, models, sample)

    def search(self, generator: SequenceGenerator, models: Any, sample: Any) -> list[list[Hypothesis]]:
        """Hypotheses of a batch that is no dummy; tasks with a set of answers constrain them here."""
        return generator.generate(models, sample)

    def build_bpe(self, args: Any) -> Any:
        """The task's own tokenizer, for the text lines of ``fairseq-generate``."""
        return self.text.bpe

    @property
    def source_dictionary(self) -> Dictionary:
        """Dictionary of prompts."""
        return self.text.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        """Dictionary of targets, the same as of prompts."""
        return self.text.dictionary

    def max_positions(self) -> tuple[int, int]:
        """Longest source and target in tokens."""
        return self.cfg.max_source_positions, self.cfg.max_target_positions


def picture_options(cfg: Any) -> dict[str, Any]:
    """Where and within which limits pictures are read, for :class:`Pictures`."""
    return {
        "folder": Path(cfg.image_dir) if cfg.image_dir else None,
        "from_path": cfg.read_from_img_path,
        "limits": ImageLimits(max_pixels=cfg.max_image_pixels),
    }


def normalisation(cfg: Any) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of pixels, of every colour."""
    return (IMAGENET_MEAN, IMAGENET_STD) if cfg.imagenet_default_mean_and_std else (HALF_MEAN, HALF_STD)


def parts_of(sample: Any) -> Sequence[Any]:
    """The batches of a step: one, or in pretraining two."""
    return sample if isinstance(sample, (list, tuple)) else [sample]


def nothing_of(log: dict[str, Any]) -> dict[str, Any]:
    """The same names with zeros: what a dummy batch contributes."""
    return {key: value * 0 for key, value in log.items()}
