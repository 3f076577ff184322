"""Trained models for direct use: ``from_pretrained(path).caption(["dog.jpg"])``, ``answer``, ``ground``, ``draw``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from torch.utils.data import DataLoader, Dataset

from .checkpoints.adapters import apply_adapter
from .compat.averages import with_average_as_model
from .compat.stored_options import adopt_options
from .data.dataset import BadRow
from .data.media import Media
from .data.samples import Batch, Query, Sample, SampleEncoder, collate
from .errors import CheckpointError, ConfigError, DataError
from .generation.generator import Hypothesis, SequenceGenerator
from .unival.tasks.answering import AnsweringTask
from .unival.tasks.caption import CaptionTask
from .unival.tasks.drawing import Drawer, Drawing
from .unival.tasks.image_gen import ImageGenTask
from .unival.tasks.refcoco import RefcocoTask
from .unival.tasks.scored import ScoredTask
from .unival.tasks.vqa_gen import VqaGenConfig

Source = Media
"""A path, an encoded picture, a PIL picture, frames uint8 (T, 3, H, W) or a waveform float32 (N,)."""
Texts = Union[str, Sequence[str]]
Box = tuple[float, float, float, float]
TASKS = ("caption", "vqa_gen", "refcoco", "snli_ve", "video_caption", "video_vqa_gen", "audio_caption", "image_gen")
FILES = ("sentencepiece_model", "bpe_dir", "ans2label_file", "vqgan_model_path", "vqgan_config_path", "clip_model_path")
"""Options of tasks that name files or folders."""

T = TypeVar("T")


@dataclass
class Answer:
    """One hypothesis: ``text``, or ``box`` (x0, y0, x1, y1 in pixels of the picture), with its ``score``.

    The score is a log-probability: the mean of a token's, or that of the whole answer where all answers are scored
    (``val_inference_type="allcand"``) or scores are not normalised.
    """

    text: str = ""
    score: float = float("nan")
    box: Optional[Box] = None


@dataclass
class Prediction(Answer):
    """The best answer for row ``index``, and the n best with it as first; or why there is none."""

    index: int = -1
    error: str = ""
    n_best: list[Answer] = field(default_factory=list)


def from_pretrained(
    path: str | Path,
    device: str | torch.device | None = None,
    ema: bool = False,
    adapter: str | Path | None = None,
    **overrides: Any,
) -> Predictor:
    """Loads a checkpoint for prediction.

    Args:
        path: a checkpoint of ``fairseq-train``, a released file, or what `unival convert` has made of them.
        device: default: the GPU if there is one, else the CPU.
        ema: use the averaged weights of a file that was trained with ``--store-ema``.
        adapter: file with what was trained on top of ``path`` (`unival convert --only-trained`).
        overrides: options of the task or model to replace, e.g. ``bpe_dir="bpe"``, and ``task="vqa_gen"`` (with
            ``prompt_type="prev_output", ans2label_file="answers.json"``) for a file that was trained for another task.
            Files that the checkpoint names but that are gone (tokenizers, answers, for pictures VQGAN and CLIP) are
            also looked for beside the checkpoint.

    Raises:
        CheckpointError: a file is missing, damaged, unsafe, of another task or base, or holds no average.
        ConfigError: a tokenizer or answer file is missing, or an option that the task needs; the weights of CLIP that
            a file for ``image_gen`` names are gone and no others given (``clip_model_path=""``: none).
    """
    path = Path(path)
    state = checkpoint_utils.load_checkpoint_to_cpu(str(path), overrides or None)
    if adapter is not None:
        state = apply_adapter(state, adapter)
        adopt_options(state, overrides, str(adapter))
    if state.get("cfg") is None:
        raise CheckpointError(f"{path}: holds weights but no configuration; use a file that fairseq-train has written")
    if ema:
        with_average_as_model(state, path)
    task_cfg = state["cfg"].get("task") or {}
    _find_files(task_cfg, path.parent)
    _check_answer_options(task_cfg, overrides, path)
    _expect_captions(task_cfg, path)
    models, cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], overrides or None, state=state)
    if not isinstance(task, ScoredTask):
        raise CheckpointError(
            f"{path}: trained for task {cfg.task._name}, which cannot be used here; say for which task to use it: "
            f"{', '.join(TASKS)}"
        )
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Predictor([model.to(target).eval() for model in models], task, target)


def _find_files(task_cfg: Any, folder: Path) -> None:
    for name in FILES:
        stored = task_cfg.get(name)
        beside = folder / Path(stored).name if stored else None
        if beside is not None and not Path(stored).exists() and beside.exists():
            task_cfg[name] = str(beside)


def _check_answer_options(task_cfg: Any, given: dict[str, Any], path: Path) -> None:
    """A file that was trained for another task knows no answers, and not what the decoder begins with."""
    missing = []
    trained_so = task_cfg.get("prompt_type") is not None and "prompt_type" not in given  # its answers are its own
    if "prompt_type" in task_cfg and task_cfg["prompt_type"] is None:
        missing.append("--prompt-type (UnIVAL's own files: prev_output)")
    asks = task_cfg.get("_name") in ("vqa_gen", "video_vqa_gen") and not task_cfg.get("noconstraints")
    given_dict = "ans2label_dict" in given or task_cfg.get("ans2label_dict") != VqaGenConfig().ans2label_dict
    # the default dict is for training commands; hardly anybody means a model that says nothing but yes and no
    if asks and not trained_so and not task_cfg.get("ans2label_file") and not given_dict:
        missing.append("--ans2label-file (the answers to choose from: JSON, or an answer a line)")
    if missing:
        raise ConfigError(
            f"{path}: holds no answers for {task_cfg['_name']}, it was trained for another task or with defaults; give "
            + " and ".join(missing)
        )


def _expect_captions(task_cfg: Any, path: Path) -> None:
    """Pictures are drawn for captions alone, so there are no others to compare them with."""
    if task_cfg.get("_name") != "image_gen":
        return
    task_cfg["eval_clip_method"] = "ti_sim"
    clip = task_cfg.get("clip_model_path")
    if clip and not Path(clip).exists():
        raise ConfigError(
            f"{path}: pictures are ranked by CLIP, but its weights {clip} do not exist; give --clip-model-path, or an "
            'empty one ("") for pictures that are not ranked'
        )


class Predictor:
    """A model with its task; made by :func:`from_pretrained`."""

    def __init__(self, models: Sequence[Any], task: ScoredTask, device: torch.device) -> None:
        self.models, self.task, self.device = list(models), task, device

    def caption(self, media: Sequence[Source], batch_size: int = 16, **generation: Any) -> list[str]:
        """Captions of pictures, films or sounds, in order; for tasks ``caption``, ``video_caption``, ``audio_caption``.

        Args:
            media: paths; pictures also as encoded bytes or PIL pictures, films as frames uint8 (T, 3, height, width),
                sounds as waveforms float32 (N,).
            batch_size: of them a batch.
            generation: options of :class:`~unival_plugin.generation.options.GenerationOptions` (``beam_size=5``, …) on
                top of those that validation used in training.

        Raises:
            DataError: a file cannot be read.
            ConfigError: a bad option, or a model loaded for another task.
        """
        self._expect(CaptionTask, "caption, video_caption or audio_caption")
        return [prediction.text for prediction in self._all(media, None, batch_size, generation)]

    def answer(self, media: Sequence[Source], texts: Texts, batch_size: int = 16, **generation: Any) -> list[str]:
        """Answers to questions (``vqa_gen``, ``video_vqa_gen``), or yes, no, maybe to statements (``snli_ve``).

        Args:
            media, batch_size, generation: as in :meth:`caption`.
            texts: one for each picture, or one for all.

        Raises:
            DataError, ConfigError: as :meth:`caption`; also an empty text.
        """
        self._expect(AnsweringTask, "vqa_gen, video_vqa_gen or snli_ve")
        return [prediction.text for prediction in self._all(media, texts, batch_size, generation)]

    def ground(self, media: Sequence[Source], texts: Texts, batch_size: int = 16, **generation: Any) -> list[Box]:
        """Boxes (x0, y0, x1, y1 in pixels) of what expressions mean, in order; for task ``refcoco``.

        Args, raises: as :meth:`answer`; also DataError when the model gave something that is no box.
        """
        self._expect(RefcocoTask, "refcoco")
        found = self._all(media, texts, batch_size, generation)
        return [prediction.box for prediction in found if prediction.box is not None]

    def draw(self, captions: Texts, batch_size: int = 4, **generation: Any) -> list[Drawing]:
        """Pictures of captions, in order, each caption's best first; for task ``image_gen``.

        They are drawn at random: the same after the same ``torch.manual_seed``, with the same batches. With CLIP's
        weights their scores are the cosines by which they are ranked, otherwise log-probabilities.

        Args:
            captions: one or more.
            batch_size: captions a batch.
            generation: as in :meth:`caption`: ``beam_size`` (pictures a caption), ``sampling_topk``, ``sampling_topp``,
                ``temperature``.

        Raises:
            DataError: an empty caption.
            ConfigError: a bad option, a model loaded for another task, or one that names no VQGAN.
            CheckpointError: the VQGAN or CLIP cannot be used.
        """
        drawings = []
        for found in self.draw_each([captions] if isinstance(captions, str) else captions, batch_size, **generation):
            if isinstance(found, str):
                raise DataError(found)
            drawings.append(found)
        return drawings

    def draw_each(self, captions: Sequence[str], batch_size: int = 4, **generation: Any) -> Iterator[Drawing | BadRow]:
        """A :class:`Drawing` a caption, in order, drawn batch after batch; the reason where there is none, a str.

        Args, raises: as :meth:`draw`, but an empty caption keeps its place.
        """
        task: ImageGenTask = self._expect(ImageGenTask, "image_gen")
        _open(task.drawer.to(next(self.models[0].parameters()).device))
        generator = SequenceGenerator(self.models, task.target_dictionary, task.answer_options(generation))
        nothing = [b""] * len(captions)  # no file, after which messages would be named

        def drawn(samples: list[Sample]) -> list[Drawing]:
            return task.draw(*self._search(generator, samples))

        return self._each_row(self._loader(nothing, captions, [""] * len(captions), batch_size), drawn)

    def stream(
        self,
        media: Sequence[Source],
        texts: Texts | None = None,
        batch_size: int = 16,
        workers: int = 0,
        n_best: int = 1,
        contexts: Texts = "",
        **generation: Any,
    ) -> Iterator[Prediction]:
        """One :class:`Prediction` a file, in order; one with ``error`` for a row that cannot be used.

        Args:
            media, batch_size, generation: as in :meth:`caption`.
            texts: as in :meth:`answer`; None for captions.
            workers: processes that decode files.
            n_best: answers a row, at most the beam size.
            contexts: what else the encoder is told where the model was trained so: objects joined by ``&&``
                (``--add-object``), the caption (``--add-caption``).

        Raises:
            ConfigError: a bad option, no texts for a task that needs them, not as many as media, or a task that draws.
        """
        if isinstance(self.task, ImageGenTask):
            raise ConfigError("task image_gen gives pictures for texts: use draw")
        if texts is None and not isinstance(self.task, CaptionTask):
            raise ConfigError(f"task {self.task.cfg._name} needs a text for every {self.task.medium().name}")
        options = self.task.answer_options(generation)
        if not 1 <= n_best <= options.beam_size:
            raise ConfigError(f"{n_best} best answers: give 1 to {options.beam_size} (the beam), or a larger beam")
        loader = self._loader(
            media,
            _each(texts or "", len(media), "texts"),
            _each(contexts, len(media), "contexts"),
            batch_size,
            workers,
        )
        return self._stream(SequenceGenerator(self.models, self.task.target_dictionary, options), loader, n_best)

    def _stream(self, generator: SequenceGenerator, loader: DataLoader, n_best: int) -> Iterator[Prediction]:
        found = self._each_row(loader, lambda samples: self._answers(generator, samples, n_best))
        for index, answers in enumerate(found):
            yield Prediction(index=index, error=answers) if isinstance(answers, BadRow) else _best(index, answers)

    def _loader(
        self,
        media: Sequence[Source],
        texts: Sequence[str],
        contexts: Sequence[str],
        batch_size: int,
        workers: int = 0,
    ) -> DataLoader:
        """Batches of samples, as lists; bad rows are among them."""
        if batch_size < 1:
            raise ConfigError(f"batch size {batch_size}: must be at least 1")
        rows = _Rows(media, texts, contexts, self.task.query_reader(), self.task.sample_encoder())
        return DataLoader(rows, batch_size, num_workers=workers, collate_fn=list)

    def _each_row(self, loader: DataLoader, find: Callable[[list[Sample]], list[T]]) -> Iterator[T | BadRow]:
        """What ``find`` makes of every sample of a batch, or why the row cannot be used, in order."""
        for items in loader:
            good = [item for item in items if not isinstance(item, BadRow)]
            found = iter(find(good) if good else [])
            for item in items:
                yield item if isinstance(item, BadRow) else next(found)

    def _search(self, generator: SequenceGenerator, samples: list[Sample]) -> tuple[list[list[Hypothesis]], Batch]:
        """Hypotheses of samples, with their batch."""
        batch = collate(samples, self.task.target_dictionary.pad())
        more = self.task.collate_more()
        batch.update({**(more(samples) if more else {}), "is_dummy": False})
        if self.device.type == "cuda":
            batch = utils.move_to_cuda(batch, self.device)
        return self.task.inference_step(generator, self.models, batch), batch

    def _answers(self, generator: SequenceGenerator, samples: list[Sample], n_best: int) -> list[list[Answer]]:
        hypotheses, batch = self._search(generator, samples)
        answers: list[list[Answer]] = [[] for _ in hypotheses]
        for place in range(n_best):
            # where a search found fewer, the first stands in and is left out again
            chosen = [found[place : place + 1] or found[:1] for found in hypotheses]
            for row, prediction in enumerate(self.task.predictions(chosen, batch)):
                if place < len(hypotheses[row]):
                    answers[row].append(_answer(prediction, hypotheses[row][place]))
        return answers

    def _expect(self, kind: type, names: str) -> Any:
        if not isinstance(self.task, kind):
            raise ConfigError(
                f"this model was loaded for task {self.task.cfg._name}: load it with from_pretrained(path, "
                f"task=...) for {names}"
            )
        return self.task

    def _all(
        self, media: Sequence[Source], texts: Texts | None, batch_size: int, generation: dict[str, Any]
    ) -> list[Prediction]:
        predictions = list(self.stream(media, texts, batch_size, **generation))
        for prediction in predictions:
            if prediction.error:
                raise DataError(prediction.error)
        return predictions


def _open(drawer: Drawer) -> None:
    """Reads the files now: what is wrong with them should be known before the search."""
    for name in ("tokenizer", "clip") if drawer.scores else ("tokenizer",):
        getattr(drawer, name)


def _answer(prediction: str | torch.Tensor, hypothesis: Hypothesis) -> Answer:
    score = float(hypothesis["score"])
    if isinstance(prediction, str):
        return Answer(prediction, score)
    x0, y0, x1, y1 = prediction.tolist()
    return Answer("", score, (x0, y0, x1, y1))


def _best(index: int, answers: list[Answer]) -> Prediction:
    # what is no box comes as one without size
    if not answers or (answers[0].box is not None and not any(answers[0].box)):
        return Prediction(index=index, error="the model gave no answer in the form of the task; was it trained for it?")
    first = answers[0]
    usable = [answer for answer in answers if answer.box is None or any(answer.box)]
    return Prediction(first.text, first.score, first.box, index, n_best=usable)


def _each(values: Texts, count: int, name: str) -> Sequence[str]:
    if isinstance(values, str):
        return [values] * count
    if len(values) != count:
        raise ConfigError(f"{len(values)} {name} for {count} files: give one for each, or a single one for all")
    return values


@dataclass
class _Rows(Dataset):
    """Pictures, films or sounds and texts as samples without target."""

    media: Sequence[Source]
    texts: Sequence[str]
    contexts: Sequence[str]
    query: Query
    encoder: SampleEncoder

    def __len__(self) -> int:
        return len(self.media)

    def __getitem__(self, index: int) -> Sample | BadRow:
        media = self.media[index]
        is_file = isinstance(media, (str, Path))
        where = str(media) if is_file else f"{self.encoder.medium.name} {index}"
        try:
            opened = Path(media) if isinstance(media, str) else media  # a text would be the cell of a row
            example = self.query(opened, self.texts[index], where, self.contexts[index])
            return self.encoder(example, np.random.default_rng)
        except DataError as error:
            return BadRow(error)
