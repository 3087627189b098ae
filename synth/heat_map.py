"""Square matrices over classes as one SVG: no plotting library, legible at any zoom, a tooltip on every cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from synth.cooccurrence import Change

_CELLS, _CELL_RANGE = 640, (12, 40)  # pixels: side of a panel, and of a cell
_LABEL = 7  # pixels per letter
_BLUE, _WHITE, _RED = (np.array(colour) for colour in ((8, 48, 107), (255, 255, 255), (165, 15, 21)))
_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#222}.title{font-size:15px;font-weight:600}.row{text-anchor:end}"
    "rect:hover{stroke:#000}"
)


@dataclass(frozen=True)
class Panel:
    """One matrix of a figure.

    Attributes:
        title: what stands above it.
        values: `[C, C]`; 0 is left white, and what is not a number is grey.
        limit: the value of the darkest colour.
        cell: text of a tooltip, with `{row}`, `{column}` and `{value}` in it.
    """

    title: str
    values: NDArray[np.float64]
    limit: float
    cell: str


def conditional_figure(change: Change, what: str) -> str:
    """Draw P(column | row) before and after on one scale, and their difference on its own.

    Args:
        change: counts before and after.
        what: what is counted, "images" or "captions".

    Returns:
        The text of an SVG file; classes that never occur before are left out.
    """
    seen = np.flatnonzero(change.before.counts)
    before, after = (_off_diagonal(each.conditional[np.ix_(seen, seen)]) for each in (change.before, change.after))
    limit, moved = _largest(before, after), _largest(after - before)
    cell = "P({column} | {row}) = {value}"
    panels = [
        Panel(f"P(column | row), {change.before.total:,} {what} before", before, limit, cell),
        Panel(f"P(column | row), {change.after.total:,} {what} after", after, limit, cell),
        Panel("after - before", after - before, moved, "change of P({column} | {row}): {value}"),
    ]
    return draw(panels, [change.class_names[index] for index in seen])


def _off_diagonal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.eye(len(values), dtype=bool), np.nan, values)


def _largest(*matrices: NDArray[np.float64]) -> float:
    return max((float(np.abs(matrix[np.isfinite(matrix)]).max(initial=0.0)) for matrix in matrices), default=0.0)


def draw(panels: Sequence[Panel], names: Sequence[str]) -> str:
    """Draw matrices side by side.

    Args:
        panels: the matrices.
        names: names of the C rows and columns.

    Returns:
        The text of an SVG file.

    Example:
        >>> svg = draw([Panel("P", np.array([[np.nan, 0.5], [1.0, np.nan]]), 1.0, "{column}: {value}")], ["cat", "dog"])
        >>> "<title>dog: 0.500</title>" in svg
        True
    """
    side = float(np.clip(_CELLS / max(len(names), 1), *_CELL_RANGE))
    margin = 20 + _LABEL * max(map(len, names), default=0)
    width, height = margin + side * len(names) + 20, 30 + margin + side * len(names) + 50
    body = [
        f'<g transform="translate({number * width:.0f} 0)">{"".join(_panel(panel, names, side, margin))}</g>'
        for number, panel in enumerate(panels)
    ]
    across, down = f"{width * len(panels):.0f}", f"{height:.0f}"
    size = f'width="{across}" height="{down}" viewBox="0 0 {across} {down}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *body, "</svg>", ""])


def _panel(panel: Panel, names: Sequence[str], side: float, margin: float) -> Iterator[str]:
    left, top, length = margin, margin + 30, side * len(names)
    yield f'<text class="title" x="{left:.0f}" y="20">{escape(panel.title)}</text>'
    for index, name in enumerate(map(escape, names)):
        middle = (index + 0.5) * side + 4
        yield f'<text class="row" x="{left - 6:.0f}" y="{top + middle:.1f}">{name}</text>'
        yield f'<text transform="translate({left + middle:.1f} {top - 6:.0f}) rotate(-90)">{name}</text>'
    for row, column in np.argwhere(panel.values != 0).tolist():  # zeros are as white as the page
        value = float(panel.values[row, column])
        text = escape(panel.cell.format(row=names[row], column=names[column], value=f"{value:.3f}"))
        place = f'x="{left + column * side:.1f}" y="{top + row * side:.1f}" width="{side:.1f}" height="{side:.1f}"'
        tooltip = f"<title>{text}</title>" if np.isfinite(value) else ""
        yield f'<rect {place} fill="{colour(value, panel.limit)}">{tooltip}</rect>'
    yield f'<rect x="{left}" y="{top}" width="{length}" height="{length}" fill="none" stroke="#999"/>'
    yield from _scale(panel, left, top + length + 14)


def _scale(panel: Panel, left: float, top: float) -> Iterator[str]:
    low = -panel.limit if np.nanmin(panel.values, initial=0.0) < 0 else 0.0
    for step, value in enumerate(np.linspace(low, panel.limit, 21)):
        place = f'x="{left + 8 * step:.0f}" y="{top:.0f}" width="8" height="10"'
        yield f'<rect {place} fill="{colour(value, panel.limit)}"/>'
    yield f'<text x="{left:.0f}" y="{top + 24:.0f}">{low:.3g}</text>'
    yield f'<text class="row" x="{left + 168:.0f}" y="{top + 24:.0f}">{panel.limit:.3g}</text>'


def colour(value: float, limit: float) -> str:
    """Return white for 0, blue up to `limit`, red down to minus `limit`, grey for what is not a number.

    Example:
        >>> colour(1.0, 1.0), colour(0.0, 1.0), colour(-0.5, 1.0), colour(float("nan"), 1.0)
        ('#08306b', '#ffffff', '#d2878a', '#dddddd')
    """
    if not np.isfinite(value):
        return "#dddddd"
    share = min(abs(value) / limit, 1.0) if limit else 0.0
    red, green, blue = np.rint(_WHITE + share * ((_BLUE if value > 0 else _RED) - _WHITE)).astype(int).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"
