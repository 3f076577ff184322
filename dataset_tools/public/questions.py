"""What data sets of questions about pictures share.

Ten people answer a question; an answer that n of them give has the confidence min(1, 0.3 n). Training tables have a row
for each answer of a question that is in the set of frequent answers; those for validation one row a question, with all
answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unival_cli.answer_set import normalise
from unival_cli.data_schemas import MARK, SEPARATOR
from unival_cli.row_writer import Item, LeftOut, Medium, Record

from .parts import Entry, below, read_json, sentence

NO_ANSWER = "questions without an answer"
NOT_IN_SET = "questions without an answer of the set"
UNKNOWN = "1.0|!+no"
"""Stands where answers are not published; nothing may be learned or scored with it."""

# -------------------------------------------------------------------------------- answers


def answer_of(text: str) -> str:
    """The form in which answers are compared and written."""
    return sentence(normalise(text))


def only_text(entry: dict[str, Any]) -> Any:
    """An answer of a person becomes its text while the file is read: there are millions."""
    return entry["answer"] if "answer_confidence" in entry and isinstance(entry.get("answer"), str) else entry


def answers_of(entry: Entry) -> Counter[str]:
    """How many people gave each answer."""
    texts = entry.array("answers")
    for text in texts:
        if not isinstance(text, str):
            Entry(text, f"{entry.where}: an answer").text("answer")
    counts = Counter(map(answer_of, texts))
    del counts[""]
    return counts


def confidence(people: int) -> str:
    """min(1, 0.3 n), with one decimal."""
    return f"{min(10, 3 * people) / 10:.1f}"


def answers_cell(counts: Counter[str]) -> str:
    """All answers with their confidences, the most frequent first."""
    return SEPARATOR.join(f"{confidence(people)}{MARK}{answer}" for answer, people in counts.most_common())


def given_answers(entries: Iterable[Entry]) -> Counter[str]:
    """How many people gave each answer, over all questions."""
    counts: Counter[str] = Counter()
    for entry in entries:
        counts.update(answers_of(entry))
    return counts


@dataclass(frozen=True)
class Question:
    """A question and the picture that it is about."""

    name: str
    image: str
    text: str
    file: Medium
    where: str

    def row(self, answers: str) -> Record:
        """Its row with these answers."""
        return Record((self.name, self.image, self.text, answers, "", self.file), self.where)

    def validation_row(self, counts: Counter[str]) -> Item:
        """Its row with all answers."""
        return self.row(answers_cell(counts)) if counts else LeftOut(NO_ANSWER)

    def training_rows(self, counts: Counter[str], allowed: frozenset[str]) -> Iterator[Item]:
        """A row for each answer of the set."""
        known = [(answer, people) for answer, people in counts.most_common() if answer in allowed]
        if not known:
            yield LeftOut(NOT_IN_SET)
        for answer, people in known:
            yield self.row(f"{confidence(people)}{MARK}{answer}")


# -------------------------------------------------------------------------------- questions of COCO's pictures


class CocoQuestions:
    """Files of questions and annotations as VQA and OK-VQA publish them.

    Args:
        prefix: how their names begin ("v2_" or nothing).
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def files(self, *parts: str) -> tuple[str, ...]:
        """Names of the files of questions and annotations for these parts of COCO ("train2014")."""
        return tuple(name for part in parts for name in (self.questions_file(part), self.annotations_file(part)))

    def questions_file(self, part: str) -> str:
        return f"{self.prefix}OpenEnded_mscoco_{part}_questions.json"

    def annotations_file(self, part: str) -> str:
        return f"{self.prefix}mscoco_{part}_annotations.json"

    def questions(self, raw: Path, part: str, pictures: str = "") -> Iterator[tuple[int, Question]]:
        """The questions with the numbers of their pictures, which are in the folder ``pictures`` (or ``part``)."""
        path, folder = raw / self.questions_file(part), pictures or part
        for entry in Entry(read_json(path), str(path)).entries("questions", "question"):
            image = entry.number("image_id")
            file = below(raw, f"{folder}/COCO_{folder}_{image:012d}.jpg")
            name = str(entry.number("question_id"))
            yield image, Question(name, str(image), entry.text("question"), file, entry.where)

    def annotations(self, raw: Path, part: str) -> Iterator[Entry]:
        """What people answered, with question_id and answers."""
        path = raw / self.annotations_file(part)
        yield from Entry(read_json(path, only_text), str(path)).entries("annotations", "annotation")

    def answered(self, raw: Path, part: str) -> Iterator[tuple[int, Question, Counter[str]]]:
        """The questions with their answers."""
        answers = {entry.number("question_id"): answers_of(entry) for entry in self.annotations(raw, part)}
        for image, question in self.questions(raw, part):
            yield image, question, answers.get(int(question.name), Counter())

    def validation_rows(self, raw: Path, part: str) -> Iterator[Item]:
        """A row a question."""
        for _, question, counts in self.answered(raw, part):
            yield question.validation_row(counts)

    def open_rows(self, raw: Path, part: str, pictures: str) -> Iterator[Item]:
        """A row a question whose answers are not published."""
        for _, question in self.questions(raw, part, pictures):
            yield question.row(UNKNOWN)
