"""Multitask pretraining (UnIVAL, ``tasks/pretrain_tasks/unify_task.py``): registered as task ``unify_task``."""

import logging
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Union

from fairseq.tasks import register_task

from ... import compat
from ...data.boxes import BoxCodec
from ...data.dataset import RowReader
from ...data.grounding_transform import GroundingTrainTransform
from ...data.image import CentreTransform, EvalTransform, TrainTransform, eval_transform, train_transform
from ...data.media import Medium, Pictures
from ...data.mixing import Mixture, Source, format_table, left_out, ratios
from ...data.negatives import NegativeSamples
from ...data.pretraining import COLUMNS, PretrainingEncoder, PretrainingReader
from ...data.pretraining_dataset import COUNTED, PretrainingDataset
from ...data.tsv import TsvTable
from ...data.video import FilmEvalTransform, FilmTrainTransform
from ...errors import ConfigError, DataError
from .base import UnIVALTask, normalisation, parts_of, picture_options
from .films_sounds import films, sounds
from .unify_config import UnifyConfig

logger = logging.getLogger(__name__)

MAIN = "main"
SOURCES = ("image_text_vqa", "image_text_ground", "image_text", "audio", "audio_text", "video", "video_text")
"""Names of the sources that may be mixed in, in the order in which they are joined to a main row."""
_SECOND = ("video", "video_text")
# Pictures and films use trunks of their own; these take what has no gradient in a step as zeros.
_BACKENDS = ("no_c10d", "legacy_ddp")


