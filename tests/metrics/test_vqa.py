"""Soft scores of answers, exact and after the official normalisation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unival_plugin.metrics.vqa import normalise, soft_score

GOLDEN = Path(__file__).parents[1] / "golden" / "unival_tasks" / "vqa_allcand.json"


class TestNormalise:
    @pytest.mark.parametrize(
        ("answer", "wanted"),
        [
            ("Yes", "yes"),
            ("  a   red  car\t", "red car"),
            ("red\ncar", "red car"),
            ("An apple on THE table", "apple on table"),
            ("two", "2"),
            ("none", "0"),
            ("Ten men", "10 men"),
            ("twenty one", "twenty 1"),
            ("zero", "0"),
        ],
    )
    def test_case_articles_and_number_words(self, answer: str, wanted: str) -> None:
        assert normalise(answer) == wanted

    @pytest.mark.parametrize(
        ("answer", "wanted"),
        [
            ("black/white", "black white"),  # becomes a space
            ("black / white", "black white"),
            ("black- white-ish", "black whiteish"),  # one of them is beside a space: all go
            ("100,978", "100978"),
            ("1,000 t-shirts", "1000 tshirts"),  # a comma between digits: all marks go
            ("yes!", "yes"),
            ("what?!no", "what no"),
            ("3.5", "3.5"),
            ("no. 3", "no 3"),
            ("u.s.a.", "usa"),
            (".5", ".5"),
            ("2:50 pm", "2:50 pm"),
            ("girl's", "girl's"),
            ("a&b", "a&b"),
        ],
    )
    def test_punctuation(self, answer: str, wanted: str) -> None:
        assert normalise(answer) == wanted

    @pytest.mark.parametrize(
        ("answer", "wanted"),
        [
            ("dont know", "don't know"),
            ("Cant", "can't"),
            ("oclock", "o'clock"),
            ("hadnt've", "hadn't've"),
            ("y'alldve", "y'alldve"),  # two apostrophes missing: not in the table
            ("'ows'at", "'ow's'at"),
            ("twas", "'twas"),
            ("somebody'd", "somebodyd"),
            ("shes", "shes"),
            ("im", "im"),
            ("its", "its"),
        ],
    )
    def test_contractions(self, answer: str, wanted: str) -> None:
        assert normalise(answer) == wanted

    @given(st.text(alphabet="ab two1.,'-/ ", max_size=20))
    def test_leaves_no_outer_or_double_spaces(self, answer: str) -> None:
        assert normalise(answer) == " ".join(normalise(answer).split())


class TestSoftScore:
    REFERENCES = {"red": 0.6, "Red.": 0.3, "dark red": 1.0, "two": 0.9, "2": 0.9}

    def test_is_that_of_the_same_answer(self) -> None:
        assert soft_score("red", self.REFERENCES) == 0.6
        assert soft_score("Red", self.REFERENCES) == 0

    def test_of_the_original_run(self) -> None:
        golden = json.loads(GOLDEN.read_text())
        references = [
            {answer: float(confidence) for confidence, answer in (part.split("|!+") for part in row[2].split("&&"))}
            for row in golden["rows"]
        ]
        for prompt_type in ("none", "prev_output"):
            wanted = golden[prompt_type]
            scores = [soft_score(*pair) for pair in zip(wanted["predicted"], references, strict=True)]
            assert sum(scores) == pytest.approx(wanted["_vqa_score_sum"])
            assert len(scores) == wanted["_vqa_cnt"]

    def test_official_comparison_normalises_both_sides(self) -> None:
        assert soft_score("the Dark-red", self.REFERENCES, official=True) == 1
        assert soft_score("blue", self.REFERENCES, official=True) == 0

    def test_official_comparison_adds_up_what_becomes_the_same(self) -> None:
        assert soft_score("RED", self.REFERENCES, official=True) == pytest.approx(0.9)
        assert soft_score("two", self.REFERENCES, official=True) == 1

    def test_official_scores_are_those_of_ten_people(self) -> None:
        people = ["2", "two", "two ", "2.", "three", "3", "red", "red", "red", "none"]
        stored = {answer: min(1.0, 0.3 * people.count(answer)) for answer in people}
        for answer in ("two", "3", "Red", "zero"):
            votes = [normalise(person) == normalise(answer) for person in people]
            official = sum(min(1.0, (sum(votes) - vote) / 3) for vote in votes) / len(votes)
            assert soft_score(answer, stored, official=True) == pytest.approx(official)
