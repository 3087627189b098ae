"""`python -m experiments figure4`: recall and ODmAP by the ratio of synthetic to original pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from datamodules.errors import ConfigError
from experiments.study import columns
from experiments.study.command import study
from experiments.study.curves import Point, draw
from experiments.study.lines import Line
from experiments.study.settings import Settings
from experiments.study.tables import Form

CURVES = {"ODmAP@1": "ODmAP@1", "i2t/R@1": "R@1, image to text", "t2i/R@1": "R@1, text to image"}
"""What is drawn, and what it is called."""

PAPER = (
    "The paper's Figure 4 (CLIP, COCO) prints no numbers: its ODmAP rises steeply up to a ratio of about 0.1 and "
    "levels off after about 0.2, while its R@1 stays flat."
)


def main(arguments: list[str]) -> int:
    """Run what the figure needs, write its numbers as a table, and draw it.

    Args:
        arguments: what stands behind `python -m experiments figure4`.

    Raises:
        UserError: settings, data or cells cannot be used.
    """
    sweep = Sweep()
    return study(sweep.form(), sweep.rows, arguments, sweep.draw)


class Sweep:
    """The rows of the figure, of which it knows the ratios when their names have been asked for."""

    def __init__(self) -> None:
        self.ratios: dict[str, float] = {}

    def form(self) -> Form:
        """Return what the table of the figure's numbers is like."""
        return Form(
            name="figure4",
            title="Figure 4: ratio of synthetic to original pairs",
            columns=lambda _: {
                "ratio": lambda line: f"{self.ratios[line.names[1]]:g}",
                **columns.scores(*CURVES),
                **columns.against(),
                **columns.recall(),
            },
            closing=lambda _, __: [PAPER],
        )

    def rows(self, settings: Settings) -> list[str]:
        """Return the names of the rows, ascending by ratio; D + D' stands for the ratio that it has.

        Raises:
            ConfigError: the settings have no ratios.
        """
        if not settings.ratios:
            raise ConfigError(
                f"The settings of {settings.name} have no `ratios` to draw: give some, such as [0.1, 0.4], in a copy "
                "of the file, and that by `--settings`."
            )
        named = {ratio: "synthetic" if ratio == settings.ratio else f"ratio_{ratio:g}" for ratio in settings.ratios}
        self.ratios = {"control": 0.0, **{named[ratio]: ratio for ratio in sorted(named)}}
        return list(self.ratios)

    def draw(self, found: Sequence[Line], to: Path) -> None:
        """Draw the figure to a folder, as `figure4.svg` and `figure4.png`."""
        draw(self.panels(found), "ratio of synthetic to original pairs", to / "figure4")

    def panels(self, found: Sequence[Line]) -> dict[str, dict[str, list[Point]]]:
        """Return what is drawn: for every model its curves."""
        drawn: dict[str, dict[str, list[Point]]] = {}
        for line in found:
            curves = drawn.setdefault(line.labels[0], {label: [] for label in CURVES.values()})
            for label, point in _points(line, self.ratios[line.names[1]]):
                curves[label].append(point)
        return drawn


def _points(line: Line, ratio: float) -> Iterator[tuple[str, Point]]:
    for measure, label in CURVES.items():
        found = line.estimate(measure)
        if found and found.low is not None and found.high is not None:
            yield label, Point(ratio, found.mean, found.low, found.high)
