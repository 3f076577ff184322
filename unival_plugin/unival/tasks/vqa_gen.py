"""Questions about pictures (UnIVAL, ``tasks/mm_tasks/vqa_gen.py``): registered as task ``vqa_gen``."""

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from fairseq.tasks import register_task

from ...data.answers import SEPARATOR, AnswerSet, parse_references
from ...data.dataset import Place
from ...data.media import Media
from ...data.samples import Example
from ...data.text import pre_question
from ...errors import DataError
from ...metrics.vqa import soft_score
from .answering import AnsweringConfig, AnsweringTask
from .config import option


@dataclass
class VqaGenConfig(AnsweringConfig):
    """Flags of ``--task vqa_gen``."""

    max_object_length: int = option(30, "at most so many objects of a row with --add-object")
    add_object: bool = option(False, "tell the encoder the objects of the row")
    uses_ema: bool = option(False, "validate with the averaged weights (needs --store-ema)")
    official_score: bool = option(False, "compare answers as the official VQA evaluation does (articles, numbers, …)")


@dataclass
class QuestionReader:
    """Row -> example; the columns are id, picture, question, answers (``conf|!+answer&&…``), objects (``a&&b``)."""

    max_words: int
    max_objects: int
    add_object: bool
    learnable: Optional[AnswerSet] = None  # where only these answers can be learned

    def __call__(self, cells: list[str], place: Place) -> Example:
        row_id, media, text, answers, objects = cells[:5]
        references = parse_references(answers, place(3))
        best = max(references, key=lambda answer: references[answer])
        if self.learnable is not None:
            self.learnable.check(best, place(3))
        confidence = torch.tensor([references[best]], dtype=torch.float32)
        return Example(
            id=row_id,
            source=self._source(text, place(2)),
            target=f" {best}",
            media=media,
            where=place(1),
            suffix=self._objects(objects),
            extras={"ref_dict": references, "conf": confidence},
        )

    def query(self, media: Media, text: str, where: str, context: str = "") -> Example:
        """A question to be answered; ``context`` are the objects."""
        return Example(where, self._source(text, where), "", media, where, suffix=self._objects(context))

    def _source(self, text: str, where: str) -> str:
        question = pre_question(text, self.max_words)
        if not question:
            raise DataError(f"{where}: the question is empty; fill it in or delete the row")
        return f" {question}" + ("" if question.endswith("?") else "?")

    def _objects(self, cell: str) -> str:
        if not self.add_object:
            return ""
        return " object: " + " ".join(cell.strip().split(SEPARATOR)[: self.max_objects])


@register_task("vqa_gen", dataclass=VqaGenConfig)
class VqaGenTask(AnsweringTask):
    """Questions with answers from a set."""

    columns: tuple[str, ...] = ("id", "picture", "question", "answers", "objects")
    sums = {"vqa_score": ("_vqa_score_sum", 4)}
    count = "_vqa_cnt"

    def __init__(self, cfg: VqaGenConfig, text: Any) -> None:
        super().__init__(cfg, text)
        self.uses_ema = bool(cfg.uses_ema)  # fairseq's trainer hands the average to tasks with this attribute

    def row_reader(self, split: str) -> QuestionReader:
        """All splits alike, but that training rows need an answer of the set."""
        cfg = self.cfg
        return QuestionReader(cfg.max_src_length, cfg.max_object_length, cfg.add_object, self.learnable(split))

    def valid_step(self, sample: Any, model: Any, criterion: Any, **more: Any) -> Any:
        """As the base, with the averaged weights if ``--uses-ema``."""
        average = more.pop("ema_model", None) if self.cfg.uses_ema else None
        return super().valid_step(sample, model if average is None else average, criterion, **more)

    def score(self, predictions: list[str], references: list[dict[str, float]]) -> dict[str, np.ndarray]:
        """Soft score of every answer (Goyal et al. 2017, "Making the V in VQA matter")."""
        official = bool(self.cfg.official_score)
        pairs = zip(predictions, references, strict=True)
        return {"vqa_score": np.array([soft_score(given, right, official) for given, right in pairs])}

    def result(self, row_id: str, prediction: str) -> dict[str, Any]:
        """As the VQA evaluation server takes it."""
        return {"question_id": int(row_id) if row_id.isdecimal() else row_id, "answer": prediction}
