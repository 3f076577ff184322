"""Pickles of others: plain content comes out, everything else is refused without running it."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from unival_cli.light import light
from unival_cli.plain_pickle import read_plain_pickle

CONTENT = [{"a": [1, 2.5, None, True], "é": ("x", {3: "text"})}]


def written(folder: Path, data: bytes) -> Path:
    (folder / "refs.p").write_bytes(data)
    return folder / "refs.p"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_come_out_as_they_were(tmp_path, protocol):
    assert read_plain_pickle(written(tmp_path, pickle.dumps(CONTENT, protocol))) == CONTENT


class Harmful:
    """Would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run(tmp_path, protocol):
    path = written(tmp_path, pickle.dumps({"a": Harmful(tmp_path / "trace")}, protocol))
    with pytest.raises(light("errors").DataError, match="refs.p: the pickle asks for .*only plain lists and dicts"):
        read_plain_pickle(path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", [OrderedDict(a=1), print, list, ValueError("x")])
def test_even_harmless_classes_and_functions_are_refused(tmp_path, content):
    with pytest.raises(light("errors").DataError, match="the pickle asks for "):
        read_plain_pickle(written(tmp_path, pickle.dumps(content)))


@pytest.mark.parametrize("data", [b"", b"text", b"\x80\x02]q\x00(K\x01", b"\x80\xff.", b"Pid\n."])
def test_damaged_files_are_named(tmp_path, data):
    with pytest.raises(light("errors").DataError, match=r"refs\.p: not a readable pickle \("):
        read_plain_pickle(written(tmp_path, data))


def test_a_missing_file_is_the_system_s_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_plain_pickle(tmp_path / "none.p")
