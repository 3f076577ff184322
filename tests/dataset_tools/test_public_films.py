"""Rows of films out of small files in the formats in which MSR-VTT, MSVD-QA and ActivityNet are published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from build import main as build
from public import films
from public.films import ACTIVITYNET, ACTIVITYNET_PARAGRAPHS, MSRVTT, MSRVTT_ONE_FILE, MSRVTT_QA, MSVD_QA
from public.media_parts import FILMS

from unival_cli.main import main
from unival_plugin.data.answer_files import read_answers

FILM = b"a film that nobody opens"


def run(name: str, raw: Path, output: Path, *flags: str) -> int:
    return build([name, "--raw", str(raw), "--output", str(output), *flags])


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def write(raw: Path, files: Mapping[str, Any]) -> None:
    for name, content in files.items():
        (raw / name).write_text(json.dumps(content), encoding="utf-8")


def make_films(raw: Path, *names: str) -> None:
    for name in names:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(FILM)


def validate(path: Path, task: str, images: Path, *flags: str) -> int:
    return main(["data", "validate", str(path), "--task", task, "--image-dir", str(images), *flags])


# -------------------------------------------------------------------------------- MSR-VTT


def msrvtt(*films: tuple[str, str, Sequence[str]]) -> dict[str, Any]:
    """A file of films with their parts and captions."""
    sentences = [(name, text) for name, _, captions in films for text in captions]
    return {
        "info": {"contributor": "Microsoft MSM group", "year": "2016"},
        "videos": [
            {"category": 9, "url": "u", "video_id": name, "start time": 1.5, "end time": 9.0, "split": part, "id": i}
            for i, (name, part, _) in enumerate(films)
        ],
        "sentences": [{"caption": text, "video_id": name, "sen_id": i} for i, (name, text) in enumerate(sentences)],
    }


TRAINING = [
    ("video0", "train", ["a cat\tsits", "ein Käfer\nläuft"]),
    ("video6513", "validate", ["one & two", "one && two", " "]),
    ("video7000", "train", []),
]
TESTING = [("video7010", "test", ["a man talks", "a man && a dog", ""])]


@pytest.fixture
def msrvtt_raw(raw: Path) -> Path:
    write(raw, {films.TRAIN_VAL: msrvtt(*TRAINING), films.TEST: msrvtt(*TESTING)})
    make_films(raw, "TrainValVideo/video0.mp4", "TrainValVideo/video6513.mp4", "TestVideo/video7010.mp4")
    return raw


def test_training_has_a_row_for_each_caption_of_train_and_validate(msrvtt_raw: Path, output: Path) -> None:
    assert run(MSRVTT.name, msrvtt_raw, output) == 0
    assert rows(output / "msrvtt_caption_train7k.tsv") == [
        ["video0_0", "video0", "a cat sits", "", "TrainValVideo/video0.mp4"],
        ["video0_1", "video0", "ein Käfer läuft", "", "TrainValVideo/video0.mp4"],
        ["video6513_0", "video6513", "one & two", "", "TrainValVideo/video6513.mp4"],
        ["video6513_1", "video6513", "one & two", "", "TrainValVideo/video6513.mp4"],
    ]


def test_testing_has_a_row_for_each_film_with_all_its_captions(msrvtt_raw: Path, output: Path) -> None:
    assert run(MSRVTT.name, msrvtt_raw, output, "--splits", "msrvtt_caption_test3k") == 0
    wanted = [["video7010", "video7010", "a man talks&&a man & a dog", "", "TestVideo/video7010.mp4"]]
    assert rows(output / "msrvtt_caption_test3k.tsv") == wanted


def test_the_single_file_gives_the_same_rows(msrvtt_raw: Path, output: Path, tmp_path: Path) -> None:
    write(msrvtt_raw, {films.ONE_FILE: msrvtt(*TESTING, *TRAINING)})
    assert run(MSRVTT.name, msrvtt_raw, output) == 0
    assert run(MSRVTT_ONE_FILE.name, msrvtt_raw, tmp_path / "other") == 0
    for part in MSRVTT.outputs:
        assert (output / part.output).read_bytes() == (tmp_path / "other" / part.output).read_bytes()


def test_the_captions_for_scoring_have_the_ids_of_the_rows(msrvtt_raw: Path, output: Path) -> None:
    assert run(MSRVTT.name, msrvtt_raw, output) == 0
    content = json.loads((output / "msrvtt_caption_test3k_coco_format.json").read_text())
    assert content["images"] == [{"id": "video7010"}]
    assert [(each["image_id"], each["caption"]) for each in content["annotations"]] == [
        ("video7010", "a man talks"),
        ("video7010", "a man & a dog"),
    ]
    assert [each["id"] for each in content["annotations"]] == [0, 1]


def test_films_without_captions_are_counted(msrvtt_raw: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(MSRVTT.name, msrvtt_raw, output, "--splits", "msrvtt_caption_train7k") == 0
    assert "left out: 1 without a caption" in capsys.readouterr().out


def test_missing_films_are_counted_before_anything_is_written(
    msrvtt_raw: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (msrvtt_raw / "TrainValVideo" / "video0.mp4").unlink()
    assert run(MSRVTT.name, msrvtt_raw, output) == 2
    assert "1 of 2 films are missing, e.g. " in capsys.readouterr().err
    assert list(output.iterdir()) == []


def test_rows_of_missing_films_may_be_left_out(msrvtt_raw: Path, output: Path) -> None:
    (msrvtt_raw / "TrainValVideo" / "video0.mp4").unlink()
    assert run(MSRVTT.name, msrvtt_raw, output, "--on-missing", "skip") == 0
    assert [row[1] for row in rows(output / "msrvtt_caption_train7k.tsv")] == ["video6513"] * 2


def test_only_the_films_in_the_folder_films_count_if_there_is_one(msrvtt_raw: Path, output: Path) -> None:
    make_films(msrvtt_raw, "films/test/video7010.webm")
    assert run(MSRVTT.name, msrvtt_raw, output, "--splits", "msrvtt_caption_test3k") == 0
    assert [row[4] for row in rows(output / "msrvtt_caption_test3k.tsv")] == ["films/test/video7010.webm"]


def test_a_film_in_two_places_is_refused(msrvtt_raw: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_films(msrvtt_raw, "small/video7010.mp4")
    assert run(MSRVTT.name, msrvtt_raw, output, "--splits", "msrvtt_caption_test3k") == 2
    error = capsys.readouterr().err
    assert "film 1: there are TestVideo/video7010.mp4 and small/video7010.mp4" in error


@pytest.mark.parametrize("name", ["../video7010", "/etc/passwd", "..", "a\\b", ""])
def test_names_that_would_leave_the_folder_are_refused(
    raw: Path, output: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_films(raw.parent, "video7010.mp4")
    write(raw, {films.TEST: msrvtt((name, "test", ["a man"]))})
    assert run(MSRVTT.name, raw, output, "--splits", "msrvtt_caption_test3k") == 2
    assert f"film 1: {name!a} is no name of a file" in capsys.readouterr().err


@pytest.mark.parametrize("link", ["TestVideo", "TestVideo/video7010.mp4"])
def test_links_that_leave_the_folder_are_refused(
    raw: Path, output: Path, link: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_films(tmp_path, "elsewhere/TestVideo/video7010.mp4")
    write(raw, {films.TEST: msrvtt(*TESTING)})
    (raw / link).parent.mkdir(exist_ok=True)
    (raw / link).symlink_to(tmp_path / "elsewhere" / link)
    assert run(MSRVTT.name, raw, output, "--splits", "msrvtt_caption_test3k") == 2
    assert f"{link} is a link that leaves {raw}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is no object"),
        ('{"videos": [], "sentences": 3}', "has no list 'sentences'"),
        ('{"videos": [{"video_id": 7, "split": "test"}], "sentences": []}', "film 1 has no text 'video_id'"),
    ],
)
def test_files_of_another_format_are_named(
    raw: Path, output: Path, content: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (raw / films.TEST).write_text(content)
    assert run(MSRVTT.name, raw, output, "--splits", "msrvtt_caption_test3k") == 2
    error = capsys.readouterr().err
    assert complaint in error and films.TEST in error and error.count("\n") == 1


def test_missing_raw_files_are_named_at_once(raw: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(MSRVTT.name, raw, output) == 2
    assert f"lacks {films.TRAIN_VAL}, {films.TEST}" in capsys.readouterr().err


# -------------------------------------------------------------------------------- questions


def question(number: int, text: str, answer: str, film: int) -> dict[str, Any]:
    return {"answer": answer, "category_id": 3, "id": number, "question": text, "video_id": film}


TRAIN = [question(0, "what is a man doing?", "talk", 0), question(1, "who\tsings?", "woman", 0)]
VAL = [question(2, "what sits?", "cat", 6513), question(3, "who walks?", "woman", 6513)]
TEST = [question(4, "who eats ?", "Käfer", 7010), question(5, "", "x", 7010)]


@pytest.fixture
def qa_raw(raw: Path) -> Path:
    write(raw, {films.TRAIN_QA: TRAIN, films.VAL_QA: VAL, films.TEST_QA: TEST})
    make_films(raw, *(f"videos/all/video{number}.mp4" for number in (0, 6513, 7010)))
    return raw


def test_questions_become_rows(qa_raw: Path, output: Path) -> None:
    assert run(MSRVTT_QA.name, qa_raw, output) == 0
    assert rows(output / "msrvtt_qa_4k_train.tsv") == [
        ["0", "video0", "what is a man doing?", "1.0|!+talk", "", "videos/all/video0.mp4"],
        ["1", "video0", "who sings?", "1.0|!+woman", "", "videos/all/video0.mp4"],
    ]
    assert rows(output / "msrvtt_qa_4k_test.tsv") == [
        ["4", "video7010", "who eats ?", "1.0|!+Käfer", "", "videos/all/video7010.mp4"]
    ]
    assert [row[0] for row in rows(output / "msrvtt_qa_4k_val.tsv")] == ["2", "3"]


def test_the_answer_set_counts_training_and_validation(qa_raw: Path, output: Path) -> None:
    assert run(MSRVTT_QA.name, qa_raw, output) == 0
    answers = read_answers(output / "msrvtt_trainval_4k_ans2label.json")
    assert answers == ["woman", "cat", "talk"]


def test_training_keeps_to_the_frequent_answers(qa_raw: Path) -> None:
    found = list(films.question_rows(qa_raw, films.TRAIN_QA, films._msrvtt_names, top=2))
    assert [type(item).__name__ for item in found] == ["LeftOut", "Record"]
    assert films.answer_set(qa_raw, 1) == {"woman": 0}


def test_the_files_have_the_names_of_the_scripts() -> None:
    assert [part.output for part in MSVD_QA.outputs] == [
        "msvd_qa_1k_train.tsv",
        "msvd_qa_1k_val.tsv",
        "msvd_qa_1k_test.tsv",
        "msvd_trainval_1k_ans2label.json",
    ]


@pytest.fixture
def msvd_raw(raw: Path) -> Path:
    questions = [{"answer": "cat", "id": n, "question": "what sits?", "video_id": n} for n in (1, 2)]
    write(raw, {name: questions for name in (films.TRAIN_QA, films.VAL_QA, films.TEST_QA)})
    (raw / films.MAPPING).write_text("-4wsuPCjDBc_5_15 vid1\r\n\nmv89psg6zh4_33_46 vid2\r\n")
    make_films(raw, "YouTubeClips/-4wsuPCjDBc_5_15.avi", "YouTubeClips/vid2.mp4")
    return raw


def test_films_may_have_their_published_names_or_their_numbers(msvd_raw: Path, output: Path) -> None:
    assert run(MSVD_QA.name, msvd_raw, output) == 0
    assert [row[1:] for row in rows(output / "msvd_qa_1k_test.tsv")] == [
        ["vid1", "what sits?", "1.0|!+cat", "", "YouTubeClips/-4wsuPCjDBc_5_15.avi"],
        ["vid2", "what sits?", "1.0|!+cat", "", "YouTubeClips/vid2.mp4"],
    ]


@pytest.mark.parametrize(
    ("mapping", "complaint"),
    [
        ("-4wsuPCjDBc_5_15 vid1\n", "question 2: "),
        ("-4wsuPCjDBc_5_15\n", f"{films.MAPPING}:1 needs two names"),
        ("../film vid1\nb vid2\n", f"{films.MAPPING}:1: '../film' is no name of a file"),
    ],
)
def test_a_bad_mapping_is_named(
    msvd_raw: Path, output: Path, mapping: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (msvd_raw / films.MAPPING).write_text(mapping)
    assert run(MSVD_QA.name, msvd_raw, output, "--splits", "msvd_qa_1k_test") == 2
    assert complaint in capsys.readouterr().err


# -------------------------------------------------------------------------------- ActivityNet


def film(times: Sequence[Any], sentences: Sequence[str]) -> dict[str, Any]:
    return {"duration": 82.73, "timestamps": list(times), "sentences": list(sentences)}


ANET = {
    "v_QOlSCBRmfWY": film([[0.83, 19.86], [60, 17.37]], ["A young woman.", " The girl\ndances. "]),
    "v_-ehnMxSDcps": film([[0, 5], [3, 3], [1, 2]], ["One.", "Two.", " "]),
}


@pytest.fixture
def anet_raw(raw: Path) -> Path:
    write(raw, {"train.json": ANET, "val_1.json": ANET, "val_2.json": ANET})
    clips = ["v_QOlSCBRmfWY_0.83_19.86", "v_QOlSCBRmfWY_17.37_60.00", "v_-ehnMxSDcps_0.00_5.00"]
    make_films(raw, *(f"clips/{name}.mp4" for name in clips), "v1-2/v_QOlSCBRmfWY.mp4", "v1-3/v_-ehnMxSDcps.mkv")
    return raw


def test_a_sentence_becomes_a_row_about_its_clip(anet_raw: Path, output: Path) -> None:
    assert run(ACTIVITYNET.name, anet_raw, output) == 0
    assert rows(output / "activitynet_caption_val2.tsv") == [
        ["v_QOlSCBRmfWY_0", "v_QOlSCBRmfWY", "A young woman.", "", "clips/v_QOlSCBRmfWY_0.83_19.86.mp4"],
        ["v_QOlSCBRmfWY_1", "v_QOlSCBRmfWY", "The girl dances.", "", "clips/v_QOlSCBRmfWY_17.37_60.00.mp4"],
        ["v_-ehnMxSDcps_0", "v_-ehnMxSDcps", "One.", "", "clips/v_-ehnMxSDcps_0.00_5.00.mp4"],
    ]
    assert (output / "activitynet_caption_train.tsv").exists()
    assert not (output / "activitynet_caption_val1.tsv").exists()


def test_all_sentences_of_a_film_become_one_row(anet_raw: Path, output: Path) -> None:
    assert run(ACTIVITYNET_PARAGRAPHS.name, anet_raw, output) == 0
    assert rows(output / "activitynet_paragraph_val1.tsv") == [
        ["v_QOlSCBRmfWY", "v_QOlSCBRmfWY", "A young woman. The girl dances.", "", "v1-2/v_QOlSCBRmfWY.mp4"],
        ["v_-ehnMxSDcps", "v_-ehnMxSDcps", "One. Two.", "", "v1-3/v_-ehnMxSDcps.mkv"],
    ]


@pytest.mark.parametrize(
    "damage",
    [film([[0, 1]], []), film([[0]], ["One."]), film([["0", "1"]], ["One."]), film([None], [None]), {}, []],
)
def test_damaged_films_are_named(raw: Path, output: Path, damage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(raw, {"val_2.json": {"v_QOlSCBRmfWY": damage}})
    assert run(ACTIVITYNET.name, raw, output, "--splits", "activitynet_caption_val2") == 2
    assert "val_2.json: v_QOlSCBRmfWY" in capsys.readouterr().err


# -------------------------------------------------------------------------------- validation


@pytest.fixture(scope="module")
def film_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    pytest.importorskip("av")
    from made_films import write_film

    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", frames=8).read_bytes()


def make_real(raw: Path, content: bytes) -> None:
    for path in raw.rglob("*"):
        if path.suffix in FILMS:
            path.write_bytes(content)


@pytest.mark.parametrize("name", [MSRVTT.name, ACTIVITYNET.name, ACTIVITYNET_PARAGRAPHS.name])
def test_rows_of_captions_are_valid(
    name: str, msrvtt_raw: Path, anet_raw: Path, output: Path, film_bytes: bytes
) -> None:
    make_real(msrvtt_raw, film_bytes)
    assert run(name, msrvtt_raw, output) == 0
    for path in output.glob("*.tsv"):
        assert validate(path, "video_caption", msrvtt_raw) == 0


@pytest.mark.parametrize("name", [MSRVTT_QA.name, MSVD_QA.name])
def test_rows_of_questions_are_valid(
    name: str, output: Path, film_bytes: bytes, request: pytest.FixtureRequest
) -> None:
    raw = request.getfixturevalue("qa_raw" if name == MSRVTT_QA.name else "msvd_raw")
    make_real(raw, film_bytes)
    assert run(name, raw, output) == 0
    answers = next(output.glob("*ans2label.json"))
    train, val, test = (next(output.glob(f"*_{part}.tsv")) for part in ("train", "val", "test"))
    assert validate(train, "video_vqa_gen", raw, "--answers", str(answers)) == 0
    assert validate(val, "video_vqa_gen", raw) == validate(test, "video_vqa_gen", raw) == 0
