"""``unival merge --greedy``."""

from __future__ import annotations

from pathlib import Path

import pytest
from merge_bench import Bench, weight_in


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def decisions(bench: Bench) -> list[tuple[str, list[str], float]]:
    return [
        (line["decision"], [Path(file).name for file in line["files"]], line["value"])
        for line in bench.lines("greedy.jsonl")
    ]


def test_a_soup_takes_in_what_does_not_make_it_worse(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.greedy([9.0, 1.0, 2.5]) == 0
    assert decisions(bench) == [
        ("alone", ["f0.pt"], -7),
        ("alone", ["f1.pt"], -1),
        ("alone", ["f2.pt"], -0.5),
        ("begun", ["f2.pt"], -0.5),
        ("added", ["f2.pt", "f1.pt"], -0.25),
        ("left out", ["f2.pt", "f1.pt", "f0.pt"], pytest.approx(-13 / 6, abs=1e-4)),
    ]
    assert weight_in(bench.output / "soup.pt") == 1.75
    assert "2 of 3 files" in capsys.readouterr().out
    assert [path.name for path in bench.output.glob("*.pt")] == ["soup.pt"]


def test_an_equal_metric_is_not_worse(bench: Bench) -> None:
    assert bench.greedy([1.0, 1.0]) == 0
    assert [decision for decision, *_ in decisions(bench)] == ["alone", "alone", "begun", "added"]


def test_smaller_can_be_better(bench: Bench) -> None:
    assert bench.greedy([9.0, 1.0], "--minimise") == 0
    assert decisions(bench)[2:] == [("begun", ["f0.pt"], -7), ("left out", ["f0.pt", "f1.pt"], -3)]
    assert weight_in(bench.output / "soup.pt") == 9


def test_an_interrupted_soup_continues(bench: Bench) -> None:
    assert bench.greedy([9.0, 1.0, 2.5]) == 0
    whole = bench.lines("greedy.jsonl")
    path = bench.output / "greedy.jsonl"
    for kept in (2, 4, 5, 6):
        path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:kept]))
        (bench.output / "soup.pt").unlink()
        assert bench.greedy([9.0, 1.0, 2.5]) == 0
        assert bench.lines("greedy.jsonl") == whole
        assert weight_in(bench.output / "soup.pt") == 1.75
    assert len(bench.evaluated()) == 5 + 3 + 2 + 1


def test_another_soup_is_not_overwritten(bench: Bench) -> None:
    bench.output.mkdir()
    own = Path(bench.file("out/soup.pt", 5.0))
    assert bench.greedy([1.0, 2.0]) == 2
    assert weight_in(own) == 5 and bench.evaluated() == []
    assert bench.greedy([1.0, 2.0], "--overwrite") == 0
    assert bench.greedy([1.0, 2.0], "--minimise") == 2


@pytest.mark.parametrize("flags", [["--plot", "x.png"], ["--keep-checkpoints"], ["--evaluate", "two=x {checkpoint}"]])
def test_flags_that_do_not_go_with_a_soup(bench: Bench, flags: list[str]) -> None:
    assert bench.greedy([1.0, 2.0], *flags) == 2
    assert bench.evaluated() == []
