"""Rows of films: captions of MSR-VTT and ActivityNet, questions of MSRVTT-QA and MSVD-QA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from unival_cli.answer_set import frequent_answers, numbered
from unival_cli.data_schemas import MARK
from unival_cli.row_writer import Item, LeftOut, Record

from .media_parts import FILMS, WITHOUT_CAPTION, NamedFiles, coco_format, plain_name
from .parts import Builder, Document, Entry, Split, bad_file, captions_document, joined, read_json, sentence

CAPTIONS, QUESTIONS = "data/ofa/video_data/caption_data", "data/ofa/video_data/vqa_data"
"""Where the scripts look for rows."""

FOLDER = "films"
FILM_NOTE = f"""Films lie anywhere below; if there is a folder {FOLDER}/ (of compress_videos.py, say), only those in it
count. Rows have paths that start in the raw folder: train with VIDEO_DIR=RAW."""


def films_below(raw: Path) -> NamedFiles:
    """The films of a raw folder."""
    return NamedFiles(raw, FOLDER, FILMS)


# -------------------------------------------------------------------------------- MSR-VTT

TRAIN_VAL, TEST, ONE_FILE = "train_val_videodatainfo.json", "test_videodatainfo.json", "MSRVTT_data.json"


def msrvtt_rows(raw: Path, source: str, parts: tuple[str, ...], join: bool) -> Iterator[Item]:
    """A row a caption or, joined, a row a film, whose name is the id of both the row and the film."""
    whole = Entry(read_json(raw / source), str(raw / source))
    videos = [video for video in whole.entries("videos", "film") if video.text("split") in parts]
    captions: dict[str, list[str]] = {video.text("video_id"): [] for video in videos}
    for each in whole.entries("sentences", "caption"):
        if (name := each.text("video_id")) in captions:
            captions[name].append(sentence(each.text("caption")))
    films = films_below(raw)
    for video in videos:
        name = video.text("video_id")
        texts = [caption for caption in captions[name] if caption]
        if not texts:
            yield LeftOut(WITHOUT_CAPTION)
            continue
        film = films.find(video.where, name)
        if join:
            yield Record((name, name, joined(texts), "", film), video.where)
            continue
        for number, text in enumerate(texts):
            yield Record((f"{name}_{number}", name, text, "", film), video.where)


def _msrvtt(name: str, title: str, links: tuple[str, ...], train: str, test: str) -> Builder:
    training = partial(msrvtt_rows, source=train, parts=("train", "validate"), join=False)
    testing = partial(msrvtt_rows, source=test, parts=("test",), join=True)
    return Builder(
        name=name,
        task="video_caption",
        title=title,
        licence="none published; films are their owners' (YouTube)",
        links=links,
        layout="\n".join([*dict.fromkeys((train, test)), "videos/all/video0.mp4 ...", FILM_NOTE]),
        folder=CAPTIONS,
        splits=(
            Split("msrvtt_caption_train7k", training, (train,), 140_200, note="7,010 films: train and validate"),
            Split("msrvtt_caption_test3k", testing, (test,), 2990, note="a row a film, its 20 captions joined"),
        ),
        documents=(
            captions_document("msrvtt_caption_test3k_coco_format", partial(coco_format, rows=testing), test, "films"),
        ),
    )


MSRVTT = _msrvtt(
    "msrvtt-captions",
    "MSR-VTT captions, from the two files of 2016",
    ("msrvtt-captions-2016", "msrvtt-films"),
    TRAIN_VAL,
    TEST,
)
MSRVTT_ONE_FILE = _msrvtt(
    "msrvtt-captions-one-file",
    f"MSR-VTT captions, from {ONE_FILE}",
    ("msrvtt-captions", "msrvtt-films"),
    ONE_FILE,
    ONE_FILE,
)

# -------------------------------------------------------------------------------- MSRVTT-QA, MSVD-QA

TRAIN_QA, VAL_QA, TEST_QA = "train_qa.json", "val_qa.json", "test_qa.json"
MAPPING = "youtube_mapping.txt"

FilmNames = Callable[[Path], Callable[[int, str], tuple[str, ...]]]
"""Raw folder -> (number of a film, place) -> names that its file may have."""


def _msrvtt_names(raw: Path) -> Callable[[int, str], tuple[str, ...]]:
    return lambda number, where: (f"video{number}",)


def _msvd_names(raw: Path) -> Callable[[int, str], tuple[str, ...]]:
    """Films have the names that they were published with, or vid1 ... as the questions call them."""
    titles = _mapping(raw / MAPPING)

    def names(number: int, where: str) -> tuple[str, ...]:
        if (own := f"vid{number}") not in titles:
            raise bad_file(f"{where}: {raw / MAPPING} has no {own}: download both again")
        return titles[own], own

    return names


def _mapping(path: Path) -> dict[str, str]:
    titles = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise bad_file(f"{path} cannot be read ({error}): download it again") from error
    for number, line in enumerate(lines, start=1):
        match line.split():
            case [title, own]:
                titles[own] = plain_name(title, f"{path}:{number}")
            case []:
                continue
            case _:
                raise bad_file(f"{path}:{number} needs two names, of the film and of its number: download it again")
    return titles


def _questions(raw: Path, source: str) -> Iterator[Entry]:
    entries = read_json(raw / source)
    if not isinstance(entries, list):
        raise bad_file(f"{raw / source} is no list of questions: the file has another format")
    for number, value in enumerate(entries, start=1):
        yield Entry(value, f"{raw / source}: question {number}")


def answer_set(raw: Path, top: int) -> dict[str, int]:
    """The most frequent answers of training and validation, as they stand there, with their numbers."""
    counts: Counter[str] = Counter()
    for source in (TRAIN_QA, VAL_QA):
        counts.update(sentence(question.text("answer")) for question in _questions(raw, source))
    del counts[""]
    return numbered(frequent_answers(counts, minimum=1, limit=top))


def question_rows(raw: Path, source: str, names: FilmNames, top: int | None = None) -> Iterator[Item]:
    """A row a question; with ``top`` only those whose answer is one of the so many most frequent ones."""
    known = None if top is None else answer_set(raw, top)
    films, names_of = films_below(raw), names(raw)
    for question in _questions(raw, source):
        answer, text = sentence(question.text("answer")), question.text("question")
        if not answer or not text.strip():
            yield LeftOut("without a question or an answer")
        elif known is not None and answer not in known:
            yield LeftOut("with an answer outside the set")
        else:
            candidates = names_of(question.number("video_id"), question.where)
            film = films.find(question.where, *candidates)
            cells = (str(question.number("id")), candidates[-1], text, f"1.0{MARK}{answer}", "", film)
            yield Record(cells, question.where)


def _questions_builder(
    name: str, title: str, thousands: int, names: FilmNames, links: tuple[str, ...], counts: tuple[int, int]
) -> Builder:
    top, size = 1000 * thousands, f"{thousands}k"
    more = (MAPPING,) if names is _msvd_names else ()
    films = "YouTubeClips/-4wsuPCjDBc_5_15.avi ... or vid1.avi ..." if more else "videos/all/video0.mp4 ..."
    rows = partial(question_rows, names=names)
    return Builder(
        name=f"{name}-qa",
        task="video_vqa_gen",
        title=title,
        licence="none published; films are their owners' (YouTube)",
        links=links,
        layout="\n".join([TRAIN_QA, VAL_QA, TEST_QA, *more, films, FILM_NOTE]),
        folder=QUESTIONS,
        splits=(
            Split(
                f"{name}_qa_{size}_train",
                partial(rows, source=TRAIN_QA, top=top),
                (TRAIN_QA, VAL_QA, *more),
                note=f"questions whose answer is one of the {top:,} most frequent",
            ),
            Split(f"{name}_qa_{size}_val", partial(rows, source=VAL_QA), (VAL_QA, *more), counts[0]),
            Split(f"{name}_qa_{size}_test", partial(rows, source=TEST_QA), (TEST_QA, *more), counts[1]),
        ),
        documents=(
            Document(
                f"{name}_trainval_{size}_ans2label",
                partial(answer_set, top=top),
                (TRAIN_QA, VAL_QA),
                top,
                note="the most frequent answers of training and validation",
            ),
        ),
    )


MSRVTT_QA = _questions_builder("msrvtt", "MSRVTT-QA", 4, _msrvtt_names, ("msrvtt-qa", "msrvtt-films"), (12_278, 72_821))
MSVD_QA = _questions_builder(
    "msvd", "MSVD-QA", 1, _msvd_names, ("msvd-qa", "msvd-qa-mapping", "msvd-films"), (6415, 13_157)
)

# -------------------------------------------------------------------------------- ActivityNet


CLIPS = "clips"


def clip_name(film: str, start: float, end: float, where: str) -> str:
    """Name, without ending, of the part of a film between two times in seconds. Raises DataError for a bad name."""
    return f"{plain_name(film, where)}_{start:.2f}_{end:.2f}"


def segments(raw: Path, source: str) -> Iterator[tuple[str, float, float, str, str]]:
    """Film, start and end in seconds, sentence and place of everything that is described.

    Raises DataError if the file is not as published.
    """
    whole = read_json(raw / source)
    if not isinstance(whole, dict):
        raise bad_file(f"{raw / source} is no object with a film under each name: the file has another format")
    for film, value in whole.items():
        where = f"{raw / source}: {film[:40]}"
        entry = Entry(value, where)
        times, texts = entry.array("timestamps"), entry.array("sentences")
        if len(times) != len(texts) or not all(isinstance(text, str) for text in texts):
            raise bad_file(f"{where} has {len(times)} times and {len(texts)} sentences: download the file again")
        for time, text in zip(times, texts, strict=True):
            yield film, *_interval(time, where), sentence(text), where


def _interval(time: object, where: str) -> tuple[float, float]:
    match time:
        case [int() | float() as one, int() | float() as other]:
            return min(one, other), max(one, other)  # a few are the wrong way round
    raise bad_file(f"{where}: {str(time)[:40]!a} is no pair of times: download the file again")


def clip_rows(raw: Path, source: str) -> Iterator[Item]:
    """A row a sentence, about the clip that is cut out of the film for it; ids are film and number of the sentence."""
    films = NamedFiles(raw, "", FILMS, inside=CLIPS)
    last, number = "", 0
    for film, start, end, text, where in segments(raw, source):
        number = number + 1 if film == last else 0
        last = film
        if not text or end <= start:
            yield LeftOut("without a sentence or a length")
        else:
            clip = films.find(where, clip_name(film, start, end, where))
            yield Record((f"{film}_{number}", film, text, "", clip), where)


def paragraph_rows(raw: Path, source: str) -> Iterator[Item]:
    """A row a film: its sentences in their order are one text."""
    films = films_below(raw)
    paragraphs: dict[str, tuple[list[str], str]] = {}
    for film, _, _, text, where in segments(raw, source):
        paragraphs.setdefault(film, ([], where))[0].append(text)
    for film, (texts, where) in paragraphs.items():
        if paragraph := " ".join(filter(None, texts)):
            yield Record((film, film, paragraph, "", films.find(where, film)), where)
        else:
            yield LeftOut(WITHOUT_CAPTION)


ANET_FILES = {"train": "train.json", "val1": "val_1.json", "val2": "val_2.json"}
ANET_LICENCE = "none published; films are their owners' (YouTube)"


def _clip_document(part: str) -> Document:
    rows = partial(clip_rows, source=ANET_FILES[part])
    content, note = partial(coco_format, rows=rows), "the sentences as coco_eval.py reads them"
    return captions_document(f"activitynet_caption_{part}_coco_format", content, ANET_FILES[part], "clips", note)


ACTIVITYNET = Builder(
    name="activitynet-captions",
    task="video_caption",
    title="ActivityNet Captions, a row for each sentence about the clip that it describes",
    licence=ANET_LICENCE,
    links=("activitynet-captions", "activitynet-films"),
    layout=f"""{", ".join(ANET_FILES.values())}
