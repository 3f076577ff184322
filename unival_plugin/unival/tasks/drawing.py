"""From codes that a search found to pictures: decoded, ranked by CLIP, written to files.

Legend: K pictures of a caption, S codes along a side of a picture.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import torch
from PIL import Image
from torch import Tensor

from ...checkpoints.image_tokenizer import read_image_tokenizer
from ...checkpoints.safetensors_file import replacing
from ...errors import ConfigError, DataError
from ...metrics.pictures import ClipScorer
from ...modules.vqgan import ImageTokenizer

FACTOR = 8
"""Pixels that a code spans along a side; the network's positions of codes are made for it."""
DECODED_AT_ONCE = 16
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
HASH_DIGITS = 8


@dataclass
class Drawing:
    """The pictures of a caption, best first.

    Attributes:
        caption: what was asked for.
        codes: K int64 (S, S).
        scores: by CLIP, a cosine; without CLIP the mean log-probability of a code.
        pictures: K pictures; none without a tokenizer, or once they are written.
        files: names of the files, if they are written.
    """

    caption: str
    codes: list[Tensor]
    scores: list[float]
    pictures: list[Image.Image] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    @property
    def best_codes(self) -> str:
        """Codes of the best picture as the cell of a row has them."""
        return " ".join(map(str, self.codes[0].flatten().tolist()))


@dataclass
class Drawer:
    """Codes to pictures, and what these are worth.

    Args:
        size: side of the pictures in pixels.
        code_dict_size: number of code symbols in the dictionary.
        vqgan_model_path, vqgan_config_path: the tokenizer's files.
        clip_model_path: weights of CLIP.
    """

    size: int
    code_dict_size: int
    vqgan_model_path: Optional[str] = None
    vqgan_config_path: Optional[str] = None
    clip_model_path: Optional[str] = None

    def __post_init__(self) -> None:
        if self.size < FACTOR or self.size % FACTOR:
            raise ConfigError(f"--code-image-size {self.size}: needs a multiple of {FACTOR}, which a code spans")
        self._device = torch.device("cpu")

    @property
    def side(self) -> int:
        """Codes along a side."""
        return self.size // FACTOR

    @property
    def decodes(self) -> bool:
        """Whether there is a tokenizer."""
        return bool(self.vqgan_model_path)

    @property
    def scores(self) -> bool:
        """Whether pictures can be drawn and compared with texts."""
        return self.decodes and bool(self.clip_model_path)

    def to(self, device: torch.device) -> Drawer:
        """This, with the networks on ``device``; they move when it changes."""
        if device != self._device:
            self._device = device
            for name in ("tokenizer", "clip"):
                self.__dict__.pop(name, None)
        return self

    @cached_property
    def tokenizer(self) -> ImageTokenizer:
        """Read when first needed.

        Raises:
            ConfigError: no files are named, or the tokenizer does not fit the task.
            CheckpointError: a file cannot be used.
        """
        if not self.vqgan_model_path or not self.vqgan_config_path:
            raise ConfigError("pictures are drawn by a tokenizer: give --vqgan-model-path and --vqgan-config-path")
        tokenizer = read_image_tokenizer(Path(self.vqgan_model_path), Path(self.vqgan_config_path))
        if tokenizer.factor != FACTOR or tokenizer.codes > self.code_dict_size:
            raise ConfigError(
                f"{self.vqgan_config_path}: {tokenizer.codes} codes of {tokenizer.factor} x {tokenizer.factor} pixels; "
                f"the task needs at most --code-dict-size {self.code_dict_size} of {FACTOR} x {FACTOR}"
            )
        return tokenizer.to(self._device)

    @cached_property
    def clip(self) -> ClipScorer:
        """Read when first needed.

        Raises:
            ConfigError: no file is named, or open_clip is missing.
            CheckpointError: the file cannot be used.
        """
        if not self.clip_model_path:
            raise ConfigError("pictures are scored by CLIP: give --clip-model-path")
        return ClipScorer(self.clip_model_path, self._device)

    def decode(self, codes: Sequence[Tensor]) -> list[Image.Image]:
        """Pictures of codes, each int64 (S, S); always in float32, so that training and evaluation see the same."""
        pictures = []
        for start in range(0, len(codes), DECODED_AT_ONCE):
            part = torch.stack(list(codes[start : start + DECODED_AT_ONCE])).to(self._device)
            with torch.autocast(self._device.type, enabled=False):
                shares = (self.tokenizer.decode(part) + 1) / 2
            pixels = (shares * 255).to(torch.uint8)  # cut off, not rounded, as the original
            pictures += [Image.fromarray(each.numpy()) for each in pixels.permute(0, 2, 3, 1).cpu()]
        return pictures

    def square(self, symbols: Tensor, first_code: int) -> Tensor:
        """Code symbols (S * S,) without the end symbol as codes (S, S), on the CPU.

        Raises:
            DataError: not as many codes as a picture has, or other symbols among them.
        """
        codes = symbols.cpu() - first_code
        if len(codes) != self.side**2 or bool(((codes < 0) | (codes >= self.code_dict_size)).any()):
            raise DataError(
                f"the model gave {len(codes)} symbols that are no picture of {self.side} x {self.side} codes; was it "
                f"trained for pictures, with --code-image-size {self.size}?"
            )
        return codes.unflatten(0, (self.side, self.side))


class PictureFiles:
    """Writes pictures to ``FOLDER/all_results/<name>_<rank>.png`` and the best to ``FOLDER/top1/<name>_0.png``.

    A name consists of the row's id (if it is a plain word) and a number that stands for id and caption, so that no text
    of a caption can become a path. Every file appears complete or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._used: Counter[str] = Counter()
        for part in ("all_results", "top1"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    def write(self, row_id: str, drawing: Drawing) -> None:
        """Writes all pictures; ``drawing.files`` then holds their names, best first, and the pictures are let go."""
        name = self._name(row_id, drawing.caption)
        drawing.files = [f"{name}_{rank}.png" for rank in range(len(drawing.pictures))]
        for file, picture in zip(drawing.files, drawing.pictures, strict=True):
            save_png(picture, self.folder / "all_results" / file)
        if drawing.pictures:
            save_png(drawing.pictures[0], self.folder / "top1" / drawing.files[0])
        drawing.pictures = []

    def _name(self, row_id: str, caption: str) -> str:
        name = file_name(row_id, caption)
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}-{self._used[name]}"


def file_name(row_id: str, caption: str) -> str:
    """The beginning of a file's name; letters, digits, ``_`` and ``-`` only."""
    number = hashlib.sha256(f"{row_id}\t{caption}".encode()).hexdigest()[:HASH_DIGITS]
    return f"{row_id}_{number}" if NAME.fullmatch(row_id) else number


def save_png(picture: Image.Image, path: Path) -> None:
    """A PNG that appears under its name only when it is complete."""
    with replacing(path) as scratch:
        picture.save(scratch, "PNG")


def ranked(drawing: Drawing) -> Drawing:
    """The same, best first; equal ones in the order in which they were found."""
    order = sorted(range(len(drawing.scores)), key=lambda place: -drawing.scores[place])
    picked: dict[str, Any] = {name: [getattr(drawing, name)[i] for i in order] for name in ("codes", "scores")}
    return Drawing(drawing.caption, **picked, pictures=[drawing.pictures[i] for i in order if drawing.pictures])
