"""The rows of a table with all that is known of them, and that as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from datamodules.errors import ConfigError
from experiments.study.paper import Paper
from experiments.study.results import Results, Scores
from experiments.study.summary import Difference, Estimate, Share, corrected, differences, estimates, recovered

CONTROL, ORACLE, GAP = "control", "oracle", "ODmAP@1"
"""Names of the rows that others are measured by, and the measure of the gap between the two."""

_ESTIMATE = ("mean", "low", "high", "seed_sd", "seeds")
_DIFFERENCE = (
    *("difference", "difference_low", "difference_high", "difference_seed_sd"),
    *("p_value", "p_holm", "common_seeds", "difference_per_cent"),
)
_SHARE = ("gap_closed", "gap_closed_low", "gap_closed_high")


@dataclass(frozen=True)
class Line:
    """One row of a table: one row of one model.

    Attributes:
        names: of the model and of the row.
        labels: of the same, to show.
        prefix: what the names of its scores start with.
        estimates: by measure; empty where no cell is there.
        differences: to the control of the same model, by measure.
        share: of the gap between control and oracle in ODmAP@1.
        paper: what the paper has, by measure.
    """

    names: tuple[str, str]
    labels: tuple[str, str]
    prefix: str = ""
    estimates: dict[str, Estimate] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    share: Share | None = None
    paper: dict[str, float] = field(default_factory=dict)

    def estimate(self, measure: str) -> Estimate | None:
        """Return a score, after re-ranking where the model does."""
        return self.estimates.get(self.prefix + measure)

    def difference(self, measure: str) -> Difference | None:
        """Return a score's difference to the control."""
        return self.differences.get(self.prefix + measure)


def lines(results: Results, rows: Mapping[tuple[str, str], tuple[str, str]], paper: Paper) -> list[Line]:
    """Return the rows of a table.

    Args:
        results: of the cells of these rows, of the controls and of the oracles.
        rows: labels of model and row by their names.
        paper: its figures.
    """
    return _corrected([_line(results, names, labels, paper) for names, labels in rows.items()])


def write_csv(path: Path, found: Sequence[Line], paper: Paper, common: Mapping[str, object]) -> None:
    """Write one line per row and measure.

    Args:
        path: file.
        found: rows of the table.
        paper: where its figures are from.
        common: columns that are the same for all lines.
    """
    records = [{**record, **common} for line in found for record in _records(line, paper)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0] if records else common))
        writer.writeheader()
        writer.writerows(records)


def check_kept(path: Path, planned: Sequence[tuple[str, str]]) -> None:
    """Refuse to write a table over one that says more.

    Args:
        path: csv that is there, or not.
        planned: names of model and row of the new one, once for each seed.

    Raises:
        ConfigError: the table that is there has a row, or seeds of one, that the new one would not have, or is none.
    """
    if not path.is_file():
        return
    try:
        with path.open(newline="", encoding="utf-8") as file:
            held = {(one["model"], one["row"]): int(one["seeds"] or 0) for one in csv.DictReader(file)}
    except (KeyError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path} is no table of a study: name another folder with `--to`, or delete it.") from error
    for (model, row), seeds in held.items():
        if seeds > planned.count((model, row)):
            raise ConfigError(
                f"{path} has {seeds} seed(s) of {model}/{row}, of which this command would leave "
                f"{planned.count((model, row))}: ask for as many seeds, models and rows as it has (what is finished is "
                "not run again), name another folder with `--to`, or delete it."
            )


def _line(results: Results, names: tuple[str, str], labels: tuple[str, str], paper: Paper) -> Line:
    scores, figures = results.scores.get(names), paper.figures.get(names, {})
    if scores is None:
        return Line(names, labels, paper=figures)
    model, row = names
    control, oracle = (results.scores.get((model, other)) for other in (CONTROL, ORACLE))
    compared = differences(scores, control) if control and row != CONTROL else {}
    share = _share(scores, control, oracle) if row != CONTROL else None
    return Line(names, labels, scores.prefix, estimates(scores), compared, share, figures)


def _share(scores: Scores, control: Scores | None, oracle: Scores | None) -> Share | None:
    if control is None or oracle is None:
        return None
    return recovered(scores, control, oracle, scores.prefix + GAP)


def _corrected(found: Sequence[Line]) -> list[Line]:
    """Correct p-values for the number of rows, of each what the table shows of it."""
    changed = corrected([{_family(line, name): gain for name, gain in line.differences.items()} for line in found])
    return [
        replace(line, differences={name: gains[_family(line, name)] for name in line.differences})
        for line, gains in zip(found, changed, strict=True)
    ]


def _family(line: Line, measure: str) -> str:
    """Return what the p-values of a column are corrected together by; those before re-ranking are in no column."""
    return measure.removeprefix(line.prefix) if measure.startswith(line.prefix) else f"before re-ranking: {measure}"


def _records(line: Line, paper: Paper) -> Iterator[dict[str, object]]:
    names = dict(zip(("model", "row", "model_label", "row_label"), (*line.names, *line.labels), strict=True))
    for measure in line.estimates or line.paper:
        scored = measure.startswith(line.prefix)  # no score of a model that re-ranks before it does
        name = measure.removeprefix(line.prefix) if scored else ""
        figure = line.paper.get(name)
        yield {
            **names,
            "measure": measure,
            **_columns(_ESTIMATE, line.estimates.get(measure)),
            **_columns(_DIFFERENCE, line.differences.get(measure)),
            **_columns(_SHARE, line.share if name == GAP else None),
            "paper": _plain(figure),
            "paper_source": "" if figure is None else f"{paper.source}, {paper.dataset}",
        }


def _columns(names: Sequence[str], values: Sequence[object] | None) -> dict[str, str]:
    return {name: _plain(value) for name, value in zip(names, values or [None] * len(names), strict=True)}


def _plain(value: object) -> str:
    """Return what a field of a CSV says."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
