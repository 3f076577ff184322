"""Questions that the models answer without training: OK-VQA and VizWiz."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from unival_cli.answer_set import frequent_answers, numbered
from unival_cli.row_writer import Item

from .coco import COCO_FOLDER
from .parts import Builder, Document, Entry, Split, bad_file, below, read_list
from .questions import UNKNOWN, CocoQuestions, Question, answers_of, given_answers, only_text

# -------------------------------------------------------------------------------- OK-VQA

OKVQA = CocoQuestions("")
TRAIN, VAL = "train2014", "val2014"


def okvqa_answer_set(raw: Path) -> list[str]:
    """The answers that people gave at least nine times in training and validation."""
    return frequent_answers(given_answers(entry for part in (TRAIN, VAL) for entry in OKVQA.annotations(raw, part)))


def okvqa_training_rows(raw: Path) -> Iterator[Item]:
    """A row for each answer of the set."""
    allowed = frozenset(okvqa_answer_set(raw))
    for _, question, counts in OKVQA.answered(raw, TRAIN):
        yield from question.training_rows(counts, allowed)


OKVQA_BUILDER = Builder(
    name="okvqa",
    task="vqa_gen",
    title="OK-VQA 1.1",
    licence="annotations: see the page; pictures are Flickr's, under their own terms",
    links=(
        *("okvqa-questions-train", "okvqa-annotations-train", "okvqa-questions-val", "okvqa-annotations-val"),
        *("coco-train2014", "coco-val2014"),
    ),
    layout="""OpenEnded_mscoco_{train2014,val2014}_questions.json
mscoco_{train2014,val2014}_annotations.json
train2014/COCO_train2014_000000000009.jpg ...
val2014/COCO_val2014_000000000042.jpg ...""",
    folder="data/ofa/vqa_data",
    splits=(
        Split("okvqa_train", okvqa_training_rows, OKVQA.files(TRAIN, VAL), note="a row for each answer of the set"),
        Split("okvqa_acc_val", partial(OKVQA.validation_rows, part=VAL), OKVQA.files(VAL), 5046),
    ),
    documents=(
        Document(
            "okvqa_trainval_ans2label",
            lambda raw: numbered(okvqa_answer_set(raw)),
            OKVQA.files(TRAIN, VAL),
            note="the answers that people gave at least nine times",
        ),
    ),
    raw=COCO_FOLDER,
    flags="--paths",
)

# -------------------------------------------------------------------------------- VizWiz


def vizwiz_questions(raw: Path, part: str) -> Iterator[tuple[Question, Entry]]:
    """The questions of a part; their ids are the numbers of their pictures."""
    path = raw / "Annotations" / f"{part}.json"
    for entry in read_list(path, "question", only_text):
        file = entry.text("image")
        number = Path(file).stem.rpartition("_")[2]
        if not number.isdecimal():
            raise bad_file(f"{entry.where}: the picture {file!r} has no number at the end of its name")
        yield Question(str(int(number)), file, entry.text("question"), below(raw, f"{part}/{file}"), entry.where), entry


def vizwiz_answer_set(raw: Path) -> list[str]:
    """The answers that people gave at least nine times in training and validation."""
    return frequent_answers(
        given_answers(entry for part in ("train", "val") for _, entry in vizwiz_questions(raw, part))
    )


def vizwiz_training_rows(raw: Path) -> Iterator[Item]:
    """A row for each answer of the set."""
    allowed = frozenset(vizwiz_answer_set(raw))
    for question, entry in vizwiz_questions(raw, "train"):
        yield from question.training_rows(answers_of(entry), allowed)


def vizwiz_rows(raw: Path, part: str) -> Iterator[Item]:
    """A row a question; the test part has no answers."""
    for question, entry in vizwiz_questions(raw, part):
        if part == "test":
            yield question.row(UNKNOWN)
        else:
            yield question.validation_row(answers_of(entry))


VIZWIZ_FILES = ("Annotations/train.json", "Annotations/val.json")

VIZWIZ_BUILDER = Builder(
    name="vizwiz",
    task="vqa_gen",
    title="VizWiz-VQA",
    licence="see the page",
    links=("vizwiz-annotations", "vizwiz-images-train", "vizwiz-images-val", "vizwiz-images-test"),
    layout="""Annotations/{train,val,test}.json
train/VizWiz_train_00000000.jpg ...
val/VizWiz_val_00000000.jpg ...
test/VizWiz_test_00000000.jpg ...""",
    folder="data/ofa/vqa_data",
    splits=(
        Split("vizwiz_train", vizwiz_training_rows, VIZWIZ_FILES, note="a row for each answer of the set"),
        Split("vizwiz_acc_val", partial(vizwiz_rows, part="val"), VIZWIZ_FILES[1:], 4319),
        Split(
            "vizwiz_acc_test",
            partial(vizwiz_rows, part="test"),
            ("Annotations/test.json",),
            8000,
            usual=False,
            note="answers are not public: a placeholder stands there",
        ),
    ),
    documents=(
        Document(
            "vizwiz_trainval_ans2label",
            lambda raw: numbered(vizwiz_answer_set(raw)),
            VIZWIZ_FILES,
            note="the answers that people gave at least nine times",
        ),
    ),
    flags="--paths",
)

BUILDERS: tuple[Builder, ...] = (OKVQA_BUILDER, VIZWIZ_BUILDER)
