"""Columns of tables of studies: what a cell of each says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from experiments.study.layout import change, interval, number, p_value, share, signed
from experiments.study.lines import GAP, Line
from experiments.study.paper import Paper

Column: TypeAlias = Callable[[Line], str]

DISTINCT = "hubs/distinct@1"


def scores(*measures: str) -> dict[str, Column]:
    """Return a column per measure: its mean and interval."""
    return {measure: partial(_score, measure) for measure in measures}


def spread(measure: str) -> dict[str, Column]:
    """Return the column of a measure's standard deviation over seeds."""

    def cell(line: Line) -> str:
        found = line.estimate(measure)
        return number(found.seed_sd if found else None)

    return {"± over seeds": cell}


def against() -> dict[str, Column]:
    """Return the columns of the difference in ODmAP@1 to the control, and its p-value."""
    return {
        f"{GAP}, change": lambda line: change(line.difference(GAP)),
        "p": lambda line: p_value(line.difference(GAP)),
    }


def gap_closed() -> dict[str, Column]:
    """Return the column of the share of the gap to the oracle."""
    return {"gap closed": lambda line: share(line.share)}


def recall() -> dict[str, Column]:
    """Return the columns of the sum of recalls, and of its change against the control in per cent."""

    def cell(line: Line) -> str:
        found = line.difference("rsum")
        return signed(found.relative if found else None)

    return {"rsum": lambda line: _mean(line, "rsum"), "rsum, change in %": cell}


def hubs() -> dict[str, Column]:
    """Return the column of distinct captions at the first rank, per query."""
    return {"distinct@1": lambda line: _mean(line, DISTINCT)}


def printed(paper: Paper, *measures: str) -> dict[str, Column]:
    """Return the column of what the paper has for some measures."""

    def cell(line: Line) -> str:
        found = [line.paper.get(measure) for measure in measures]
        return " / ".join(map(number, found)) if any(one is not None for one in found) else number(None)

    return {f"paper ({paper.dataset})": cell}


def _score(measure: str, line: Line) -> str:
    return interval(line.estimate(measure))


def _mean(line: Line, measure: str) -> str:
    found = line.estimate(measure)
    return number(found.mean if found else None)