clips/v_QOlSCBRmfWY_0.83_19.86.mp4 ..., cut out of the films: python dataset_tools/cut_clips.py --raw RAW
Rows have paths that start in the raw folder: train with VIDEO_DIR=RAW.""",
    folder=CAPTIONS,
    splits=tuple(
        Split(f"activitynet_caption_{part}", partial(clip_rows, source=file), (file,), rows, usual=part != "val1")
        for (part, file), rows in zip(ANET_FILES.items(), (37_421, 17_505, 17_031), strict=True)
    ),
    documents=(_clip_document("val2"),),
)

ACTIVITYNET_PARAGRAPHS = Builder(
    name="activitynet-paragraphs",
    task="video_caption",
    title="ActivityNet Captions, a row for each whole film with all its sentences",
    licence=ANET_LICENCE,
    links=("activitynet-captions", "activitynet-films"),
    layout="\n".join([", ".join(ANET_FILES.values()), "v_QOlSCBRmfWY.mp4 ...", FILM_NOTE]),
    folder=CAPTIONS,
    splits=tuple(
        Split(f"activitynet_paragraph_{part}", partial(paragraph_rows, source=file), (file,), rows)
        for (part, file), rows in zip(ANET_FILES.items(), (10_009, 4917, 4885), strict=True)
    ),
)

BUILDERS: tuple[Builder, ...] = (
    MSRVTT,
    MSRVTT_ONE_FILE,
    MSRVTT_QA,
    MSVD_QA,
    ACTIVITYNET,
    ACTIVITYNET_PARAGRAPHS,
)
