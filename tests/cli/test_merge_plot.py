"""Pictures of sweeps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from merge_bench import Bench

from unival_cli import merge_plot

PNG = b"\x89PNG"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def curve(metric: str, *values: float | None, name: str = "x") -> merge_plot.Curve:
    return merge_plot.Curve(name, metric, list(enumerate(values)))


@pytest.mark.parametrize(
    "curves",
    [
        [curve("cider", 1, 2)],
        [curve("cider", 1, None, 2), curve("vqa_score", 3, 4)],
        [curve("score", 1, 2, name="small"), curve("score", 3, 4, name="large")],
        [curve("cider", 1, 2), curve("vqa_score", 3, 3), curve("re:a$ (.*) $", 5, 6)],
        [curve("cider", None, None)],
    ],
    ids=["one", "two axes", "a shared axis", "normalised", "no number"],
)
def test_pictures_of_any_number_of_metrics(curves: list[merge_plot.Curve], tmp_path: Path) -> None:
    merge_plot.draw(curves, tmp_path / "new" / "x.png", "weight of a_$1_.pt")
    assert (tmp_path / "new" / "x.png").read_bytes().startswith(PNG)


def test_the_picture_goes_where_it_is_asked_for(bench: Bench) -> None:
    assert bench.sweep("--plot", str(bench.folder / "p.png"), at="0,1") == 0
    assert (bench.folder / "p.png").exists() and not (bench.output / "sweep.png").exists()


@pytest.mark.parametrize("flags, status", [([], 0), (["--plot", "p.png"], 2)])
def test_without_matplotlib_the_lines_are_written(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    status: int,
) -> None:
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    assert bench.sweep(*flags) == status
    assert "pip install 'unival-plugin[plot]'" in capsys.readouterr().err
    assert len(bench.lines()) == 3
