"""CIDEr-D (Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", 2015), in numpy.

Formula and constants are those of UnIVAL's ``utils/cider`` and of the COCO caption evaluation: n = 1..4, Gaussian
length penalty with sigma 6 on the number of *bigrams*, clipped counts, scaled by 10. No Java, no pickle.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError, DataError

Ngram = tuple[str, ...]
FORMAT = "unival-document-frequency"
MAX_N = 4


@dataclass(frozen=True)
class DocumentFrequency:
    """In how many pictures' references each n-gram (n = 1..4) occurs, and the number of pictures ``ref_len``."""

    counts: Mapping[Ngram, int]
    ref_len: float

    @classmethod
    def from_references(cls, references: Sequence[Sequence[str]]) -> DocumentFrequency:
        """Counts over one list of references per picture; words are separated by white space."""
        counts: Counter[Ngram] = Counter()
        for group in references:
            counts.update({gram for text in group for gram in _ngrams(text.split())})
        return cls(counts, float(len(references)))

    @classmethod
    def load(cls, path: str | Path) -> DocumentFrequency:
        """Reads a file that ``save`` wrote. Raises ConfigError (wrong kind of file) or DataError (damaged)."""
        path = Path(path)
        if path.suffix != ".json":
            raise ConfigError(
                f"{path}: document frequencies are read from .json files only; convert the reference's pickle once "
                f"with: unival data convert-df {path.name} {path.stem}.json"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot read document frequencies: {error.strerror}") from None
        except ValueError as error:
            raise DataError(f"{path}: not a JSON file ({error}); write it again") from None
        return cls._from_json(content, path)

    @classmethod
    def _from_json(cls, content: object, path: Path) -> DocumentFrequency:
        if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != 1:
            raise DataError(f'{path}: not a document frequency file (needs "format": "{FORMAT}", "version": 1)')
        ref_len, ngrams = content.get("ref_len"), content.get("ngrams")
        if isinstance(ref_len, bool) or not isinstance(ref_len, (int, float)) or not ref_len > 0:
            raise DataError(f'{path}: "ref_len" must be a positive number, found {ref_len!r}')
        if not isinstance(ngrams, dict):
            raise DataError(f'{path}: "ngrams" must be an object of counts')
        wrong = next((gram for gram, count in ngrams.items() if type(count) is not int or count < 0), None)
        if wrong is not None:
            raise DataError(f"{path}: the count of n-gram {wrong!r} is {ngrams[wrong]!r}, not a whole number >= 0")
        return cls({tuple(gram.split(" ")): count for gram, count in ngrams.items()}, float(ref_len))

    def save(self, path: str | Path) -> None:
        """Writes JSON (n-gram words joined by a space); a reader sees the old file or the whole new one."""
        path = Path(path)
        ref_len = int(self.ref_len) if float(self.ref_len).is_integer() else self.ref_len
        content = {
            "format": FORMAT,
            "version": 1,
            "ref_len": ref_len,
            "ngrams": {" ".join(gram): int(count) for gram, count in self.counts.items()},
        }
        try:
            _write_atomically(path, json.dumps(content, ensure_ascii=False))
        except OSError as error:
            raise ConfigError(f"{path}: cannot write document frequencies: {error.strerror}") from None


def _write_atomically(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _ngrams(words: Sequence[str]) -> Iterator[Ngram]:
    for n in range(1, MAX_N + 1):
        yield from zip(*(words[i:] for i in range(n)), strict=False)


class CiderD:
    """Scores captions against references with fixed document frequencies."""

    def __init__(self, df: DocumentFrequency, n: int = MAX_N, sigma: float = 6.0) -> None:
        if not 1 <= n <= MAX_N:
            raise ConfigError(f"CIDEr-D: n = {n}; document frequencies hold n-grams of 1 to {MAX_N} words")
        if df.ref_len <= 0:
            raise DataError("CIDEr-D: document frequencies of no picture at all; give at least one reference")
        self.df, self.n, self.sigma = df, n, sigma
        self._log_ref_len = math.log(df.ref_len)

    def scores(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """One caption and a list of references per picture -> (pictures,) float64, 0..10.

        Words are separated by white space and compared as they are; cleaning is the caller's business. Raises
        DataError for unequal lengths or a picture without references.
        """
        _check(hypotheses, references)
        pictures = len(hypotheses)
        if pictures == 0:
            return np.zeros(0)
        per_picture = np.array([len(group) for group in references])
        owner = np.repeat(np.arange(pictures), per_picture)  # picture of each reference
        words = _Words.of([*hypotheses, *(text for group in references for text in group)])
        similarity = np.zeros(len(owner))
        for grams in words.by_order(self.n):
            similarity += self._cosine(grams, words, owner)
        bigrams = np.maximum(words.lengths - 1, 0)
        delta = bigrams[owner] - bigrams[pictures:]
        similarity *= np.exp(-(delta**2) / (2 * self.sigma**2)) / self.n
        return np.asarray(10.0 * np.bincount(owner, similarity, minlength=pictures) / per_picture)

    def _cosine(self, grams: _Grams, words: _Words, owner: np.ndarray) -> np.ndarray:
        """Clipped cosine similarity, for one n-gram order, of every reference with the caption of its picture."""
        kinds, captions, pictures = len(grams.first), len(words.lengths), len(words.lengths) - len(owner)
        cells, tf = np.unique(grams.caption * kinds + grams.kind, return_counts=True)
        caption, kind = np.divmod(cells, max(kinds, 1))
        weight = tf * self._idf(grams, words)[kind]
        norm = np.sqrt(np.bincount(caption, weight**2, minlength=captions))
        split = int(np.searchsorted(caption, pictures))  # cells of hypotheses come first
        if split == 0:
            return np.zeros(len(owner))
        reference = caption[split:] - pictures
        wanted = owner[reference] * kinds + kind[split:]  # the same n-gram in the picture's hypothesis
        place = np.minimum(np.searchsorted(cells[:split], wanted), split - 1)
        theirs = weight[split:]
        shared = np.where(cells[place] == wanted, np.minimum(weight[place], theirs) * theirs, 0.0)
        dot = np.bincount(reference, shared, minlength=len(owner)).astype(np.float64)  # int64 if nothing is shared
        scale = norm[owner] * norm[pictures:]
        return np.divide(dot, scale, out=np.zeros_like(dot), where=scale > 0)

    def _idf(self, grams: _Grams, words: _Words) -> np.ndarray:
        counts, texts, n = self.df.counts, words.texts, grams.n
        found = [counts.get(tuple(texts[start : start + n]), 0) for start in grams.first.tolist()]
        return np.asarray(self._log_ref_len - np.log(np.maximum(found, 1.0)))


class _Grams(NamedTuple):
    """All n-grams of one order: which caption and which kind (0..kinds-1); where each kind occurs first."""

    n: int
    caption: np.ndarray
    kind: np.ndarray
    first: np.ndarray


class _Words(NamedTuple):
    """The words of all captions one after the other; ``ids`` number the different words, ``lengths`` per caption."""

    texts: list[str]
    ids: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, captions: Sequence[str]) -> _Words:
        split = [text.split() for text in captions]
        texts = [word for caption in split for word in caption]
        numbers: dict[str, int] = {}
        ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in texts), np.int64, len(texts))
        return cls(texts, ids, np.array([len(caption) for caption in split], dtype=np.int64))

    def by_order(self, n: int) -> Iterator[_Grams]:
        """The n-grams of orders 1..n. An n-gram's number is that of its first n-1 words combined with its last one."""
        caption = np.repeat(np.arange(len(self.lengths)), self.lengths)
        different = int(self.ids.max(initial=-1)) + 1
        start = np.arange(len(self.ids))
        kind = self.ids
        for order in range(1, n + 1):
            if order > 1:
                inside = start + order - 1 < len(self.ids)
                inside[inside] = caption[start[inside] + order - 1] == caption[start[inside]]
                start, kind = start[inside], kind[inside]
                kind = kind * different + self.ids[start + order - 1]
            _, where, kind = np.unique(kind, return_index=True, return_inverse=True)
            yield _Grams(order, caption[start], kind, start[where])


def _check(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(hypotheses) != len(references):
        raise DataError(f"CIDEr-D: {len(hypotheses)} captions but references of {len(references)} pictures")
    empty = next((i for i, group in enumerate(references) if not group), None)
    if empty is not None:
        raise DataError(f"CIDEr-D: picture {empty} has no reference caption")
