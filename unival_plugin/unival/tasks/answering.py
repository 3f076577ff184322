"""What tasks with a closed set of answers do alike (UnIVAL, ``vqa_gen.py`` and ``snli_ve.py``)."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np

from ...data.answer_files import check_answers, read_answers
from ...data.answers import PROMPT_TYPES, AnswerEncoder, AnswerSet, collate_answers
from ...data.samples import Batch, Sample, SampleEncoder
from ...errors import ConfigError
from ...generation.candidates import CandidateScorer
from ...generation.generator import Hypothesis, SequenceGenerator
from ...generation.options import GenerationOptions
from .config import UnIVALTaskConfig, option
from .scored import ScoredTask

logger = logging.getLogger(__name__)

INFERENCE_TYPES = ("allcand", "beamsearch")


@dataclass
class AnsweringConfig(UnIVALTaskConfig):
    """Flags that the tasks with a set of answers share."""

    ans2label_dict: Optional[str] = option('{"no": 0, "yes": 1}', "the answers, as a JSON object answer -> number")
    ans2label_file: Optional[str] = option(
        None,
        "file of the answers: JSON (a list, or an object answer -> number) or text (an answer a line); wins over "
        "--ans2label-dict (`unival data convert-answers` makes one of the original's pickles)",
    )
    valid_batch_size: int = option(20, "accepted for old scripts: all answers are scored at once, in bounded memory")
    prompt_type: Optional[str] = option(
        None, "what the decoder begins with: none (start symbol), src (the source), prev_output (source without end)"
    )
    val_inference_type: str = option(
        "allcand", "how validation and fairseq-generate answer: allcand (score every answer) or beamsearch"
    )
    eval_args: Optional[str] = option(
        '{"beam": 5, "unnormalized": true, "temperature": 1.0}', "how beamsearch generates, as JSON"
    )
    noconstraints: bool = option(False, "generate freely instead of choosing from the answers")
    eval_print_samples: bool = option(False, "log an answer and what is right for every validation batch")


class AnsweringTask(ScoredTask):
    """Base of the tasks whose answers come from a set.

    Attributes:
        answers: the set.
    """

    def __init__(self, cfg: Any, text: Any) -> None:
        super().__init__(cfg, text)
        if cfg.prompt_type not in PROMPT_TYPES:
            raise ConfigError(f"--prompt-type {cfg.prompt_type}: give one of {', '.join(PROMPT_TYPES)}")
        if cfg.val_inference_type not in INFERENCE_TYPES:
            raise ConfigError(
                f"--val-inference-type {cfg.val_inference_type}: give one of {', '.join(INFERENCE_TYPES)}"
            )
        if (cfg.prompt_type, cfg.val_inference_type) == ("src", "beamsearch"):
            raise ConfigError(
                "--prompt-type src ends with the end symbol, at which a search stops: use prev_output, or "
                "--val-inference-type allcand"
            )
        self.answers = AnswerSet(self._answers(), text)
        logger.info(f"{len(self.answers.answers)} answers")
        self._scorer: Optional[CandidateScorer] = None

    def _answers(self) -> list[str]:
        if self.cfg.ans2label_file:
            return read_answers(Path(self.cfg.ans2label_file))
        try:
            return check_answers(json.loads(self.cfg.ans2label_dict), "--ans2label-dict")
        except json.JSONDecodeError as error:
            raise ConfigError(f"--ans2label-dict: not valid JSON ({error})") from error

    def sample_encoder(self, training: bool = False) -> SampleEncoder:
        """Examples to tensors, with the decoder's prompt and the mask of possible continuations."""
        return AnswerEncoder(super().sample_encoder(training), self.answers, str(self.cfg.prompt_type))

    def collate_more(self) -> Callable[[Sequence[Sample]], Batch]:
        """See :func:`collate_answers`."""
        return partial(collate_answers, pad=self.text.dictionary.pad())

    def learnable(self, split: str) -> Optional[AnswerSet]:
        """The answers that rows of ``split`` must have; None: any. Evaluation may meet others, which are just wrong."""
        return self.answers if split == "train" and not self.cfg.noconstraints else None

    # ---- answers

    def search_options(self, options: GenerationOptions) -> GenerationOptions:
        """As the base; behind a prompt never zero-shot: that mode compares answers with the prompt included."""
        options = super().search_options(options)
        if not options.zero_shot or self.cfg.prompt_type == "none":
            return options
        logger.info(f"--zero-shot changes nothing behind --prompt-type {self.cfg.prompt_type}")
        return options.with_flags({"zero_shot": False}, "--zero-shot")

    def search(self, generator: SequenceGenerator, models: Any, sample: Any) -> list[list[Hypothesis]]:
        """Answers of every row, best first, without the decoder's prompt."""
        prefix = sample.get("prefix_tokens")
        prefix = None if prefix is None or prefix.shape[1] == 0 else prefix
        if self.cfg.noconstraints:
            return generator.generate(models, sample)
        if self.cfg.val_inference_type == "allcand":
            return self._candidates(models or generator.models, sample, prefix, generator.options.beam_size)
        found = generator.generate(models, sample, prefix, self.answers.trie)
        if prefix is None:
            return found
        lengths = prefix.ne(self.text.dictionary.pad()).sum(dim=1).tolist()
        return [[_behind(h, length) for h in row] for row, length in zip(found, lengths, strict=True)]

    def _candidates(self, models: Any, sample: Any, prefix: Any, count: int) -> list[list[Hypothesis]]:
        if self._scorer is None:
            self._scorer = CandidateScorer(self.answers.tokens, self.text.dictionary.eos())
        dictionary = self.text.dictionary
        return self._scorer.best(
            models, sample, prefix_tokens=prefix, n=count, bos=dictionary.bos(), pad=dictionary.pad()
        )

    def predictions(self, hypotheses: list[list[Hypothesis]], sample: Any = None) -> list[str]:
        """The best answer of every row, empty where the search found none."""
        return [self.text.decode(row[0]["tokens"]).strip() if row else "" for row in hypotheses]

    def references(self, sample: Any) -> list[dict[str, float]]:
        """Right answers with their scores."""
        return [] if sample["is_dummy"] else list(sample["ref_dict"])

    def score(self, predictions: list[str], references: list[dict[str, float]]) -> dict[str, np.ndarray]:
        """The reference's score of every answer, 0 for others."""
        (name,) = self.sums
        return {name: np.array([right.get(given, 0.0) for given, right in zip(predictions, references, strict=True)])}


def _behind(hypothesis: Hypothesis, prompt: int) -> Hypothesis:
    """A hypothesis without its first ``prompt`` tokens; its score stays that of the whole."""
    return {
        **hypothesis,
        "tokens": hypothesis["tokens"][prompt:],
        "positional_scores": hypothesis["positional_scores"][prompt:],
    }
