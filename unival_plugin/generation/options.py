"""Options of sequence generation, from command lines and from ``--eval-args`` JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Optional

from ..errors import ConfigError

# fairseq's flag names that differ from the generator's
_RENAMED = {"beam": "beam_size", "lenpen": "len_penalty", "unkpen": "unk_penalty"}
_UNSUPPORTED = ("diverse_beam_groups", "match_source_len", "diversity_rate", "prefix_size", "lm_path")


@dataclass(frozen=True)
class GenerationOptions:
    """How to search.

    Args:
        beam_size: hypotheses kept per sentence, also the number returned; when sampling, the number drawn.
        max_len_a, max_len_b: at most ``int(a * S + b)`` tokens before the end symbol, S source tokens.
        min_len: no end symbol before this many tokens.
        normalize_scores: divide a hypothesis' score by ``length ** len_penalty``.
        len_penalty: > 1 favours long, < 1 short hypotheses.
        unk_penalty: subtracted from the score of the unknown symbol.
        temperature: scores are divided by it before the softmax.
        no_repeat_ngram_size: no n-gram of this size occurs twice in a hypothesis; 0 switches it off.
        stop_on_max_len: accepted for old scripts; the search always stops at the maximal length.
        constraint_range: ``"a,b"``: only ids 0..3 and a..b-1 are possible.
        gen_code: the targets are codes of a picture: the decoder is told so, and the special symbols 0..3 are possible
            only at the maximal length.
        zero_shot: ranges and sets of answers are applied after the softmax, so a token's score is its probability among
            all tokens instead of among the possible ones; answers are then compared with the prefix included.
        sampling: draw hypotheses instead of searching for the best.
        sampling_topk: draw among the k most likely tokens; -1: among all.
        sampling_topp: draw among the fewest tokens that together have this probability; -1: among all. These two say
            nothing without ``sampling``: the generator refuses them, a task that always samples switches it on.

    Raises:
        ConfigError: a value out of range.
    """

    beam_size: int = 5
    max_len_a: float = 0.0
    max_len_b: int = 200
    min_len: int = 1
    normalize_scores: bool = True
    len_penalty: float = 1.0
    unk_penalty: float = 0.0
    temperature: float = 1.0
    no_repeat_ngram_size: int = 0
    stop_on_max_len: bool = False
    constraint_range: Optional[str] = None
    gen_code: bool = False
    zero_shot: bool = False
    sampling: bool = False
    sampling_topk: int = -1
    sampling_topp: float = -1.0

    def __post_init__(self) -> None:
        for name, smallest in (("beam_size", 1), ("max_len_b", 0), ("min_len", 0), ("no_repeat_ngram_size", 0)):
            if getattr(self, name) < smallest:
                raise ConfigError(f"generation option {name} is {getattr(self, name)}, it must be at least {smallest}")
        if self.temperature <= 0:
            raise ConfigError(f"generation option temperature is {self.temperature}, it must be positive")
        self._check_sampling()
        self.id_range()

    def _check_sampling(self) -> None:
        if self.sampling_topk != -1 and self.sampling_topk < 1:
            raise ConfigError(f"generation option sampling_topk is {self.sampling_topk}, it must be positive (-1: all)")
        if self.sampling_topp != -1 and not 0 < self.sampling_topp <= 1:
            raise ConfigError(
                f"generation option sampling_topp is {self.sampling_topp}, it must be above 0 and at most 1 (-1: all)"
            )
        if self.sampling_topk != -1 and self.sampling_topp != -1:
            raise ConfigError("generation options sampling_topk and sampling_topp exclude each other: drop one of them")

    def id_range(self) -> Optional[tuple[int, int]]:
        """``constraint_range`` as numbers."""
        if self.constraint_range is None:
            return None
        try:
            start, end = (int(part) for part in self.constraint_range.split(","))
        except ValueError as error:
            raise ConfigError(
                f"constraint range {self.constraint_range!r}: give two numbers, e.g. 50265,58457"
            ) from error
        if not 4 <= start < end:
            raise ConfigError(f"constraint range {self.constraint_range!r}: needs 4 <= start < end")
        return start, end

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for result files."""
        return asdict(self)

    def with_flags(self, flags: Mapping[str, Any], where: str) -> GenerationOptions:
        """These options changed by fairseq's generation flags (``beam``, ``lenpen``, ``unnormalized``, …).

        Flags that other parts of fairseq read (printing, post-processing) are ignored.

        Raises:
            ConfigError: a kind of search that is not supported, or a bad value; the message starts with ``where``.
        """
        unsupported = [name for name in _UNSUPPORTED if flags.get(name) not in (None, False, 0, -1, -1.0)]
        if unsupported:
            raise ConfigError(f"{where}: {', '.join(unsupported)} is not supported, only beam search and sampling are")
        values = {_RENAMED.get(key, key): value for key, value in flags.items() if value is not None}
        if "unnormalized" in values:
            values["normalize_scores"] = not values["unnormalized"]
        known = {f.name for f in fields(self)}
        try:
            return replace(self, **{key: value for key, value in values.items() if key in known})
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"{where}: {error}") from error


def parse_eval_args(text: Optional[str], flag: str = "--eval-args") -> GenerationOptions:
    """Options from a JSON object such as ``{"beam": 5, "max_len_b": 22, "no_repeat_ngram_size": 3}``.

    Raises:
        ConfigError: not a JSON object, an unknown name or a bad value.
    """
    try:
        flags = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ConfigError(f'{flag}: not valid JSON ({error}); example: \'{{"beam": 5, "max_len_b": 22}}\'') from error
    if not isinstance(flags, dict):
        raise ConfigError(f'{flag}: needs a JSON object such as {{"beam": 5}}, got {type(flags).__name__}')
    known = {f.name for f in fields(GenerationOptions)} | set(_RENAMED) | {"unnormalized", *_UNSUPPORTED}
    unknown = sorted(set(flags) - known)
    if unknown:
        raise ConfigError(f"{flag}: unknown option {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return GenerationOptions().with_flags(flags, flag)
