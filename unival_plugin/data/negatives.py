"""What is not so: captions and answers that do not fit a row, for examples that ask whether they do.

UnIVAL, ``data/pretrain_data/unify_dataset.py``. What can be drawn stands in three files that
``dataset_tools/negative_samples.py`` makes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Optional, Protocol, TypeVar, overload

import numpy as np

from ..errors import ConfigError, DataError
from .tsv import TsvTable

_OTHER, _COUNTS = "other", "how many"  # kinds of answers
_MAKE = "make it with dataset_tools/negative_samples.py, or correct"
_FOLDER = "--neg-sample-dir"
_REMAKE = f"make the files of {_FOLDER} with dataset_tools/negative_samples.py from rows like those to be trained"

T = TypeVar("T")


class Draws(Protocol):
    """What is drawn; :class:`random.Random` is one, too."""

    def random(self) -> float:
        """A number from [0, 1)."""

    def choice(self, seq: Sequence[T], /) -> T:
        """One of several."""


class GeneratorDraws:
    """Draws of a numpy generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def random(self) -> float:
        """A number from [0, 1)."""
        return float(self.rng.random())

    def choice(self, seq: Sequence[T], /) -> T:
        """One of several; unlike numpy's, ``seq`` is not copied."""
        return seq[int(self.rng.integers(len(seq)))]


class LineFile(Sequence[str]):
    """The lines of a text file, which stay in the file (see :class:`TsvTable`); it pickles cheaply.

    Raises:
        DataError: here, if the file cannot be opened; later, if a line has a tab or is not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self._table = TsvTable(path)

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        return self._table.cell(i, 0).strip()


@dataclass(frozen=True)
class NegativeSamples:
    """What can be drawn where a wrong caption or answer is needed.

    The last object and the last answer of each kind are spare: drawn only in place of a right one.

    Attributes:
        objects: words that captions may have in place of others.
        captions: captions of other rows by medium: picture, film, sound.
        answers: answers by kind of question; the kind "other" serves where none is known.
    """

    objects: Sequence[str]
    captions: Mapping[str, Sequence[str]]
    answers: Mapping[str, Sequence[str]]

    @classmethod
    def read(
        cls, folder: Path, film_captions: Optional[Path] = None, sound_captions: Optional[Path] = None
    ) -> NegativeSamples:
        """From ``all_captions.txt``, ``object.txt`` (one a line) and ``type2ans.json`` (object kind -> answers).

        Args:
            folder: where they lie.
            film_captions, sound_captions: files with captions for these; default: those of all.

        Raises:
            ConfigError: a file is missing or of another kind. Files may be empty where no row needs them.
        """
        shared = folder / "all_captions.txt"
        files = {
            "picture": (shared, _FOLDER),
            "film": (film_captions or shared, "--neg-captions-video" if film_captions else _FOLDER),
            "sound": (sound_captions or shared, "--neg-captions-audio" if sound_captions else _FOLDER),
        }
        opened = {path: _captions(path, flag) for path, flag in files.values()}
        captions = {medium: opened[path] for medium, (path, _) in files.items()}
        return cls(_objects(folder / "object.txt"), captions, _answers(folder / "type2ans.json"))

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of every answer; one that several have counts for the last."""
        return {answer: kind for kind, answers in self.answers.items() if kind != _OTHER for answer in answers}

    def caption(
        self, medium: str, caption: str, objects: Sequence[str], shown: Callable[[str], str], draws: Draws
    ) -> Optional[str]:
        """A wrong caption: with one of its objects replaced (two in five, where it has objects), or of another row.

        Unlike the original's, it never reads like the right one: where the object is not in the caption, or another row
        has the same caption, it is that of another row.

        Args:
            caption: the right one, as in the row.
            objects: what it names.
            shown: what the encoder reads of a caption.

        Returns:
            ``shown`` of a wrong one; None if there is none.

        Raises:
            ConfigError: there are no captions at all.
            DataError: the line that was drawn is damaged.
        """
        if not self.captions[medium]:
            raise ConfigError(f"no captions to draw wrong ones from for a {medium}; {_REMAKE}")
        useless = ("", shown(caption))
        if draws.random() > 0.6 and objects and self.objects:
            named = draws.choice(objects)
            other = next((name for name in _candidates(self.objects, draws, spare=1) if name != named), named)
            wrong = shown(caption.replace(named, other))
            if wrong not in useless:
                return wrong
        texts = map(shown, _candidates(self.captions[medium], draws))
        return next((text for text in texts if text not in useless), None)

    def answer(self, right: Collection[str], best: str, confidence: float, draws: Draws) -> Optional[str]:
        """A wrong answer, of the same kind as the best one more often the more that is trusted.

        Numbers are half of the time one off. Unlike the original's, it is none of the answers of the row, and no number
        below zero.

        Args:
            right: the answers of the row.
            best: the one with the highest confidence.
            confidence: from 0 to 1.

        Returns:
            A wrong one; None if there is none.

        Raises:
            ConfigError: there are no answers at all.
        """
        if not self.answers[_OTHER]:
            raise ConfigError(f"no answers of the kind {_OTHER!r} to draw wrong ones from; {_REMAKE}")
        known = {answer.casefold() for answer in right}
        level = draws.random()
        kind = self.kinds.get(best, _OTHER) if confidence > level + 0.1 else _OTHER
        if kind == _COUNTS and best.isdecimal() and level > 0.5:
            beside = str(abs(int(best) + draws.choice((-1, 1))))
            if beside not in known:
                return beside
        answers = chain(_candidates(self.answers[kind], draws, spare=1), self.answers[_OTHER])
        return next((answer for answer in answers if answer.casefold() not in known), None)


def _candidates(pool: Sequence[T], draws: Draws, spare: int = 0) -> Iterator[T]:
    """The one that is drawn; then, should it not suit, the ``spare`` last ones and all others from the drawn one on."""
    count = len(pool)
    first = draws.choice(range(max(count - spare, 1)))
    yield pool[first]
    yield from (pool[count - 1 - k] for k in range(spare))
    yield from (pool[(first + k) % count] for k in range(1, count))


def _captions(path: Path, flag: str) -> LineFile:
    try:
        lines = LineFile(path)
        len(lines)  # finds where they begin, before workers are forked
    except DataError as error:
        raise ConfigError(f"{error}; {_MAKE} {flag}") from error
    return lines


def _objects(path: Path) -> list[str]:
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _answers(path: Path) -> dict[str, list[str]]:
    needs = f"needs an object that gives every kind of question its answers, and {_OTHER!r}; {_MAKE} {_FOLDER}"
    try:
        kinds: Any = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not valid JSON ({error}); {needs}") from error
    if not isinstance(kinds, dict) or _OTHER not in kinds or not all(map(_is_texts, kinds.values())):
        raise ConfigError(f"{path}: {needs}")
    return kinds


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {_MAKE} {_FOLDER}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); {_MAKE} {_FOLDER}") from error


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and text.strip() for text in value)
