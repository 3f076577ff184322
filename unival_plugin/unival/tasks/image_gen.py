"""Text to picture (UnIVAL, ``tasks/mm_tasks/image_gen.py``): registered as task ``image_gen``.

The network draws a picture as codes of a VQGAN, line by line. The annotations of the dataclass are real objects because
fairseq derives flags from them.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, cast

import numpy as np
import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from PIL import Image
from torch import Tensor

from ...data.dataset import Place, RowDataset
from ...data.media import Media, NoMedium, Pictures
from ...data.samples import Batch, Example, Sample
from ...errors import ConfigError, DataError
from ...generation.generator import Hypothesis, SequenceGenerator
from ...generation.options import GenerationOptions
from ...metrics.pictures import CLIP_REWARD_WEIGHT
from .config import UnIVALTaskConfig, option
from .drawing import Drawer, Drawing, PictureFiles, ranked
from .rewarded import RewardedTask, RewardSearch

PROMPT = " what is the complete image? caption: "


@dataclass
class ImageGenConfig(UnIVALTaskConfig):
    """Flags of ``--task image_gen``."""

    sampling_times: int = option(1, "draw the beam's pictures of a caption so many times over")
    code_image_size: int = option(
        256, "side of the pictures in pixels; one code for 8 x 8 of them, which decides the length of what is generated"
    )
    eval_clip_method: ChoiceEnum(["ti_sim", "ii_sim"]) = option(  # type: ignore[valid-type]
        "ti_sim", "rank pictures by CLIP's similarity with the caption, or with the row's own picture (or its codes)"
    )
    eval_args: Optional[str] = option(
        "{}", 'how to draw in validation, as JSON: {"beam": 24, "sampling_topk": 256, "temperature": 1.0}'
    )
    eval_print_samples: bool = option(False, "log a caption with the scores of its pictures for every validation batch")
    scst: bool = option(False, "accepted for old commands: the criterion says whether pictures are rewarded")
    scst_args: Optional[str] = option(
        "{}",
        'how to draw in reward training, as JSON: {"beam": 5, "sampling_topk": 256}; at least two a caption',
    )
    vqgan_model_path: Optional[str] = option(
        None, "weights of the VQGAN that makes pictures of codes (last.ckpt); without it there are only codes"
    )
    vqgan_config_path: Optional[str] = option(None, "sizes of the VQGAN (model.yaml)")
    clip_model_path: Optional[str] = option(
        None, "weights of CLIP, for ranking, metric score and reward (ViT-B-16.pt); needs the extra [images]"
    )
    gen_images_path: Optional[str] = option(
        "", "folder for the pictures of validation and fairseq-generate: all_results/ and top1/"
    )


@dataclass
class DrawingReader:
    """Row -> example; the columns are id, caption, codes, or id, caption, or id, picture, caption, codes.

    Attributes:
        max_words: of the caption.
        codes: number of codes of rows that have none, all 0.
        code_dict_size: codes are below it.
    """

    max_words: int
    codes: int
    code_dict_size: int

    def __call__(self, cells: list[str], place: Place) -> Example:
        picture, column = (cells[1], 2) if len(cells) > 3 else ("", 1)
        example = self._example(cells[0], cells[column], place(column), picture)
        codes = self._codes(cells[column + 1], place(column + 1)) if len(cells) > 2 else [0] * self.codes
        example.target = " ".join(f"<code_{code}>" for code in codes)
        return example

    def query(self, media: Media, text: str, where: str, context: str = "") -> Example:
        """A caption to be drawn; there is no medium or context."""
        return self._example(where, text, where, "")

    def _example(self, row_id: str, text: str, where: str, picture: str) -> Example:
        caption = " ".join(text.split()[: self.max_words])
        if not caption:
            raise DataError(f"{where}: the caption is empty; fill it in or delete the row")
        extras = {"code_mask": torch.tensor([True]), "caption": caption, "code_image": picture}
        return Example(row_id, f"{PROMPT}{caption}", "", "", where, symbols=True, extras=extras)

    def _codes(self, cell: str, where: str) -> list[int]:
        try:
            codes = [int(word) for word in cell.split()]
        except ValueError as error:
            raise DataError(f"{where}: codes are numbers with spaces between them ({error})") from error
        if not codes or min(codes) < 0 or max(codes) >= self.code_dict_size:
            raise DataError(
                f"{where}: needs codes from 0 to {self.code_dict_size - 1} (--code-dict-size); were they made with "
                "another tokenizer?"
            )
        return codes


@register_task("image_gen", dataclass=ImageGenConfig)
class ImageGenTask(RewardedTask):
    """Pictures for captions.

    Attributes:
        drawer: makes pictures of codes and scores them.
        first_code: id of ``<code_0>``.
    """

    columns = ("id", "caption")
    sums = {"score": ("_score_sum", 4)}
    count = "_score_cnt"

    def __init__(self, cfg: ImageGenConfig, text: Any) -> None:
        super().__init__(cfg, text)
        paths = {name: cfg[name] for name in ("vqgan_model_path", "vqgan_config_path", "clip_model_path")}
        self.drawer = Drawer(cfg.code_image_size, cfg.code_dict_size, **paths)
        self.first_code = text.dictionary.index("<code_0>")
        if cfg.sampling_times < 1:
            raise ConfigError(f"--sampling-times {cfg.sampling_times}: must be at least 1")
        self._files: Optional[PictureFiles] = None

    # ---- model

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """As the base.

        Raises:
            ConfigError: the network's positions are made for pictures of another size.
        """
        if cfg.code_image_size != self.cfg.code_image_size:
            raise ConfigError(
                f"--code-image-size {self.cfg.code_image_size}: the network is made for {cfg.code_image_size}; give "
                "task and model the same"
            )
        return super().build_model(cfg, from_checkpoint)

    # ---- data

    def row_reader(self, split: str) -> DrawingReader:
        """All splits alike."""
        return DrawingReader(self.cfg.max_src_length, self.drawer.side**2, self.cfg.code_dict_size)

    def medium(self, training: bool = False) -> NoMedium:
        """Nothing is shown to the network."""
        return NoMedium()

    def collate_more(self) -> Callable[[Sequence[Sample]], Batch]:
        """``captions`` str (B,) as they are asked, ``code_images`` bytes (B,): the rows' own pictures, base64.

        Rows without a picture have a black one, as in the original, and ``has_code_images`` bool (B,) tells them apart.
        """
        blank = _blank(self.cfg.code_image_size)

        def collate(samples: Sequence[Sample]) -> Batch:
            pictures = [sample["code_image"] for sample in samples]
            return {
                "captions": np.array([sample["caption"] for sample in samples]),
                "code_images": np.array([picture.encode() or blank for picture in pictures]),
                "has_code_images": np.array([bool(picture) for picture in pictures]),
            }

        return collate

    def expect_training(self, batch_size: int, shards: int) -> None:
        """See the base.

        Raises:
            DataError: the first row has not as many codes as a picture.
        """
        self._check_length(self.datasets["train"])

    def expect_results(self, dataset: RowDataset, batches: list[list[int]], shard: int, shards: int) -> None:
        """As the base; raises DataError as :meth:`expect_training`."""
        self._check_length(dataset)
        self._files = None
        super().expect_results(dataset, batches, shard, shards)

    def _check_length(self, dataset: RowDataset) -> None:
        if len(dataset.table.columns) < 3:
            return
        try:
            found = len(dataset.example(0).target.split())
        except DataError:  # a bad row is named, or left out, when its turn comes
            return
        if found != self.drawer.side**2:
            raise DataError(
                f"{dataset.table.where(0, len(dataset.table.columns) - 1)}: {found} codes, a picture of "
                f"--code-image-size {self.cfg.code_image_size} has {self.drawer.side**2}"
            )

    # ---- search

    def search_options(self, options: GenerationOptions) -> GenerationOptions:
        """As the base; always draws at random, among all codes, as many as a picture has."""
        length = self.drawer.side**2
        own: dict[str, Any] = {
            "sampling": True,
            "gen_code": True,
            "min_len": length,
            "max_len_a": 0.0,
            "max_len_b": length,
        }
        options = super().search_options(options)
        if options.constraint_range is None:
            own["constraint_range"] = f"{self.first_code},{self.first_code + self.cfg.code_dict_size}"
        return options.with_flags(own, "pictures")

    def search(self, generator: SequenceGenerator, models: Any, sample: Any) -> list[list[Hypothesis]]:
        """The beam's pictures of every row, ``--sampling-times`` over."""
        times = [super(ImageGenTask, self).search(generator, models, sample) for _ in range(self.cfg.sampling_times)]
        return [sum(found, []) for found in zip(*times, strict=True)]

    @cached_property
    def scst_generator(self) -> RewardSearch:
        """As the base.

        Raises:
            ConfigError: ``--scst-args`` gives one picture a caption, or there is nothing to draw and score them with.
        """
        search = super().scst_generator
        if search.options.beam_size * self.cfg.sampling_times < 2:
            raise ConfigError('--scst-args: pictures are compared with each other; needs at least {"beam": 2}')
        if not self.drawer.scores:
            raise ConfigError(
                "pictures are rewarded by CLIP: give --vqgan-model-path, --vqgan-config-path and --clip-model-path"
            )
        return search

    def picture_rewards(self, codes: list[list[Tensor]], sample: dict[str, Any]) -> Tensor:
        """2.5 times CLIP's cosine of caption and picture, float32 (N,), for N pictures of all rows, row after row.

        Args:
            codes: for every row the code symbols of its pictures, int64 (S * S,).
            sample: the batch with its ``captions``.
        """
        symbols = [each for row in codes for each in row]
        captions = [str(caption) for row, caption in zip(codes, sample["captions"], strict=True) for _ in row]
        return CLIP_REWARD_WEIGHT * self._similarity(self._decode(symbols), captions)

    # ---- answers

    def validates(self) -> bool:
        """With a VQGAN and CLIP."""
        return self.drawer.scores

    def draw(self, hypotheses: list[list[Hypothesis]], sample: Any) -> list[Drawing]:
        """Pictures of every row, best first.

        Raises:
            ConfigError, CheckpointError: the VQGAN or CLIP cannot be used.
            DataError: the model gave no codes, or a row's own picture cannot be read.
        """
        symbols = [each["tokens"] for found in hypotheses for each in found]
        codes = [self.drawer.square(each[each.ne(self.text.dictionary.eos())], self.first_code) for each in symbols]
        if symbols:
            self.drawer.to(symbols[0].device)
        pictures = self.drawer.decode(codes) if self.drawer.decodes else []
        drawings, first = [], 0
        for place, found in enumerate(hypotheses):
            own = slice(first, first + len(found))
            first += len(found)
            scores = [float(each["score"]) for each in found]
            drawing = Drawing(str(sample["captions"][place]), codes[own], scores, pictures[own])
            if self.drawer.scores:
                drawing.scores = self._scores(drawing, sample, place)
            drawings.append(ranked(drawing))
        return drawings

    def _decode(self, symbols: list[Tensor]) -> list[Image.Image]:
        if symbols:
            self.drawer.to(symbols[0].device)
        return self.drawer.decode([self.drawer.square(each, self.first_code) for each in symbols])

    def _similarity(self, pictures: list[Image.Image], captions: list[str]) -> Tensor:
        return self.drawer.clip.similarity(pictures, captions)

    def _scores(self, drawing: Drawing, sample: Any, place: int) -> list[float]:
        if str(self.cfg.eval_clip_method) == "ti_sim":
            return self._similarity(drawing.pictures, [drawing.caption] * len(drawing.pictures)).tolist()
        features = self.drawer.clip.images([self._own_picture(sample, place), *drawing.pictures])
        return (features[1:] @ features[0]).tolist()

    def _own_picture(self, sample: Any, place: int) -> Image.Image:
        row_id = str(sample["id"][place])
        if sample["has_code_images"][place]:
            cell = sample["code_images"][place].decode()
            return cast(Pictures, super().medium()).open(cell, f"picture of row {row_id}")
        target = sample["target"][place]
        codes = target[target.ge(self.first_code)]
        if not bool(codes.ne(self.first_code).any()):
            raise DataError(
                f"row {row_id} has neither picture nor codes to compare with: use --eval-clip-method ti_sim"
            )
        return self._decode([codes])[0]

    def predictions(self, hypotheses: list[list[Hypothesis]], sample: Any = None) -> list[Drawing]:
        """Pictures of every row, written to ``--gen-images-path``."""
        drawings = self.draw(hypotheses, sample)
        if self.cfg.gen_images_path and self.drawer.decodes:
            if self._files is None:
                self._files = PictureFiles(Path(self.cfg.gen_images_path))
            for row_id, drawing in zip(sample["id"], drawings, strict=True):
                self._files.write(str(row_id), drawing)
        for drawing in drawings:
            drawing.pictures, drawing.codes = [], drawing.codes[:1]
        return drawings

    def references(self, sample: Any) -> list[str]:
        """The captions."""
        return [] if sample["is_dummy"] else [str(caption) for caption in sample["captions"]]

    def score(self, predictions: list[Drawing], references: list[str]) -> dict[str, np.ndarray]:
        """CLIP's cosine of the best picture of every row."""
        return {"score": np.array([drawing.scores[0] for drawing in predictions], dtype=np.float64)}

    def describe(self, dataset: RowDataset, flags: dict[str, Any]) -> dict[str, Any]:
        """As the base, with the size of the pictures."""
        return {**super().describe(dataset, flags), "picture_size": self.cfg.code_image_size}

    def result(self, row_id: str, prediction: Drawing) -> dict[str, Any]:
        """Caption, scores, codes of the best picture and its file."""
        scores = [round(score, 4) for score in prediction.scores]
        line = {"id": row_id, "caption": prediction.caption, "score": scores[0], "scores": scores}
        files = {"picture": prediction.files[0]} if prediction.files else {}
        return {**line, "codes": prediction.best_codes, **files}

    def example_line(self, prediction: Drawing, reference: str) -> str:
        """A caption and the scores of its pictures."""
        return f"example: {reference} | scores: {', '.join(f'{score:.4f}' for score in prediction.scores)}"


def _blank(size: int) -> bytes:
    """What stands for the picture of a row that has none: base64 PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue())
