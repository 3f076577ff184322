"""Films of digits: the sentence is what the decoded pixels show, answers are right, same seed gives the same bytes."""

from __future__ import annotations

import io
import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

pytest.importorskip("av")

import av
import contact_sheet
import digits
import sentencepiece
from digits_film_questions import ANSWERS, QUESTIONS, draw_questions, film_question_rows
from digits_films import DIRECTIONS, FilmMaker, encode_film
from digits_language import Setting, row_random
from digits_scenes import NAMES, load_source, relation
from PIL import Image

from unival_cli.sheet_media import middles

TASKS = ("video_caption", "video_vqa_gen")
PLAN = digits.BuildPlan(tasks=TASKS, films=8, val_rows=3, test_rows=4, epoch_files=2, easy_files=1)
DIGIT = rf"an? ({'|'.join(NAMES)})"
SENTENCE = rf"{DIGIT} (?:(stays)|moves (left|right|up|down)|turns into {DIGIT})"


@pytest.fixture(scope="module")
def maker():
    return FilmMaker(load_source(seed=7), seed=7)


@pytest.fixture(scope="module")
def films(maker):
    return [maker.make("train", 1, row) for row in range(400)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films") / "data"
    digits.build(folder, PLAN)
    return folder


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def decode(data):
    """Grey frames (n, height, width), float32."""
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(np.float32)


def ink_of(frames):
    """What differs clearly from the background, which is most of the first frame."""
    return np.maximum(np.abs(frames - np.median(frames[0])) - 40, 0)


def centre(ink):
    ys, xs = np.indices(ink.shape)
    return np.array([(xs * ink).sum(), (ys * ink).sum()]) / ink.sum()


def told(caption):
    """(label, action, label it becomes or None) of every sentence of a caption."""
    parts = []
    for sentence in caption.split(" and "):
        found = re.fullmatch(SENTENCE, sentence)
        assert found, caption
        parts.append((found[1], found[2] or found[3] or "turns", found[4]))
    return parts


# -------------------------------------------------------------------------------- films


def test_a_film_is_h264_with_frames_of_the_canvas(films):
    with av.open(io.BytesIO(films[0].data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height, stream.average_rate) == ("h264", 64, 64, 8)
    assert decode(films[0].data).shape == (16, 64, 64)


@pytest.mark.parametrize("way", list(DIRECTIONS))
def test_a_lone_digit_moves_where_the_caption_says(films, way):
    moving = [film for film in films if re.fullmatch(rf"{DIGIT} moves {way}", film.caption)]
    assert len(moving) > 5
    for film in moving:
        ink = ink_of(decode(film.data))
        shift = centre(ink[-1]) - centre(ink[0])
        along = shift @ DIRECTIONS[way]
        assert along > 15 and np.abs(shift).sum() - along < 3


def test_four_frames_show_most_of_a_motion(films):
    for film in films:
        shown = [actor for actor in film.actors if actor.moves]
        for actor in shown:
            first, *_, last = (actor.boxes[k] for k in middles(16))
            step = DIRECTIONS[actor.action]
            assert (last[0] - first[0]) * step[0] + (last[1] - first[1]) * step[1] >= 12


def test_what_stays_looks_the_same_all_the_time(films):
    staying = [film for film in films if re.fullmatch(rf"{DIGIT} stays", film.caption)]
    assert len(staying) > 5
    for film in staying:
        frames = decode(film.data)
        assert np.abs(frames - frames[0]).mean() < 3


def test_what_turns_into_another_digit_changes_in_the_middle_and_keeps_its_place(films):
    turning = [film for film in films if re.fullmatch(rf"{DIGIT} turns into {DIGIT}", film.caption)]
    assert len(turning) > 20
    for film in turning:
        frames = decode(film.data)
        first, _, _, last = middles(len(frames))
        change = np.abs(frames[last] - frames[first]).sum()
        assert np.abs(frames[first] - frames[0]).sum() < change / 3
        assert np.abs(frames[-1] - frames[last]).sum() < change / 3
        assert np.abs(centre(ink_of(frames)[-1]) - centre(ink_of(frames)[0])).max() < 6


def test_ink_is_in_the_boxes_in_every_frame(films):
    for film in films[:60]:
        ink = ink_of(decode(film.data))
        for number, frame in enumerate(ink):
            outside = np.ones_like(frame, dtype=bool)
            for actor in film.actors:
                x0, y0, x1, y1 = actor.boxes[number]
                assert 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 64 and frame[y0:y1, x0:x1].any()
                outside[max(0, y0 - 4) : y1 + 4, max(0, x0 - 4) : x1 + 4] = False
            assert frame[outside].sum() <= 0.02 * frame.sum()


def test_captions_follow_from_the_actors(films):
    for film in films:
        actors = [(NAMES[a.label], a.action, None if a.becomes is None else NAMES[a.becomes[0]]) for a in film.actors]
        assert told(film.caption) == actors


def test_who_is_further_left_or_above_in_the_beginning_comes_first(films):
    pairs = [film.actors for film in films if len(film.actors) == 2]
    assert 100 < len(pairs) < 300
    for first, second in pairs:
        assert relation(first.boxes[0], second.boxes[0], margin=0) is not None


def test_digits_of_a_film_are_all_different(films):
    for film in films:
        labels = [label for actor in film.actors for label in actor.labels]
        assert len(set(labels)) == len(labels)


def test_everything_happens_and_nothing_most_of_the_time(films):
    actions = Counter(actor.action for film in films for actor in film.actors)
    assert set(actions) == {*DIRECTIONS, "stays", "turns"}
    assert max(actions.values()) < 0.4 * actions.total()
    assert max(Counter(film.caption for film in films).values()) < 10


def test_films_use_scans_of_their_split(maker):
    for stream, split in enumerate(("train", "val", "test"), 1):
        for row in range(25):
            for actor in maker.make(split, stream, row).actors:
                assert actor.source in maker.source.pools[split][actor.label]
                assert actor.becomes is None or actor.becomes[1] in maker.source.pools[split][actor.becomes[0]]


def test_a_film_depends_on_its_row_number_only(maker, films):
    assert maker.make("train", 1, 9) == films[9]
    assert maker.make("train", 2, 9) != films[9]


def test_the_coder_gives_the_same_bytes_every_time(films):
    for film in films[:20]:
        with av.open(io.BytesIO(film.data)) as container:
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert len({encode_film(frames) for _ in range(8)}) == 1


def test_at_most_one_digit_if_asked(maker):
    lone = FilmMaker(maker.source, seed=7, max_digits=1)
    assert {len(lone.make("train", 1, row).actors) for row in range(20)} == {1}


@pytest.mark.parametrize("options", [{"canvas": 65}, {"frames": 4}])
def test_films_that_cannot_be_are_refused(maker, options):
    with pytest.raises(ValueError, match="films need"):
        FilmMaker(maker.source, seed=7, **options)


def test_other_sizes_and_lengths(maker):
    assert decode(FilmMaker(maker.source, 7, canvas=96, frames=8).make("test", 901, 0).data).shape == (8, 96, 96)


# -------------------------------------------------------------------------------- questions


@pytest.fixture(scope="module")
def asked(films):
    return [(film, question) for film in films for question in draw_questions(row_random(Setting(7), film, 4), film)]


def true_answer(caption, text):
    """The answer by the words of the caption."""
    parts = told(caption)
    seen = {word for first, _, after in parts for word in (first, after) if word}
    movers = [part for part in parts if part[1] in DIRECTIONS]
    if found := re.match(rf"(?:is there|can you see) {DIGIT}", text):
        return "yes" if found[1] in seen else "no"
    if text.startswith("how many"):
        return (["none", *NAMES[1:]])[len(movers)] if "mov" in text else NAMES[len(parts)]
    if found := re.fullmatch(r"(?:does|is) the (\w+) mov(?:e|ing)(?: (\w+))?\?", text):
        ways = {first: action for first, action, _ in movers}
        return "yes" if (ways.get(found[1]) == found[2] if found[2] else found[1] in ways) else "no"
    if found := re.fullmatch(r"where (?:does|is) the (\w+) mov(?:e|ing)\?", text):
        return {first: action for first, action, _ in movers}[found[1]]
    if found := re.fullmatch(r"(?:what does the (\w+) turn into|what becomes of the (\w+))\?", text):
        return {first: after for first, _, after in parts}[found[1] or found[2]]
    if found := re.fullmatch(rf"(?:which digit|what) turns into {DIGIT}\?", text):
        return {after: first for first, _, after in parts}[found[1]]
    found = re.fullmatch(r"(?:which|what) digit (?:(stays)|moves(?: (\w+))?)\?", text)
    assert found, text
    doing = [
        first for first, action, _ in (movers if not found[1] else parts) if action == (found[1] or found[2] or action)
    ]
    assert len(doing) == 1, (caption, text)
    return doing[0]


def test_every_answer_is_right(asked):
    for film, question in asked:
        assert question.answer == true_answer(film.caption, question.text), (film.caption, question)


def test_every_kind_is_asked_and_no_answer_wins(asked):
    answers = defaultdict(Counter)
    for _, question in asked:
        answers[question.kind][question.answer] += 1
    assert set(answers) == {"exists", "count", "moving", "way", "which", "where", "becomes", "was"}
    for kind, counts in answers.items():
        assert max(counts.values()) <= 0.6 * counts.total(), (kind, counts)


def test_no_wording_of_a_question_has_one_answer(asked):
    answers = defaultdict(Counter)
    for _, question in asked:
        answers[re.sub("|".join(NAMES), "digit", question.text)][question.answer] += 1
    common = [counts for counts in answers.values() if counts.total() >= 70]
    assert len(common) >= 5
    assert all(max(counts.values()) <= 0.7 * counts.total() for counts in common)


def test_all_answers_are_in_the_set(asked):
    assert {question.answer for _, question in asked} == set(ANSWERS)


def test_a_film_has_different_questions_with_numbers_of_their_own(films):
    for film in films[:50]:
        cells = film_question_rows(film, Setting(7))
        assert len({row[2] for row in cells}) == len({row[0] for row in cells}) == QUESTIONS
        assert all(row[3].startswith("1.0|!+") and row[1] == film.name for row in cells)


# -------------------------------------------------------------------------------- the folder


def test_same_seed_gives_the_same_bytes(built, tmp_path):
    digits.build(tmp_path / "again", PLAN)
    assert contents(tmp_path / "again") == contents(built)


def test_rows_name_films_of_the_folder(built):
    for stem, number in {"train_1": 8, "train_2": 8, "val": 3, "test": 4}.items():
        captions, questions = rows(built / f"video_{stem}.tsv"), rows(built / f"video_vqa_{stem}.tsv")
        assert [cells[4] for cells in captions] == [f"films/{stem}/{row:06d}.mp4" for row in range(number)]
        assert [cells[5] for cells in questions] == [cells[4] for cells in captions for _ in range(QUESTIONS)]
        assert all(cells[3] == "" and (built / cells[4]).stat().st_size > 500 for cells in captions)
        assert all(cells[4] == "" for cells in questions)


def test_answers_are_in_the_answer_file(built):
    answers = json.loads((built / "video_answers.json").read_text())
    assert list(answers) == list(ANSWERS)
    for cells in rows(built / "video_vqa_train_2.tsv"):
        assert cells[3].removeprefix("1.0|!+") in answers


def test_easy_files_have_one_digit_a_film(built):
    assert not any(" and " in cells[2] for cells in rows(built / "video_train_1.tsv"))
    assert any(" and " in cells[2] for cells in rows(built / "video_train_2.tsv"))


def test_the_manifest_counts_rows_and_names_the_coder(built):
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["rows"]["video_train_1.tsv"] == 8 and manifest["rows"]["video_vqa_train_1.tsv"] == 8 * QUESTIONS
    assert manifest["versions"]["av"] == av.__version__ and manifest["film_frames"] == 16


def test_captions_do_not_depend_on_the_questions(built, tmp_path):
    flags = ["--films", "8", "--val-rows", "3", "--test-rows", "4", "--epoch-files", "2", "--easy-files", "1"]
    assert digits.main(["--output", str(tmp_path / "own"), "--tasks", "video_caption", *flags]) == 0
    own, whole = contents(tmp_path / "own"), contents(built)
    assert all(whole[name] == data for name, data in own.items() if name not in ("manifest.json", "README.txt"))


def test_the_vocabulary_is_that_of_pictures_and_knows_the_words(built, films, asked, tmp_path):
    digits.build(tmp_path / "pictures", digits.BuildPlan(train_rows=1, val_rows=1, test_rows=1))
    assert (tmp_path / "pictures" / "digits.model").read_bytes() == (built / "digits.model").read_bytes()
    model = sentencepiece.SentencePieceProcessor(model_file=str(built / "digits.model"))
    said = {word for film in films for word in film.caption.split()} | set(ANSWERS)
    assert [word for word in sorted(said) if len(model.encode(word)) != 1] == []
    for text in {question.text for _, question in asked}:
        pieces = model.encode(text)
        assert model.unk_id() not in pieces and model.decode(pieces) == text
        assert len(pieces) <= len(text.split()) + 4


@pytest.mark.parametrize("task", TASKS)
def test_a_contact_sheet_shows_four_frames_of_each_film(built, tmp_path, task):
    table = built / f"{digits.ROW_KINDS[task].prefix}test.tsv"
    assert contact_sheet.main(["--tsv", str(table), "--task", task, "--output", str(tmp_path / "sheet.png")]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 3 * (320 + 8) + 8 and sheet.height < 3 * 320 * 4


@pytest.mark.parametrize("content", [b"", b"no film at all", None])
def test_a_contact_sheet_names_the_row_of_a_bad_film(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "bad.mp4").write_bytes(content)
    (tmp_path / "t.tsv").write_text("1\tx\ta three stays\t\tbad.mp4\n")
    flags = ["--tsv", str(tmp_path / "t.tsv"), "--task", "video_caption", "--output", str(tmp_path / "s.png")]
    assert contact_sheet.main(flags) == 2
    assert "t.tsv:row 1: bad.mp4 is no film that can be read" in capsys.readouterr().err
