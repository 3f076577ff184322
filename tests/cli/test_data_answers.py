"""``unival data convert-answers``: sets of answers leave their pickles, and nothing in there is run."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from unival_cli.main import main


def convert(folder: Path, content: Any, *flags: str, protocol: int = 2) -> int:
    """The command's exit status for a pickle of ``content``, or for a file of these bytes."""
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
    (folder / "answers.pkl").write_bytes(data)
    return main(["data", "convert-answers", str(folder / "answers.pkl"), str(folder / "out.json"), *flags])


def result(folder: Path) -> Any:
    return json.loads((folder / "out.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_dict_keeps_its_order(tmp_path: Path, protocol: int, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"no": 1, "yes": 0, "café": 2, "10": 3}
    assert convert(tmp_path, answers, protocol=protocol) == 0
    assert list(result(tmp_path).items()) == list(answers.items())
    assert capsys.readouterr().out == f"{tmp_path / 'out.json'}: 4 answers\n"


def test_a_list_stays_a_list(tmp_path: Path) -> None:
    assert convert(tmp_path, ["yes", "no"]) == 0
    assert result(tmp_path) == ["yes", "no"]


def test_the_task_reads_the_result(tmp_path: Path) -> None:
    from unival_plugin.data.answer_files import read_answers

    assert convert(tmp_path, {"no": 1, "café": 0}) == 0
    assert read_answers(tmp_path / "out.json") == ["no", "café"]


def test_byte_strings_of_python_2_are_read(tmp_path: Path) -> None:
    # {"caf\xc3\xa9": 0} as Python 2 wrote it (SHORT_BINSTRING)
    assert convert(tmp_path, b"\x80\x02}U\x05caf\xc3\xa9K\x00s.") == 0
    assert result(tmp_path) == {"café": 0}


class Harmful:
    """Would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_nothing_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(tmp_path, {"yes": Harmful(tmp_path / "trace")}) == 2
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "out.json").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert "answers.pkl: the pickle asks for " in line


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (OrderedDict(yes=0), "asks for collections.OrderedDict"),
        ({}, "needs a list of answers or a dict answer -> number, has {}"),
        ([], "needs a list"),
        ("yes", "needs a list"),
        (["yes", 3], "answer 3 is not a text"),
        ({("yes",): 0}, "answer ('yes',) is not a text"),
        (["\ud800"], "is not a text"),
        ({"yes": "0"}, "answer 'yes' has '0' where its number belongs"),
        ({"yes": True}, "has True"),
        (b"", "not a readable pickle"),
        (b"yes\nno\n", "not a readable pickle"),
        (b"\x80\x02}(", "not a readable pickle"),
    ],
)
def test_other_content_is_refused_in_one_line(
    tmp_path: Path, content: Any, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tmp_path, content, protocol=4) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "answers.pkl" in line
    assert complaint in line
    assert not (tmp_path / "out.json").exists()


def test_existing_files_stay_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("mine")
    assert convert(tmp_path, ["yes"]) == 2
    assert (tmp_path / "out.json").read_text() == "mine"
    assert convert(tmp_path, ["yes"], "--overwrite") == 0
    assert result(tmp_path) == ["yes"]


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert-answers", str(tmp_path / "gone.pkl"), str(tmp_path / "out.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "gone.pkl" in line
