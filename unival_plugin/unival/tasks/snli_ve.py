"""Visual entailment (UnIVAL, ``tasks/mm_tasks/snli_ve.py``): registered as task ``snli_ve``."""

from dataclasses import dataclass
from typing import Any, Optional

from fairseq.tasks import register_task

from ...data.answers import AnswerSet
from ...data.dataset import Place
from ...data.media import Media
from ...data.samples import Example
from ...data.text import pre_caption
from ...errors import DataError
from .answering import AnsweringConfig, AnsweringTask
from .config import option

ANSWERS = {"contradiction": "no", "entailment": "yes", "neutral": "maybe"}


@dataclass
class SnliVeConfig(AnsweringConfig):
    """Flags of ``--task snli_ve``."""

    ans2label_dict: Optional[str] = option(
        '{"no": 0, "yes": 1, "maybe": 2}', "the answers, as a JSON object answer -> number"
    )
    add_caption: bool = option(False, "tell the encoder the caption of the row as well")


@dataclass
class HypothesisReader:
    """Row -> example; the columns are id, picture, hypothesis, caption, label."""

    max_words: int
    add_caption: bool
    learnable: Optional[AnswerSet] = None  # where only these answers can be learned

    def __call__(self, cells: list[str], place: Place) -> Example:
        row_id, media, hypothesis, caption, label = cells[:5]
        if label not in ANSWERS:
            raise DataError(f"{place(4)}: {label[:40]!r} is no label; use {', '.join(ANSWERS)}")
        answer = ANSWERS[label]
        if self.learnable is not None:
            self.learnable.check(answer, place(4))
        source = self._source(hypothesis, caption, place(2))
        return Example(row_id, source, f" {answer}", media, place(1), extras={"ref_dict": {answer: 1.0}})

    def query(self, media: Media, text: str, where: str, context: str = "") -> Example:
        """A statement to be judged; ``context`` is what is known of the picture.

        Raises:
            DataError: no statement.
        """
        return Example(where, self._source(text, context, where), "", media, where)

    def _source(self, hypothesis: str, caption: str, where: str) -> str:
        statement = pre_caption(hypothesis, self.max_words)
        if not statement:
            raise DataError(f"{where}: the hypothesis is empty; fill it in or delete the row")
        if not self.add_caption:
            return f' does the image describe " {statement} "?'
        known = pre_caption(caption, self.max_words)
        return f' can image and text1 " {known} " imply text2 " {statement} "?'


@register_task("snli_ve", dataclass=SnliVeConfig)
class SnliVeTask(AnsweringTask):
    """Does a picture imply a statement: yes, no or maybe."""

    columns = ("id", "picture", "hypothesis", "caption", "label")
    sums = {"snli_score": ("_snli_score_sum", 4)}
    count = "_snli_cnt"

    def row_reader(self, split: str) -> HypothesisReader:
        """All splits alike, but that training rows need an answer of the set."""
        return HypothesisReader(self.cfg.max_src_length, self.cfg.add_caption, self.learnable(split))

    def result(self, row_id: str, prediction: str) -> dict[str, Any]:
        """The id and the answer."""
        return {"uniq_id": row_id, "answer": prediction}
