"""Trained models for direct use: ``from_pretrained(path).caption(["dog.jpg"])``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from .compat.averages import with_average_as_model
from .data.dataset import BadRow
from .data.image import decode_image
from .data.samples import Example, Sample, SampleEncoder, collate
from .errors import CheckpointError, ConfigError, DataError
from .generation.generator import SequenceGenerator
from .unival.tasks.caption import CaptionTask

Picture = Union[str, Path, bytes, Image.Image]
TEXT_FILES = ("sentencepiece_model", "bpe_dir")


@dataclass
class Prediction:
    """Answer for one picture: ``text`` and its ``score`` (mean log-probability of a token), or why there is none."""

    index: int
    text: str = ""
    score: float = float("nan")
    error: str = ""


def from_pretrained(
    path: str | Path, device: str | torch.device | None = None, ema: bool = False, **overrides: Any
) -> Predictor:
    """Loads a checkpoint for prediction.

    Args:
        path: a checkpoint of ``fairseq-train``, a released file, or what `unival convert` has made of them.
        device: default: the GPU if there is one, else the CPU.
        ema: use the averaged weights of a file that was trained with ``--store-ema``.
        overrides: options of the task or model to replace, e.g. ``bpe_dir="bpe"``, and ``task="caption"`` for a file
            that was trained for another task. Text files that the checkpoint names but that are gone are also looked
            for beside the checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, of another task, or holds no average.
        ConfigError: a tokenizer file is missing.
    """
    path = Path(path)
    state = checkpoint_utils.load_checkpoint_to_cpu(str(path), overrides or None)
    if state.get("cfg") is None:
        raise CheckpointError(f"{path}: holds weights but no configuration; use a file that fairseq-train has written")
    if ema:
        with_average_as_model(state, path)
    _find_text_files(state["cfg"].get("task") or {}, path.parent)
    models, cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], overrides or None, state=state)
    if not isinstance(task, CaptionTask):
        raise CheckpointError(f"{path}: trained for task {cfg.task._name}, which cannot be used here; caption can")
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Predictor([model.to(target).eval() for model in models], task, target)


def _find_text_files(task_cfg: Any, folder: Path) -> None:
    for name in TEXT_FILES:
        stored = task_cfg.get(name)
        beside = folder / Path(stored).name if stored else None
        if beside is not None and not Path(stored).exists() and beside.exists():
            task_cfg[name] = str(beside)


class Predictor:
    """A model with its task; made by :func:`from_pretrained`."""

    def __init__(self, models: Sequence[Any], task: CaptionTask, device: torch.device) -> None:
        self.models, self.task, self.device = list(models), task, device

    def caption(self, pictures: Sequence[Picture], batch_size: int = 16, **generation: Any) -> list[str]:
        """Captions of pictures, in order.

        Args:
            pictures: paths, encoded bytes or PIL pictures.
            batch_size: pictures a batch.
            generation: options of :class:`~unival_plugin.generation.options.GenerationOptions` (``beam_size=5``, …) on
                top of those that validation used in training.

        Raises:
            DataError: a picture cannot be read.
            ConfigError: a bad option.
        """
        predictions = list(self.stream(pictures, batch_size, **generation))
        for prediction in predictions:
            if prediction.error:
                raise DataError(prediction.error)
        return [prediction.text for prediction in predictions]

    def stream(
        self, pictures: Sequence[Picture], batch_size: int = 16, workers: int = 0, **generation: Any
    ) -> Iterator[Prediction]:
        """One :class:`Prediction` a picture, in order; a picture that cannot be read gives one with ``error``.

        Args:
            workers: processes that decode pictures.
            pictures, batch_size, generation: as in :meth:`caption`.
        """
        if batch_size < 1:
            raise ConfigError(f"batch size {batch_size}: must be at least 1")
        options = self.task.eval_options.with_flags(generation, "generation")
        generator = SequenceGenerator(self.models, self.task.target_dictionary, options)
        dataset = _Pictures(pictures, self.task.sample_encoder(), self.task.prompt)
        batches = DataLoader(dataset, batch_size=batch_size, num_workers=workers, collate_fn=list)
        done = 0
        for items in batches:
            yield from self._answer(generator, items, done)
            done += len(items)

    def _answer(self, generator: SequenceGenerator, items: list[Sample | BadRow], first: int) -> Iterator[Prediction]:
        good = [item for item in items if not isinstance(item, BadRow)]
        hypotheses: list[Any] = []
        if good:
            sample = collate(good, self.task.target_dictionary.pad())
            sample["is_dummy"] = False
            if self.device.type == "cuda":
                sample = utils.move_to_cuda(sample, self.device)
            hypotheses = self.task.inference_step(generator, self.models, sample)
        captions = iter(zip(self.task.predictions(hypotheses), hypotheses, strict=True))
        for index, item in enumerate(items, start=first):
            if isinstance(item, BadRow):
                yield Prediction(index, error=str(item))
            else:
                text, best = next(captions)
                yield Prediction(index, text, float(best[0]["score"]))


class _Pictures(Dataset):
    """Pictures as samples without target."""

    def __init__(self, pictures: Sequence[Picture], encoder: SampleEncoder, prompt: str) -> None:
        self.pictures, self.encoder, self.prompt = pictures, encoder, prompt

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample | BadRow:
        try:
            example = Example(str(index), self.prompt, "", self._open(index), where=str(index))
            return self.encoder(example, np.random.default_rng)
        except DataError as error:
            return BadRow(error)

    def _open(self, index: int) -> Image.Image:
        picture = self.pictures[index]
        if isinstance(picture, Image.Image):
            return picture
        where = f"picture {index}" if isinstance(picture, bytes) else str(picture)
        try:
            data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        except OSError as error:
            raise DataError(f"{where}: {error.strerror}; check the path") from error
        return decode_image(data, where, self.encoder.images.limits)
