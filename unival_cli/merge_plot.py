"""A picture of what a sweep has found: metrics over the coefficient, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from .files import atomic_output
from .light import light
from .merge_evaluations import PATTERN

WIDTH, HEIGHT, DPI = 6.4, 4.2, 150
MARKERS = "osD^v<>ph*"
SLACK = 0.06
"""How much of a scale's range stays free above and below the lines."""
COLOURS = 10
MOST_AXES = 2
"""Up to so many metrics have an axis of their own."""


@dataclass(frozen=True)
class Curve:
    """What becomes a line.

    Attributes:
        name: what was evaluated.
        metric: what was measured; curves of the same metric share a scale.
        points: coefficients, ascending, with values; None where there is no number, which leaves a gap.
    """

    name: str
    metric: str
    points: Sequence[tuple[float, Optional[float]]]

    @property
    def scale(self) -> str:
        """What the numbers are."""
        return self.metric.removeprefix(PATTERN)

    @property
    def label(self) -> str:
        """What the line is called."""
        return f"{self.name}: {self.scale}"

    @property
    def known(self) -> list[float]:
        """The values that are numbers."""
        return [value for _, value in self.points if value is not None]


def draw(curves: Sequence[Curve], path: Path, label: str) -> None:
    """Writes a PNG, completely or not at all.

    Curves of one metric share an axis. Two metrics have an axis each, left and right. Three or more are drawn from
    their lowest value (0) to their highest (1), which the legend tells.

    Args:
        label: what the coefficient is.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise light("errors").ConfigError(
            f"{path}: drawing needs matplotlib: pip install 'unival-plugin[plot]'; then run the same command again, it "
            "evaluates nothing twice"
        ) from error
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(_literal(label))
    axes.grid(alpha=0.3)
    scales = list(dict.fromkeys(curve.scale for curve in curves))
    if len(scales) > MOST_AXES:
        lines = _normalised(axes, curves)
    else:
        lines = _measured(axes, curves, scales[0], coloured=len(scales) > 1)
        for other in scales[1:]:
            lines += _measured(axes.twinx(), curves, other, coloured=True)
    figure.legend(handles=lines, loc="outside upper center", ncols=1 if len(scales) > MOST_AXES else 2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path, overwrite=True) as file:
        figure.savefig(file, format="png", dpi=DPI)


def _measured(axes: Any, curves: Sequence[Curve], scale: str, coloured: bool) -> list[Any]:
    """The curves of one scale, as they are; ``coloured``: the axis has the colour of its first line."""
    own = [(number, curve) for number, curve in enumerate(curves) if curve.scale == scale]
    axes.set_ylabel(_literal(scale))
    if coloured:
        axes.yaxis.label.set_color(_colour(own[0][0]))
        axes.tick_params(axis="y", colors=_colour(own[0][0]))
    return [_line(axes, number, curve, curve.points, curve.label) for number, curve in own]


def _normalised(axes: Any, curves: Sequence[Curve]) -> list[Any]:
    axes.set_ylabel("from the lowest (0) to the highest value (1)")
    axes.set_ylim(-SLACK, 1 + SLACK)
    lines = []
    for number, curve in enumerate(curves):
        low, high = min(curve.known, default=0.0), max(curve.known, default=0.0)
        scaled = [(x, None if y is None else (y - low) / ((high - low) or 1.0)) for x, y in curve.points]
        lines.append(_line(axes, number, curve, scaled, f"{curve.label}, {low:.4g} to {high:.4g}"))
    return lines


def _line(axes: Any, number: int, curve: Curve, points: Sequence[tuple[float, Optional[float]]], label: str) -> Any:
    xs = [x for x, _ in points]
    ys = [float("nan") if y is None else y for _, y in points]
    (line,) = axes.plot(xs, ys, color=_colour(number), marker=MARKERS[number % len(MARKERS)], label=_literal(label))
    return line


def _colour(number: int) -> str:
    return f"C{number % COLOURS}"


def _literal(text: str) -> str:
    """Dollars are in patterns and names of files; matplotlib would read formulas between them."""
    return text.replace("$", r"\$")
