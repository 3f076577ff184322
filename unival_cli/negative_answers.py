"""Types of questions, and answers by type, for ``unival data negatives``, whose help has the rule."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

YES_NO, CHOICE, OTHER = "yes/no", "or", "other"
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
AUXILIARIES = frozenset(
    re.findall(
        r"[\w']+",
        "am is are was were do does did has have had can could will would shall should may might must "
        "isn't aren't wasn't weren't don't doesn't didn't hasn't haven't can't couldn't won't wouldn't",
    )
)
"""First words of questions that are answered by yes or no."""


def beginning(question: str) -> str:
    """What may become the type of a question: "yes/no", "or", or its first two words (see the rule above)."""
    words = WORD.findall(question.lower().replace("’", "'"))
    if words[0] in AUXILIARIES:
        return CHOICE if "or" in words else YES_NO
    return " ".join(words[:2])


def _counters() -> defaultdict[str, Counter[str]]:
    return defaultdict(Counter)


@dataclass
class AnswerCounts:
    """How often questions begin in each way, and how often each answer is given to them."""

    questions: Counter[str] = field(default_factory=Counter)
    answers: defaultdict[str, Counter[str]] = field(default_factory=_counters)

    def add(self, question: str, answers: Sequence[str]) -> None:
        """Count a row."""
        start = beginning(question)
        self.questions[start] += 1
        self.answers[start].update(map(sys.intern, answers))

    def typed(self, min_count: int) -> AnswerCounts:
        """The same counts by question type."""
        rare: Counter[str] = Counter()
        for start, count in self.questions.items():
            if count < min_count:
                rare[start.split(" ")[0]] += count
        result = AnswerCounts()
        for start, count in self.questions.items():
            first = start.split(" ")[0]
            name = start if count >= min_count else first if rare[first] >= min_count else OTHER
            result.questions[name] += count
            result.answers[name].update(self.answers[start])
        return result

    def groups(self, min_count: int, min_answer_count: int = 1) -> dict[str, list[str]]:
        """The content of type2ans.json: the most frequent types and answers first, "other" last."""
        typed = self.typed(min_count)
        totals: Counter[str] = Counter()
        for counts in typed.answers.values():
            totals.update(counts)
        best: dict[str, tuple[str, int]] = {}
        names = [name for name in by_count(typed.questions) if name != OTHER]
        for name in names:
            for answer, count in typed.answers[name].items():
                fits = name != YES_NO or answer.lower() in ("yes", "no")
                if fits and count > best.get(answer, ("", 0))[1]:
                    best[answer] = (name, count)
        groups: dict[str, list[str]] = {name: [] for name in (*names, OTHER)}
        known = [answer for answer in by_count(totals) if totals[answer] >= min_answer_count]
        for answer in known:
            groups[best.get(answer, (OTHER, 0))[0]].append(answer)
        groups = {name: answers for name, answers in groups.items() if len(answers) > 1}
        typeless = set(known).difference(*(answers for name, answers in groups.items() if name != OTHER))
        other = [answer for answer in known if answer in typeless]
        groups.pop(OTHER, None)
        return groups | {OTHER: other if len(other) > 1 else known}


def by_count(counts: Counter[str]) -> list[str]:
    """The keys, the most frequent first, those of the same count in order of the alphabet."""
    return sorted(counts, key=lambda name: (-counts[name], name))