@register_task("unify_task", dataclass=UnifyConfig)
class UnifyTask(UnIVALTask):
    """Captions, answers, regions and whether a text fits, about pictures, films and sounds.

    Rows of the main files and of up to seven other files have the columns
    :data:`~unival_plugin.data.pretraining.COLUMNS`; the last one says what a row is about.
    """

    columns = COLUMNS

    def __init__(self, cfg: UnifyConfig, text: Any) -> None:
        super().__init__(cfg, text)
        self.codec = BoxCodec(cfg.num_bins, cfg.max_image_size, cfg.patch_image_size)
        self._told = False

    # ---- rows

    @cached_property
    def negatives(self) -> NegativeSamples:
        """Wrong captions and answers; raises ConfigError where their files are missing or damaged."""
        if not self.cfg.neg_sample_dir:
            raise ConfigError(
                "pretraining asks about wrong captions and answers: name their folder with --neg-sample-dir "
                "(dataset_tools/negative_samples.py makes it from your rows)"
            )
        own = (self.cfg.neg_captions_video, self.cfg.neg_captions_audio)
        return NegativeSamples.read(Path(self.cfg.neg_sample_dir), *(Path(name) if name else None for name in own))

    def row_reader(self, split: str) -> RowReader:
        """Not used: see :meth:`pretraining_reader`."""
        raise ConfigError("unify_task is for pretraining: choose the task that the rows are for, such as caption")

    def pretraining_reader(self, split: str) -> PretrainingReader:
        """Rows to examples; only training rows are given a second one that asks whether a text fits."""
        negatives = self.negatives if split == "train" else None
        return PretrainingReader(self.cfg.max_src_length, self.cfg.max_tgt_length, negatives)

    # ---- media

    def medium(self, training: bool = False, epoch: int = 1) -> Pictures:
        """Pictures, augmented as the flags say when ``training``."""
        return Pictures(self._picture_transform(training, epoch), **picture_options(self.cfg))

    def _picture_transform(self, training: bool, epoch: int) -> Union[EvalTransform, TrainTransform]:
        cfg = self.cfg
        size, colours = cfg.patch_image_size, normalisation(cfg)
        if cfg.no_image_transform:
            return CentreTransform(size, *colours)
        if not self._augments(training):
            return eval_transform(size, *colours)
        same = (cfg.pretrain_seed, epoch) if cfg.repeat_operations else None
        return train_transform(size, *colours, same_operations=same)

    def _augments(self, training: bool) -> bool:
        return training and str(self.cfg.augmentation) == "all"

    def sample_encoder(self, training: bool = False, epoch: int = 1) -> PretrainingEncoder:
        """Examples about any medium to tensors."""
        cfg, colours = self.cfg, normalisation(self.cfg)
        frames = (cfg.patch_frame_size, *colours)
        moving = FilmTrainTransform(*frames, operations_last=True) if self._augments(training) else None
        media: dict[str, Medium] = {
            "picture": self.medium(training, epoch),
            "film": films(cfg, training, moving or FilmEvalTransform(*frames)),
            "sound": sounds(cfg, training),
        }
        region = GroundingTrainTransform(cfg.patch_image_size, *colours, resizes=self._augments(training))
        return PretrainingEncoder(self.text, media, region, self.codec)

    # ---- data

    @cached_property
    def tables(self) -> dict[str, list[TsvTable]]:
        """All files to train on: the main ones, and one of each source that is mixed in.

        Raises:
            DataError: a file is missing, its rows have too few columns, or a main file has none.
            ConfigError: no main file, or too few columns are selected.
        """
        cfg = self.cfg
        if not cfg.data:
            raise ConfigError("no data: name the files, e.g. train_1.tsv,train_2.tsv")
        names = [name.strip() for name in cfg.data.split(",")]
        if not all(names):
            raise ConfigError(f"data: empty file name in '{cfg.data}': separate the files by single commas")
        opened = {MAIN: [self._table(name, "data", cfg.selected_cols) for name in names]}
        for source in SOURCES:
            path = getattr(cfg, f"{source}_data")
            if path:
                columns = getattr(cfg, f"{source}_selected_cols", None) or cfg.selected_cols
                opened[source] = [self._table(path, _flag(source), columns, may_be_empty=True)]
        return opened

    def _table(self, path: str, flag: str, selected: Optional[str], may_be_empty: bool = False) -> TsvTable:
        try:
            table = TsvTable(path, selected)
            columns = table.columns if len(table) else COLUMNS
        except DataError as error:
            raise DataError(f"{flag}: {error}") from error
        if len(table) == 0 and not may_be_empty:
            raise DataError(f"{flag}: {path}: the file is empty; needs rows with the columns {', '.join(COLUMNS)}")
        if len(columns) < len(COLUMNS):
            raise ConfigError(
                f"{flag}: {path}: {len(columns)} columns selected, pretraining needs {len(COLUMNS)} "
                f"({', '.join(COLUMNS)}); set --selected-cols, e.g. 0,1,2,3,4,5,6,7"
            )
        return table

    @cached_property
    def mixture(self) -> Mixture:
        """What is read together in training; raises as :attr:`tables`, and ConfigError for a count out of range."""
        rows = {name: tuple(map(len, opened)) for name, opened in self.tables.items()}
        main = rows.pop(MAIN)
        second = _SECOND + (("audio", "audio_text") if self.cfg.audio_with_video else ())
        return Mixture(
            main,
            tuple(
                Source(name, count, getattr(self.cfg, f"{name}_cnt"), 2 if name in second else 1)
                for name, (count,) in rows.items()
            ),
            MAIN,
        )

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, **kwargs: Any) -> None:
        """Opens all files (training), or the one to validate on.

        Raises:
            ConfigError, DataError: as :attr:`tables`; or the file to validate on has no rows.
        """
        training, epoch = split == "train", kwargs.get("epoch", 1)
        if training:
            main, mixture = self.tables[MAIN], self.mixture
        else:
            main = [self._valid_table()]
            mixture = Mixture((len(main[0]),), main=MAIN)
        self.datasets[split] = PretrainingDataset(
            main,
            {name: opened[0] for name, opened in self.tables.items() if name != MAIN} if training else {},
            mixture,
            self.pretraining_reader(split),
            self.sample_encoder(training, epoch),
            self.text.dictionary.pad(),
            skip_bad_rows=str(self.cfg.on_bad_row) == "skip",
        )

    def _valid_table(self) -> TsvTable:
        path = self.cfg.valid_data
        # fairseq-validate takes the flags of the training, but the file of its own command line
        if path and not compat.command_line.get("path"):
            return self._table(path, "--valid-data", self.cfg.selected_cols)
        return self.tables[MAIN][-1]

    def expect_training(self, batch_size: int, shards: int) -> None:
        """As the base; before the first epoch the log shows what is mixed, and how much of it.

        Raises:
            ConfigError: several processes with a ``--ddp-backend`` that takes one batch a step only.
        """
        if self._told:
            return
        self._told = True
        backend = compat.command_line.get("ddp_backend", _BACKENDS[0])
        if shards > 1 and self.datasets["train"].paired and backend not in _BACKENDS:
            raise ConfigError(
                f"--ddp-backend {backend} takes one batch a step, but films make a second one: choose {_BACKENDS[0]}"
            )
        for message in left_out(self.mixture, shards):
            logger.warning(message)
        batches = next(iter(compat.command_line.get("update_freq") or ()), 1)
        logger.info(f"rows mixed: {batch_size} of {MAIN} a batch, {shards} processes, {batches} batches an update")
        for line in format_table(ratios(self.mixture, batch_size, shards, batches)):
            logger.info(f"| {line}")

    # ---- one step

    def train_step(self, sample: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any, dict[str, Any]]:
        """As the base, and counts rows read, samples made and rows left out of every source."""
        loss, sample_size, log = super().train_step(sample, *args, **kwargs)
        counts = parts_of(sample)[0]["counts"]
        log.update({f"{what}_{source}": count[what] for source, count in counts.items() for what in COUNTED})
        return loss, sample_size, log

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """As the base, with the counts of every source: ``rows_main``, ``samples_main``, ``bad_main``."""
        from fairseq.logging import metrics

        super().reduce_metrics(logging_outputs, criterion)
        skipping = str(self.cfg.on_bad_row) == "skip"
        for what in COUNTED if skipping else COUNTED[:2]:
            for source in (MAIN, *SOURCES):
                name = f"{what}_{source}"
                if any(name in log for log in logging_outputs):
                    count = sum(int(log.get(name, 0)) for log in logging_outputs)
                    metrics.log_scalar_sum(name, count, priority=2000)


def _flag(source: str) -> str:
    return f"--{source.replace('_', '-')}-data"
