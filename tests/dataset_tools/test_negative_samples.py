"""Negative samples for pretraining out of rows: which texts go where, types of questions, bad rows, whole folders."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from negative_samples import main

from unival_cli import negative_rows
from unival_cli.negative_answers import AnswerCounts, beginning
from unival_cli.negative_captions import HashSet
from unival_cli.negative_samples import SHOWN_BAD_ROWS
from unival_plugin.data.negatives import NegativeSamples
from unival_plugin.data.pretraining import COLUMNS, MEDIUM_OF_TYPE

PICTURE = "no picture is read"


def caption(text: str, objects: str = "", row_type: str = "caption") -> list[str]:
    return ["1", PICTURE, text, "", "", objects, "coco", row_type]


def question(text: str, answers: str, row_type: str = "qa") -> list[str]:
    return ["1", PICTURE, "", text, answers, "", "vqa", row_type]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "negative_sample"


@pytest.fixture
def table(tmp_path: Path):
    def write(rows: Sequence[Sequence[str]], name: str = "rows.tsv") -> str:
        path = tmp_path / name
        path.write_bytes(b"".join("\t".join(cells).encode() + b"\n" for cells in rows))
        return str(path)

    return write


def run(output: Path, *flags: str) -> int:
    return main(["--output", str(output), *flags])


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def answers_in(output: Path) -> dict[str, list[str]]:
    return json.loads((output / "type2ans.json").read_text(encoding="utf-8"))


def manifest_of(output: Path) -> dict:
    return json.loads((output / "manifest.json").read_text(encoding="utf-8"))


# ---- captions and objects


def test_captions_stand_once_in_the_order_of_the_rows(output, table):
    assert run(output, "--task", "unify_task", table([caption("b a"), caption("C, d!"), caption("b a")])) == 0
    assert lines(output / "all_captions.txt") == ["b a", "C, d!"]


def test_captions_of_films_and_sounds_have_their_own_files(output, table):
    rows = [caption("p"), caption("f", row_type="video_caption"), caption("s", row_type="audio_caption")]
    assert run(output, "--task", "unify_task", table(rows)) == 0
    assert lines(output / "all_captions.txt") == ["p"]
    assert lines(output / "all_captions_video.txt") == ["f"]
    assert lines(output / "all_captions_audio.txt") == ["s"]


def test_without_films_and_sounds_there_are_no_files_for_them(output, table):
    run(output, "--task", "unify_task", table([caption("p")]))
    names = {"all_captions.txt", "object.txt", "type2ans.json", "manifest.json"}
    assert {path.name for path in output.iterdir()} == names


def test_without_pictures_the_shared_file_has_all_captions(output, table):
    rows = [caption(text, row_type=f"{medium}_caption") for text in ("x", "y") for medium in ("video", "audio")]
    run(output, "--task", "unify_task", table(rows))
    assert lines(output / "all_captions.txt") == ["x", "y"]


def test_expressions_of_regions_are_no_captions(output, table):
    rows = [caption("p"), ["2", PICTURE, "the left dog", "", "1,1,5,5", "dog", "refcoco", "visual_grounding"]]
    assert run(output, "--task", "unify_task", table(rows)) == 0
    assert lines(output / "all_captions.txt") == ["p"]


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1e", "\x85", "\u2028", "   "])
def test_a_caption_never_breaks_its_line(output, table, end):
    run(output, "--task", "unify_task", table([caption(f" one{end}two ")]))
    assert lines(output / "all_captions.txt") == ["one two"]


def test_references_joined_in_a_cell_are_captions_of_their_own(output, table):
    assert run(output, "--task", "caption", table([["1", "9", "a dog&&a cat", "", PICTURE]])) == 0
    assert lines(output / "all_captions.txt") == ["a dog", "a cat"]


def test_objects_stand_once_the_most_frequent_first(output, table):
    rows = [caption("a", "dog&&cat"), caption("b", "tree&&cat && dog"), caption("c", "cat"), caption("d")]
    run(output, "--task", "unify_task", table(rows))
    assert lines(output / "object.txt") == ["cat", "dog", "tree"]


def test_rare_objects_can_be_left_out(output, table):
    rows = [caption("a", "dog&&cat"), caption("b", "cat")]
    run(output, "--task", "unify_task", table(rows), "--min-object-count", "2")
    assert lines(output / "object.txt") == ["cat"]


def test_a_fourth_column_of_caption_rows_names_objects(output, table):
    path = table([["1", "9", "a dog", "dog&&grass", PICTURE]])
    assert run(output, "--task", "caption", path, "--selected-cols", "0,4,2,3") == 0
    assert lines(output / "object.txt") == ["dog", "grass"]


def test_a_sample_of_captions_is_the_same_in_any_order_of_the_rows(tmp_path, table):
    rows = [caption(f"caption {number}") for number in range(300)]
    assert run(tmp_path / "a", "--task", "unify_task", table(rows), "--max-captions", "40") == 0
    random.Random(1).shuffle(rows)
    assert run(tmp_path / "b", "--task", "unify_task", table(rows, "b.tsv"), "--max-captions", "40") == 0
    kept = lines(tmp_path / "a" / "all_captions.txt")
    assert len(set(kept)) == 40 and set(kept) == set(lines(tmp_path / "b" / "all_captions.txt"))
    assert kept == sorted(kept, key=lambda text: int(text.split()[1]))
    assert manifest_of(tmp_path / "a")["lines"]["all_captions.txt"] == 40


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=3000))
def test_the_set_of_hashes_is_a_set(numbers):
    hashes, seen = HashSet(), set()
    for number in numbers:
        assert hashes.add(number) is (number not in seen)
        seen.add(number)
    assert len(hashes) == len(seen)
    assert hashes.smallest(len(seen) // 2 + 1) == sorted(seen)[len(seen) // 2]


def test_the_set_of_hashes_grows():
    hashes = HashSet()
    assert all(hashes.add(number * 1024) for number in range(1, 5000))  # all want the same slots at first
    assert not any(hashes.add(number * 1024) for number in range(1, 5000))


# ---- questions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How many dogs?", "how many"),
        ("  what's  THE color", "what's the"),
        ("What’s the color", "what's the"),
        ("Is there a dog?", "yes/no"),
        ("isn't it red", "yes/no"),
        ("is it red or blue?", "or"),
        ("what is more red or blue?", "what is"),
        ("why?", "why"),
        ("-what, color!", "what color"),
    ],
)
def test_how_a_question_begins(text, expected):
    assert beginning(text) == expected


def counted(*rows: tuple[str, Sequence[str]]) -> AnswerCounts:
    counts = AnswerCounts()
    for text, answers in rows:
        counts.add(text, answers)
    return counts


def test_frequent_beginnings_are_types_rare_ones_fall_back_to_their_first_word():
    rows = [(f"how many {thing}", [str(number)]) for number, thing in enumerate(("dogs", "cats", "cars"))]
    rows += [("where is it", ["left"]), ("where are they", ["right"]), ("where was it", ["below"])]
    rows += [("who ran", ["man"]), ("which one", ["first"])]
    assert counted(*rows).groups(min_count=3) == {
        "how many": ["0", "1", "2"],
        "where": ["below", "left", "right"],
        "other": ["first", "man"],
    }


def test_an_answer_belongs_to_the_type_in_which_it_is_given_most_often():
    rows = [("how many dogs", ["2", "3"])] * 3 + [("what number is it", ["2", "7", "8"])] * 2
    groups = counted(*rows).groups(min_count=1)
    assert groups == {"how many": ["2", "3"], "what number": ["7", "8"], "other": ["2", "3", "7", "8"]}


def test_types_and_answers_are_in_order_of_frequency():
    rows = [("how many dogs", ["1"]), ("how many dogs", ["2", "3"]), ("how many cats", ["3", "b", "a"])]
    rows += [("what color", ["red"])] * 4 + [("what color", ["blue"])]
    groups = counted(*rows).groups(min_count=1)
    assert list(groups) == ["what color", "how many", "other"]
    assert groups["how many"] == ["3", "1", "2", "a", "b"]


def test_only_yes_and_no_answer_a_yes_no_question():
    rows = [("is it on", ["yes", "sitting"]), ("was it", ["no"]), ("are they", ["no", "day"])]
    assert counted(*rows).groups(min_count=1) == {"yes/no": ["no", "yes"], "other": ["day", "sitting"]}


def test_a_type_with_one_answer_is_added_to_other():
    rows = [("why is it", ["because"]), ("what color", ["red"]), ("what color", ["blue"])]
    rows += [("hm", ["so"])]
    groups = counted(*rows).groups(min_count=1)
    assert groups == {"what color": ["blue", "red"], "other": ["because", "so"]}


def test_rare_answers_can_be_left_out():
    rows = [("what color", ["red", "blue"]), ("what color", ["red", "blue", "mauve"])]
    assert counted(*rows).groups(1, min_answer_count=2) == {"what color": ["blue", "red"], "other": ["blue", "red"]}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["how many a", "how much", "is it", "is it a or b", "what color", "what is", "why", "x y"]),
            st.lists(st.sampled_from("abcdefg") | st.sampled_from(["yes", "no"]), min_size=1, max_size=3),
        ),
        max_size=30,
    ),
    st.integers(1, 6),
)
def test_answers_are_complete_and_have_one_type(rows, min_count):
    groups = counted(*rows).groups(min_count)
    known = {answer for _, answers in rows for answer in answers}
    typed = [answer for name, answers in groups.items() if name != "other" for answer in answers]
    assert len(typed) == len(set(typed))
    assert set(typed) | set(groups["other"]) == known
    assert all(len(answers) > 1 for name, answers in groups.items() if name != "other")
    assert len(groups["other"]) > 1 or len(known) < 2
    assert list(groups)[-1] == "other"


def test_all_answers_of_a_row_are_counted_without_their_confidences(output, table):
    rows = [question("what color is it", "0.3|!+red&&1.0|!+ dark blue "), question("what color", "1|!+red", "video_qa")]
    assert run(output, "--task", "unify_task", table(rows), "--min-count", "2") == 0
    assert answers_in(output)["what color"] == ["red", "dark blue"]
    assert manifest_of(output)["answers_by_type"] == {"what color": 2, "other": 2}


def test_question_rows_of_finetuning(output, table):
    path = table([["1", "9", "how many", f"1.0|!+{n}", "dog&&cat", PICTURE] for n in (1, 2)])
    assert run(output, "--task", "vqa_gen", path, "--min-count", "2") == 0
    assert answers_in(output)["how many"] == ["1", "2"]
    assert lines(output / "object.txt") == ["cat", "dog"]


# ---- several files


def test_files_of_several_tasks_are_put_together(output, table):
    pretraining = table([caption("a"), question("is it", "1|!+yes")], "s1.tsv")
    more = table([caption("b")], "s2.tsv")
    films = table([["1", "9", "a film", "", "f.mp4"]], "films.tsv")
    turned = table([[PICTURE, "is it", "1|!+no", "1", ""]], "vqa.tsv")
    flags = ["--task", "unify_task", pretraining, more, "--task", "video_caption", films]
    flags += ["--task", "vqa_gen", turned, "--selected-cols", "3,0,1,2,4", "--min-count", "2"]
    assert run(output, *flags) == 0
    assert lines(output / "all_captions.txt") == ["a", "b"]
    assert lines(output / "all_captions_video.txt") == ["a film"]
    assert answers_in(output)["yes/no"] == ["no", "yes"]
    inputs = manifest_of(output)["inputs"]
    assert [(file["task"], file["rows"]) for file in inputs] == [
        ("unify_task", 2),
        ("unify_task", 1),
        ("video_caption", 1),
        ("vqa_gen", 1),
    ]
    assert inputs[3]["selected_cols"] == "3,0,1,2,4"


def test_the_same_rows_give_the_same_bytes(tmp_path, table):
    rows = [caption("a", "x&&y"), caption("b", "y&&x"), question("how many", "1|!+3&&0.3|!+4")]
    path = table(rows)
    assert [run(tmp_path / name, "--task", "unify_task", path) for name in "ab"] == [0, 0]
    files = list((tmp_path / "a").iterdir())
    assert len(files) == 4
    assert all(path.read_bytes() == (tmp_path / "b" / path.name).read_bytes() for path in files)


def test_a_summary_tells_the_numbers(output, table, capsys):
    run(output, "--task", "unify_task", table([caption("a", "x&&y"), question("is it", "1|!+yes&&0.3|!+no")]))
    text = capsys.readouterr().out
    assert "2 rows" in text and "all_captions.txt 1" in text and "object.txt 2" in text and text.count("\n") == 1


def test_what_is_missing_for_negative_samples_is_noted(output, table, capsys):
    assert run(output, "--task", "unify_task", table([question("is it", "1|!+yes")])) == 0
    notes = capsys.readouterr().err
    assert "all_captions.txt is empty" in notes and "object.txt has 0 objects" in notes and "fewer than 2" in notes


def test_pretraining_reads_the_folder_and_draws_from_it(output, table):
    rows = [caption("a dog", "dog"), caption("a cat", "cat"), caption("a film", row_type="video_caption")]
    rows += [question("how many", "1|!+3"), question("how many", "1|!+5"), question("is it", "1|!+yes&&.3|!+no")]
    assert run(output, "--task", "unify_task", table(rows), "--min-count", "1") == 0
    negatives = NegativeSamples.read(output, output / "all_captions_video.txt")
    assert list(negatives.captions["film"]) == ["a film"] and list(negatives.captions["sound"]) == ["a dog", "a cat"]
    draws = random.Random(3)
    assert {negatives.answer(["yes"], "yes", 5.0, draws) for _ in range(9)} == {"no"}
    assert negatives.caption("picture", "a dog", ["dog"], str.lower, draws) == "a cat"


def test_pretraining_reads_a_folder_made_from_captions_only(output, table):
    assert run(output, "--task", "unify_task", table([caption("a dog"), caption("a cat")])) == 0
    negatives = NegativeSamples.read(output)
    assert negatives.caption("picture", "a dog", ["dog"], str.lower, random.Random(3)) == "a cat"


def test_rows_have_the_columns_and_types_of_pretraining():
    assert len(negative_rows.CELLS["unify_task"]) == len(COLUMNS)
    assert set(negative_rows.ROW_TYPES) == set(MEDIUM_OF_TYPE)


# ---- bad rows


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        (caption("  "), 2, "caption"),
        (question("is it", "yes"), 4, "'yes' is no answer"),
        (question("is it", "1.0|!+yes&&0.5|!+ "), 4, "is no answer"),
        (question("is it", "sure|!+yes"), 4, "is no answer"),
        (question("is it", ""), 4, "is no answer"),
        (question(" ?", "1.0|!+yes"), 3, "has no word"),
        (caption("a", row_type="text"), 7, "'text' is none of caption"),
    ],
)
def test_a_bad_row_stops_with_its_place(output, table, capsys, row, column, reason):
    path = table([caption("good"), row])
    assert run(output, "--task", "unify_task", path) == 2
    error = capsys.readouterr().err
    assert f"{path}:row 2, column {column}: " in error and reason in error and error.count("\n") == 1
    assert not output.exists() and {file.name for file in output.parent.iterdir()} <= {"rows.tsv", "rows.tsv.idx"}


def test_bad_rows_can_be_left_out_and_are_counted(output, table, capsys):
    rows = [caption("a"), question("is it", "yes"), caption("b")[:4], caption("c", "dog", "text")]
    assert run(output, "--task", "unify_task", table(rows), "--on-bad-row", "skip") == 0
    assert lines(output / "all_captions.txt") == ["a"] and lines(output / "object.txt") == []
    assert manifest_of(output)["inputs"][0]["bad_rows"] == 3
    shown = capsys.readouterr()
    assert "3 bad ones left out" in shown.out
    assert [row for row in (2, 3, 4) if f"row left out: {output.parent}/rows.tsv:row {row}" in shown.err] == [2, 3, 4]


def test_only_the_first_bad_rows_are_named(output, table, capsys):
    rows = [caption("a")] + [caption("")] * (SHOWN_BAD_ROWS + 30)
    run(output, "--task", "unify_task", table(rows), "--on-bad-row", "skip")
    assert capsys.readouterr().err.count("row left out") == SHOWN_BAD_ROWS
    assert manifest_of(output)["inputs"][0]["bad_rows"] == SHOWN_BAD_ROWS + 30


def test_bad_rows_only_is_an_error(output, table, capsys):
    assert run(output, "--task", "unify_task", table([caption("")]), "--on-bad-row", "skip") == 2
    assert "none of the rows can be used" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("content", [None, b"", b"1\t2\t3\n", b"\xff\t\t\xff\t\t\t\t\t\n"])
def test_unusable_files_are_named(output, tmp_path, capsys, content):
    path = tmp_path / "broken.tsv"
    if content is not None:
        path.write_bytes(content)
    assert run(output, "--task", "unify_task", str(path)) == 2
    error = capsys.readouterr().err
    assert re.match(rf"unival: error: {re.escape(str(path))}", error) and error.count("\n") == 1
    assert not output.exists()


def test_a_missing_file_is_found_before_the_others_are_read(output, table, capsys):
    assert run(output, "--task", "unify_task", table([caption("")]), "missing.tsv") == 2
    assert "missing.tsv does not exist" in capsys.readouterr().err


# ---- the folder


def test_a_folder_is_not_replaced_unasked(output, table, capsys):
    path = table([caption("a")])
    assert run(output, "--task", "unify_task", path) == 0
    assert run(output, "--task", "unify_task", path) == 2
    assert "add --overwrite" in capsys.readouterr().err


def test_an_earlier_build_is_replaced_as_a_whole(output, table):
    assert run(output, "--task", "unify_task", table([caption("f", row_type="video_caption")])) == 0
    assert run(output, "--task", "unify_task", table([caption("b")], "b.tsv"), "--overwrite") == 0
    assert lines(output / "all_captions.txt") == ["b"] and not (output / "all_captions_video.txt").exists()
    assert [path.name for path in output.parent.iterdir() if path.is_dir()] == [output.name]


def test_an_earlier_build_survives_an_error(output, table):
    assert run(output, "--task", "unify_task", table([caption("a")])) == 0
    assert run(output, "--task", "unify_task", table([caption("")], "b.tsv"), "--overwrite") == 2
    assert lines(output / "all_captions.txt") == ["a"]


@pytest.mark.parametrize("manifest", [None, '{"seed": 7}', "[]", "{"])
def test_other_folders_are_never_replaced(output, table, capsys, manifest):
    output.mkdir()
    (output / "precious.txt").write_text("x")
    if manifest is not None:
        (output / "manifest.json").write_text(manifest)
    assert run(output, "--task", "unify_task", table([caption("a")]), "--overwrite") == 2
    assert "no earlier build" in capsys.readouterr().err and (output / "precious.txt").exists()


def test_sources_inside_the_folder_are_not_deleted(output, table):
    assert run(output, "--task", "unify_task", table([caption("a")])) == 0
    own = output / "rows.tsv"
    own.write_text("\t".join(caption("b")) + "\n")
    assert run(output, "--task", "unify_task", str(own), "--overwrite") == 2
    assert own.exists()


# ---- flags


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--task", "refcoco", "a.tsv"],
        ["--task", "caption"],
        ["--selected-cols", "0,1,2", "--task", "caption", "a.tsv"],
        ["--task", "caption", "a.tsv", "--selected-cols", "0,x,2"],
        ["--task", "unify_task", "a.tsv", "--selected-cols", "0,1,2"],
        ["--task", "caption", "a.tsv", "--min-count", "0"],
        ["--task", "caption", "a.tsv", "--max-captions", "0"],
    ],
)
def test_wrong_flags_are_refused(output, flags):
    with pytest.raises(SystemExit) as stopped:
        run(output, *flags)
    assert stopped.value.code == 2


def test_the_help_tells_the_rule(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "Question types:" in text and "--selected-cols" in text
