"""Text cleaning, tokenizers and the dictionary (UnIVAL: data/ofa_dataset.py, tasks/ofa_task.py).

The dictionary has, in this order: ``<s> <pad> </s> <unk>``, the pieces of the tokenizer, ``<mask>``, the image codes
``<code_0>`` …, the position bins ``<bin_0>`` ….
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import torch
from fairseq.data import Dictionary
from torch import LongTensor, Tensor

from ..errors import ConfigError

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LEADING = ",.!?*#:;~"
_SYMBOL = re.compile(r"<(?:mask|unk|code_\d+|bin_\d+)>")


def pre_question(text: str, max_words: int | None = None) -> str:
    """Lower case, no leading punctuation, ``-`` and ``/`` become spaces, runs of white space one space.

    Only the first ``max_words`` words are kept.
    """
    return _cut(_open_up(text), max_words)


def pre_caption(text: str, max_words: int | None = None) -> str:
    """As :func:`pre_question`, and ``<person>`` becomes "person"."""
    return _cut(_open_up(text).replace("<person>", "person"), max_words)


def strip_punctuation(text: str) -> str:
    """Text without ASCII punctuation and without white space at its ends."""
    return text.translate(_PUNCTUATION).strip()


def _open_up(text: str) -> str:
    return text.lower().lstrip(_LEADING).replace("-", " ").replace("/", " ")


def _cut(text: str, max_words: int | None) -> str:
    text = re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")
    return text if max_words is None else " ".join(text.split(" ")[:max_words])


class Bpe(Protocol):
    """What fairseq calls a BPE: text to space-separated pieces and back."""

    def encode(self, x: str) -> str:
        """Space-separated pieces of a text."""

    def decode(self, x: str) -> str:
        """Text of space-separated pieces."""

    def is_beginning_of_word(self, x: str) -> bool:
        """Whether a piece starts a word."""


class Gpt2Bpe:
    """GPT-2's byte-level BPE (fairseq's engine) from local files; pieces are numbers.

    Raises:
        ConfigError: ``encoder.json`` or ``vocab.bpe`` is missing in the folder.
    """

    def __init__(self, bpe_dir: Path) -> None:
        from fairseq.data.encoders.gpt2_bpe_utils import get_encoder

        names = ("encoder.json", "vocab.bpe")
        self._engine = get_encoder(*(str(_gpt2_file(bpe_dir, name)) for name in names))

    def numbers(self, text: str) -> list[int]:
        """Piece numbers of a text."""
        return self._engine.encode(text)

    def size(self) -> int:
        """Number of pieces."""
        return len(self._engine.encoder)

    def encode(self, x: str) -> str:
        """Space-separated piece numbers."""
        return " ".join(map(str, self.numbers(x)))

    def decode(self, x: str) -> str:
        """Text of space-separated piece numbers; other words (``<unk>``, ``<bin_3>``) stay as they are."""
        return _decode_runs(x, str.isdigit, lambda run: self._engine.decode([int(piece) for piece in run]))

    def is_beginning_of_word(self, x: str) -> bool:
        """Whether a piece starts with a space."""
        return self.decode(x).startswith(" ")


class SentencePieceBpe:
    """A sentencepiece model; pieces are the model's own.

    Raises:
        ConfigError: no such file, not a sentencepiece model, or the package is not installed.
    """

    def __init__(self, model: Path) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise ConfigError("--bpe sentencepiece needs a package: pip install sentencepiece") from error
        if not model.is_file():
            raise ConfigError(f"{model} does not exist: name a sentencepiece model with --sentencepiece-model")
        try:
            self._engine = SentencePieceProcessor(model_file=str(model))
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"{model} is not a sentencepiece model: train one or name another") from error

    def numbers(self, text: str) -> list[int]:
        """Piece numbers of a text."""
        return self._engine.encode(text, out_type=int)

    def pieces(self) -> list[str | None]:
        """All pieces by number; None for unknown and control pieces, which the dictionary's own specials replace."""
        engine = self._engine
        special = (engine.is_control, engine.is_unknown)
        return [None if any(test(i) for test in special) else engine.id_to_piece(i) for i in range(len(engine))]

    def encode(self, x: str) -> str:
        """Space-separated pieces."""
        return " ".join(self._engine.encode(x, out_type=str))

    def decode(self, x: str) -> str:
        """Text of space-separated pieces; ``<unk>``, ``<bin_3>`` and the like stay as they are."""
        return _decode_runs(x, lambda piece: not _SYMBOL.fullmatch(piece), self._engine.decode)

    def is_beginning_of_word(self, x: str) -> bool:
        """Whether a piece starts a word."""
        return x.startswith("\u2581")


