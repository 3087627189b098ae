"""`python -m experiments figure4`: recall and ODmAP by the ratio of synthetic to original pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from experiments.study import columns
from experiments.study.curves import Point
from experiments.study.lines import Line
from experiments.study.tables import Form

CURVES = {"ODmAP@1": "ODmAP@1", "i2t/R@1": "R@1, image to text", "t2i/R@1": "R@1, text to image"}
"""What is drawn, and what it is called."""

PAPER = (
    "The paper's Figure 4 (CLIP, COCO) prints no numbers: its ODmAP rises steeply up to a ratio of about 0.1 and "
    "levels off after about 0.2, while its R@1 stays flat."
)

FORM = Form(
    name="figure4",
    title="Figure 4: ratio of synthetic to original pairs",
    columns=lambda _: {**columns.scores(*CURVES), **columns.against(), **columns.recall()},
    closing=lambda _, __: [PAPER],
)


def panels(found: Sequence[Line], ratios: Mapping[str, float]) -> dict[str, dict[str, list[Point]]]:
    """Return what is drawn: for every model its curves.

    Args:
        found: rows of the table.
        ratios: by name of row.
    """
    drawn: dict[str, dict[str, list[Point]]] = {}
    for line in found:
        curves = drawn.setdefault(line.labels[0], {label: [] for label in CURVES.values()})
        for label, point in _points(line, ratios[line.names[1]]):
            curves[label].append(point)
    return drawn


def _points(line: Line, ratio: float) -> Iterator[tuple[str, Point]]:
    for measure, label in CURVES.items():
        found = line.estimate(measure)
        if found and found.low is not None and found.high is not None:
            yield label, Point(ratio, found.mean, found.low, found.high)
