"""Curves of a study with their intervals, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", ":"))  # told apart without colours, too


class Point(NamedTuple):
    """One point of a curve, with the ends of its interval."""

    x: float
    mean: float
    low: float
    high: float


def draw(panels: Mapping[str, Mapping[str, Sequence[Point]]], x_label: str, stem: Path) -> None:
    """Draw panels side by side, to `STEM.svg` and `STEM.png`; the same points give the same bytes.

    Args:
        panels: for every title the curves by label, at most three; all panels have the same ones.
        x_label: what the x axis is.
        stem: path without suffix.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "odmap"}):
        figure = Figure(figsize=(max(6, 0.8 + 3.2 * len(panels)), 3.4), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)
        for axes, (title, curves) in zip(grid[0], panels.items(), strict=True):
            for (label, points), style in zip(curves.items(), _STYLES, strict=False):
                _curve(axes, label, points, *style)
            axes.set(title=title, xlabel=x_label)
            axes.grid(alpha=0.3)
        grid[0, 0].set_ylabel("per cent")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(stem.with_suffix(".png"), dpi=200)


def _curve(axes: Axes, label: str, points: Sequence[Point], color: str, marker: str, dashes: str) -> None:
    places, means, lows, highs = zip(*sorted(points), strict=True) if points else ([], [], [], [])
    axes.plot(places, means, color=color, marker=marker, linestyle=dashes, markersize=4, label=label)
    axes.fill_between(places, lows, highs, color=color, alpha=0.2, linewidth=0)