class TextEncoder:
    """Text to dictionary numbers and back; see :func:`build_text_encoder`.

    Attributes:
        dictionary: fairseq dictionary of source and target.
        bpe: fairseq-like tokenizer (``encode``/``decode`` of strings).
    """

    def __init__(self, dictionary: Dictionary, bpe: Gpt2Bpe | SentencePieceBpe, table: Tensor, origin: tuple[Any, ...]):
        self.dictionary = dictionary
        self.bpe: Bpe = bpe
        self._numbers = bpe.numbers
        self._table = table
        self._origin = origin

    def __reduce__(self) -> tuple[Any, ...]:
        # The engines hold modules and foreign objects; a worker reads the files again.
        return build_text_encoder, self._origin

    def encode(self, text: str, max_tokens: int | None = None, bos: bool = False, eos: bool = False) -> LongTensor:
        """Dictionary numbers of a text, int64 ``(T,)``; cut to ``max_tokens`` before ``<s>`` and ``</s>`` are added."""
        numbers = self._numbers(text)
        return self._frame(self._table[numbers[:max_tokens]], bos, eos)

    def encode_symbols(self, symbols: str, bos: bool = False, eos: bool = False) -> LongTensor:
        """Dictionary numbers of space-separated entries like "<bin_1> <bin_5>"; unknown ones become ``<unk>``."""
        numbers = torch.tensor([self.dictionary.index(symbol) for symbol in symbols.split()], dtype=torch.long)
        return self._frame(numbers, bos, eos)

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """Text of dictionary numbers; ``<s>``, ``<pad>`` and ``</s>`` are left out, symbols are separated by spaces."""
        numbers = ids.tolist() if isinstance(ids, Tensor) else ids
        frame = {self.dictionary.bos(), self.dictionary.pad(), self.dictionary.eos()}
        return self.bpe.decode(" ".join(self.dictionary[i] for i in numbers if i not in frame))

    def _frame(self, ids: Tensor, bos: bool, eos: bool) -> LongTensor:
        before = [self.dictionary.bos()] * bos
        after = [self.dictionary.eos()] * eos
        return torch.cat([ids.new_tensor(before), ids, ids.new_tensor(after)])  # type: ignore[return-value]


def build_text_encoder(
    bpe: str,
    bpe_dir: Path | None = None,
    sentencepiece_model: Path | None = None,
    code_dict_size: int = 8192,
    num_bins: int = 1000,
) -> TextEncoder:
    """Tokenizer and dictionary of a task.

    Args:
        bpe: "gpt2" (files ``encoder.json``, ``vocab.bpe``, ``dict.txt`` in ``bpe_dir``) or "sentencepiece".
        bpe_dir: folder of the GPT-2 files.
        sentencepiece_model: model file; its pieces but for its own specials are the dictionary.
        code_dict_size: number of image codes.
        num_bins: number of position bins.

    Raises:
        ConfigError: unknown ``bpe``, or a file is not named, missing or damaged.
    """
    dictionary: Dictionary
    engine: Gpt2Bpe | SentencePieceBpe
    pieces: Sequence[str | None]
    origin = (bpe, bpe_dir, sentencepiece_model, code_dict_size, num_bins)
    if bpe == "gpt2":
        dictionary, engine, pieces = _gpt2(bpe_dir)
    elif bpe == "sentencepiece":
        dictionary, engine, pieces = _sentencepiece(sentencepiece_model)
    else:
        raise ConfigError(f"--bpe {bpe} is not known: use gpt2 or sentencepiece")
    table = torch.tensor([dictionary.unk() if piece is None else dictionary.index(piece) for piece in pieces])
    extra = ["<mask>", *(f"<code_{i}>" for i in range(code_dict_size)), *(f"<bin_{i}>" for i in range(num_bins))]
    for symbol in extra:
        dictionary.add_symbol(symbol)
    return TextEncoder(dictionary, engine, table, origin)


def _gpt2(bpe_dir: Path | None) -> tuple[Dictionary, Gpt2Bpe, list[str]]:
    if bpe_dir is None:
        raise ConfigError("--bpe gpt2 needs the folder of encoder.json, vocab.bpe and dict.txt: name it with --bpe-dir")
    engine = Gpt2Bpe(Path(bpe_dir))
    path = _gpt2_file(Path(bpe_dir), "dict.txt")
    try:
        dictionary = Dictionary.load(str(path))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{path} is not a fairseq dictionary: fetch it again: {_GPT2_SOURCE}") from error
    return dictionary, engine, [str(i) for i in range(engine.size())]


def _sentencepiece(model: Path | None) -> tuple[Dictionary, SentencePieceBpe, list[str | None]]:
    if model is None:
        raise ConfigError("--bpe sentencepiece needs a model file: name it with --sentencepiece-model")
    engine = SentencePieceBpe(Path(model))
    dictionary, pieces = Dictionary(), engine.pieces()
    for piece in pieces:
        if piece is not None:
            dictionary.add_symbol(piece)
    return dictionary, engine, pieces


_GPT2_SOURCE = "unival data fetch gpt2-encoder gpt2-vocab gpt2-dict --output DIR"


def _gpt2_file(bpe_dir: Path, name: str) -> Path:
    path = bpe_dir / name
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: correct --bpe-dir, or fetch the files: {_GPT2_SOURCE}")
    return path


def _decode_runs(x: str, is_text: Callable[[str], bool], decode: Callable[[list[str]], str]) -> str:
    """Decode the runs of text pieces; the symbols between them are kept, set off by spaces."""
    parts: list[str] = []
    for text, group in groupby((piece for piece in x.split(" ") if piece), is_text):
        run = list(group)
        part = decode(run) if text else " ".join(run)
        if parts and not part.startswith(" ") and not parts[-1].endswith(" "):
            parts.append(" ")
        parts.append(part)
    return "".join(parts)
