"""Visual grounding (UnIVAL, ``tasks/mm_tasks/refcoco.py``): registered as task ``refcoco``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task

from ...data.boxes import COORDINATES, BoxCodec, BoxEncoder, collate_boxes, parse_box
from ...data.dataset import Place
from ...data.media import Media
from ...data.samples import Batch, Example, Sample, SampleEncoder
from ...data.text import pre_caption
from ...errors import ConfigError, DataError
from ...generation.generator import Hypothesis, SequenceGenerator
from ...generation.grammar import BoxGrammar
from ...generation.options import GenerationOptions
from ...metrics.boxes import BoxMetric, boxes_of_symbols
from .config import UnIVALTaskConfig, option
from .rewarded import SCST_ARGS_HELP, RewardedTask


@dataclass
class RefcocoConfig(UnIVALTaskConfig):
    """Flags of ``--task refcoco``."""

    eval_acc: bool = option(False, "find boxes in validation; metric score")
    eval_args: Optional[str] = option(
        "{}", 'how to generate in validation, as JSON: {"beam": 5, "min_len": 4, "max_len_a": 0, "max_len_b": 4}'
    )
    eval_print_samples: bool = option(False, "log a box and what is right for every validation batch")
    max_image_size: int = option(512, "pixels that the bins of a coordinate span; at least --patch-image-size")
    acc_thresh: Optional[str] = option(
        None,
        "overlap (IoU) from which a box is right, e.g. 0.5, or several, of which score is the first; default: score is "
        "the mean overlap itself",
    )
    box_grammar: ChoiceEnum(["none", "bins", "ordered"]) = option(  # type: ignore[valid-type]
        "bins",
        "what the search may give: four bins, four bins with x0 <= x1 and y0 <= y1, or anything (as the original); the "
        "scores of boxes are the same",
    )
    min_area_size: Optional[float] = option(None, "right boxes above this area in square pixels are large: score_large")
    max_area_size: Optional[float] = option(None, "right boxes below this area in square pixels are small: score_small")
    scst: bool = option(False, "accepted for old commands: the criterion says whether boxes are rewarded")
    scst_args: Optional[str] = option("{}", f"{SCST_ARGS_HELP} (see --box-grammar)")


@dataclass
class ExpressionReader:
    """Row -> example; the columns are id, picture, expression, box (``x0,y0,x1,y1`` in pixels)."""

    max_words: int

    def __call__(self, cells: list[str], place: Place) -> Example:
        row_id, media, text, box = cells[:4]
        source = self._source(text, place(2))
        return Example(row_id, source, "", media, place(1), extras={"region_coord": parse_box(box, place(3))})

    def query(self, media: Media, text: str, where: str, context: str = "") -> Example:
        """An expression to be found in a picture; there is no context."""
        return Example(where, self._source(text, where), "", media, where)

    def _source(self, text: str, where: str) -> str:
        expression = pre_caption(text, self.max_words)
        if not expression:
            raise DataError(f"{where}: the expression is empty; fill it in or delete the row")
        return f' which region does the text " {expression} " describe?'


@register_task("refcoco", dataclass=RefcocoConfig)
class RefcocoTask(RewardedTask):
    """Boxes for expressions."""

    columns = ("id", "picture", "expression", "box")
    sums = {"score": ("_score_sum", 4)}
    count = "_score_cnt"

    def __init__(self, cfg: RefcocoConfig, text: Any) -> None:
        super().__init__(cfg, text)
        self.codec = BoxCodec(cfg.num_bins, cfg.max_image_size, cfg.patch_image_size)
        self.first_bin = text.dictionary.index("<bin_0>")
        if cfg.constraint_range and str(cfg.box_grammar) != "none":
            raise ConfigError("--constraint-range excludes the grammar of boxes: add --box-grammar none")
        ordered = str(cfg.box_grammar) == "ordered"
        grammar = BoxGrammar(self.first_bin, cfg.num_bins, text.dictionary.eos(), ordered)
        self.grammar = None if str(cfg.box_grammar) == "none" else grammar
        self.metric = BoxMetric(self._thresholds(), cfg.min_area_size, cfg.max_area_size)
        self.sums = {"score": ("_score_sum", 4), "iou": ("_iou_sum", 4)}
        for threshold in self.metric.thresholds:
            self.sums[f"acc{threshold:g}"] = (f"_acc{threshold:g}_sum", 4)
        self.per = {f"score_{band}": band for band in self._bands()}
        for metric, band in self.per.items():
            self.sums |= {metric: (f"_{metric}_sum", 4), band: (f"_{band}_cnt", 4)}

    def _thresholds(self) -> list[float]:
        try:
            return [float(part) for part in (self.cfg.acc_thresh or "").split(",") if part.strip()]
        except ValueError as error:
            raise ConfigError(f"--acc-thresh {self.cfg.acc_thresh}: needs numbers such as 0.5 or 0.4,0.5") from error

    def _bands(self) -> list[str]:
        small, large = self.cfg.max_area_size is not None, self.cfg.min_area_size is not None
        return ["small"] * small + ["medium"] * (small and large) + ["large"] * large

    def row_reader(self, split: str) -> ExpressionReader:
        """All splits alike."""
        return ExpressionReader(self.cfg.max_src_length)

    def search_options(self, options: GenerationOptions) -> GenerationOptions:
        """As the base; with a box grammar never fewer or more symbols than a box has.

        Repeated coordinates are not blocked where their order is given: the only ones left might be blocked.
        """
        options = super().search_options(options)
        if self.grammar is None:
            return options
        boxes = {"min_len": COORDINATES, "max_len_a": 0.0, "max_len_b": COORDINATES, "zero_shot": True}
        return options.with_flags({**boxes, **({"no_repeat_ngram_size": 0} if self.grammar.ordered else {})}, "boxes")

    def sample_encoder(self, training: bool = False) -> SampleEncoder:
        """Examples to tensors, with the box as the target."""
        return BoxEncoder(super().sample_encoder(training), self.codec)

    def collate_more(self) -> Callable[[Sequence[Sample]], Batch]:
        """See :func:`collate_boxes`."""
        return collate_boxes

    # ---- answers

    def search(self, generator: SequenceGenerator, models: Any, sample: Any) -> list[list[Hypothesis]]:
        """Boxes of every row, best first."""
        return generator.generate(models, sample, trie=self.grammar)

    def validates(self) -> bool:
        """With ``--eval-acc``."""
        return bool(self.cfg.eval_acc)

    def predictions(self, hypotheses: list[list[Hypothesis]], sample: Any = None) -> list[torch.Tensor]:
        """The best box of every row, float32 (4,) in pixels of the original picture; no box is a box without size."""
        ratios = torch.from_numpy(sample["resize_ratios"])[: len(hypotheses)]
        symbols = [found[0]["tokens"] if found else torch.empty(0, dtype=torch.int64) for found in hypotheses]
        return list(boxes_of_symbols(symbols, self.first_bin, self.codec, ratios))

    def references(self, sample: Any) -> list[torch.Tensor]:
        """The right boxes."""
        return [] if sample["is_dummy"] else list(torch.from_numpy(sample["boxes"]))

    def score(self, predictions: list[torch.Tensor], references: list[torch.Tensor]) -> dict[str, np.ndarray]:
        """See :class:`~...metrics.boxes.BoxMetric`; ``score`` is the first accuracy, or the overlap."""
        scores = self.metric.score(_stack(predictions), _stack(references))
        main = f"acc{self.metric.thresholds[0]:g}" if self.metric.thresholds else "iou"
        parts = {f"score_{band}": scores[main] * scores[band] for band in self._bands()}
        return {name: values.numpy() for name, values in {**scores, "score": scores[main], **parts}.items()}

    def result(self, row_id: str, prediction: torch.Tensor) -> dict[str, Any]:
        """As the original's result files."""
        return {"uniq_id": row_id, "box": prediction.tolist()}


def _stack(boxes: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(boxes) if boxes else torch.empty(0, COORDINATES)
