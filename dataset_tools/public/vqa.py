"""VQA v2, with the questions of Visual Genome in training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from unival_cli.answer_set import VQA_MINIMUM, frequent_answers, numbered
from unival_cli.row_writer import Item, LeftOut

from .coco import COCO_FOLDER
from .parts import Builder, Document, Split, below, read_list
from .questions import CocoQuestions, Question, answer_of

VQA2 = CocoQuestions("v2_")
TRAIN, VAL, TEST, TEST_DEV = "train2014", "val2014", "test2015", "test-dev2015"
VALIDATION_PICTURES = 2000
"""Pictures of val2014 whose questions validate and are not trained on: about 10,600 of 214,354. OFA and UnIVAL keep
about 10,000 questions for this, but do not publish by what rule."""
GENOME = "visual_genome"
GENOME_QUESTIONS, GENOME_PICTURES = f"{GENOME}/question_answers.json", f"{GENOME}/image_data.json"
GENOME_EVALUATED = "questions of Visual Genome about pictures of COCO's validation or test"


def vqa2_answer_set(raw: Path) -> list[str]:
    """The answers that are the consensus of at least nine questions of training and validation."""
    counts: Counter[str] = Counter()
    for part in (TRAIN, VAL):
        counts.update(answer_of(entry.text("multiple_choice_answer")) for entry in VQA2.annotations(raw, part))
    del counts[""]
    return frequent_answers(counts, VQA_MINIMUM)


def validation_pictures(raw: Path) -> frozenset[int]:
    """The pictures of val2014 that are kept for validation: always the same ones, chosen by a hash of their number."""
    pictures = {image for image, _ in VQA2.questions(raw, VAL)}
    return frozenset(
        sorted(pictures, key=lambda image: hashlib.md5(str(image).encode(), usedforsecurity=False).digest())[
            :VALIDATION_PICTURES
        ]
    )


def vqa2_training_rows(raw: Path, genome: bool) -> Iterator[Item]:
    """Questions of train2014 and val2014 but for those kept for validation, and of Visual Genome."""
    allowed, kept = frozenset(vqa2_answer_set(raw)), validation_pictures(raw)
    for part in (TRAIN, VAL):
        for image, question, counts in VQA2.answered(raw, part):
            if image not in kept:
                yield from question.training_rows(counts, allowed)
    if genome:
        yield from genome_rows(raw, allowed)


def vqa2_validation_rows(raw: Path) -> Iterator[Item]:
    """The questions about the pictures that are kept for validation."""
    kept = validation_pictures(raw)
    for image, question, counts in VQA2.answered(raw, VAL):
        if image in kept:
            yield question.validation_row(counts)


def genome_rows(raw: Path, allowed: frozenset[str]) -> Iterator[Item]:
    """Questions of Visual Genome, each with one answer, but for those about pictures that COCO evaluates with."""
    evaluated = {image for part in (VAL, TEST) for image, _ in VQA2.questions(raw, part)}
    pictures = {entry.number("image_id"): entry for entry in read_list(raw / GENOME_PICTURES, "picture")}
    for group in read_list(raw / GENOME_QUESTIONS, "picture", without_synsets):
        for entry in group.entries("qas", "question"):
            picture = pictures.get(entry.number("image_id"))
            if picture is None or picture.value.get("coco_id") in evaluated:
                yield LeftOut(GENOME_EVALUATED if picture else "questions of Visual Genome about unknown pictures")
                continue
            folder, file = picture.text("url").split("/")[-2:]
            name, image = entry.number("qa_id"), entry.number("image_id")
            question = Question(
                f"vg{name}", f"vg{image}", entry.text("question"), below(raw, f"{GENOME}/{folder}/{file}"), entry.where
            )
            yield from question.training_rows(Counter({answer_of(entry.text("answer")): 10}), allowed)


def without_synsets(entry: dict[str, Any]) -> dict[str, Any]:
    """Words and senses in questions, which are not used, are much of the file."""
    return {key: value for key, value in entry.items() if key not in ("a_objects", "q_objects")}


VQA2_FILES = VQA2.files(TRAIN, VAL)
GENOME_FILES = (GENOME_QUESTIONS, GENOME_PICTURES, VQA2.questions_file(TEST))

VQA2_BUILDER = Builder(
    name="vqa2",
    task="vqa_gen",
    title="VQA v2, with questions of Visual Genome in training",
    licence="annotations of VQA and Visual Genome CC BY 4.0; pictures are Flickr's, under their own terms",
    links=(
        *(f"vqa2-questions-{part}" for part in ("train", "val", "test")),
        *(f"vqa2-annotations-{part}" for part in ("train", "val")),
        *("coco-train2014", "coco-val2014", "coco-test2015"),
        *("vg-question-answers", "vg-image-data", "vg-images-1", "vg-images-2"),
    ),
    layout=f"""v2_OpenEnded_mscoco_{{train2014,val2014,test2015,test-dev2015}}_questions.json
v2_mscoco_{{train2014,val2014}}_annotations.json
train2014/COCO_train2014_000000000009.jpg ...
val2014/COCO_val2014_000000000042.jpg ...
test2015/COCO_test2015_000000000001.jpg ...
{GENOME}/question_answers.json
{GENOME}/image_data.json
{GENOME}/VG_100K/1000.jpg ...
{GENOME}/VG_100K_2/1.jpg ...""",
    folder="data/ofa/vqa_data",
    splits=(
        Split(
            "vqa_train",
            partial(vqa2_training_rows, genome=True),
            (*VQA2_FILES, *GENOME_FILES),
            note="a row for each answer of the set",
        ),
        Split(
            "vqa_train_vqa2",
            partial(vqa2_training_rows, genome=False),
            VQA2_FILES,
            usual=False,
            note="as vqa_train without Visual Genome",
        ),
        Split(
            "vqa_val",
            vqa2_validation_rows,
            VQA2.files(VAL),
            note=f"all questions about {VALIDATION_PICTURES:,} pictures of val2014, which are not trained on",
        ),
        Split("vqa_fullval", partial(VQA2.validation_rows, part=VAL), VQA2.files(VAL), 214_354),
        Split(
            "vqa_test",
            partial(VQA2.open_rows, part=TEST, pictures=TEST),
            (VQA2.questions_file(TEST),),
            447_793,
            note="answers are not public: a placeholder stands there",
        ),
        Split(
            "vqa_testdev",
            partial(VQA2.open_rows, part=TEST_DEV, pictures=TEST),
            (VQA2.questions_file(TEST_DEV),),
            107_394,
            usual=False,
            note="as vqa_test, of which it is a part",
        ),
    ),
    documents=(
        Document(
            "trainval_ans2label",
            lambda raw: numbered(vqa2_answer_set(raw)),
            VQA2_FILES,
            3129,
            note="the answers of at least nine questions",
        ),
    ),
    raw=COCO_FOLDER,
)

BUILDERS: tuple[Builder, ...] = (VQA2_BUILDER,)
