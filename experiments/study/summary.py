"""What is said of a row of a table: means with intervals, differences to a control, the share of a gap it closes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.study.results import Block, Scores
from metrics.statistics import bootstrap, holm, paired_test, resampled_means


class Estimate(NamedTuple):
    """The mean of a measure over queries and seeds, in per cent.

    Attributes:
        mean: over queries and seeds.
        low: lower end of the 95 % bootstrap interval over queries, whose values are means over the seeds; None where a
            query has no value of its own, or all queries are of one group.
        high: upper end.
        seed_sd: standard deviation over the seeds of the mean over queries; None with one seed.
        seeds: how many.
    """

    mean: float
    low: float | None
    high: float | None
    seed_sd: float | None
    seeds: int


class Difference(NamedTuple):
    """How far a row is from its control, in points, on the seeds that both have.

    Attributes:
        difference: mean over queries and seeds, row minus control.
        low: lower end of the 95 % bootstrap interval over queries, whose values are means over the seeds.
        high: upper end.
        seed_sd: standard deviation over the seeds of the difference; None with one seed.
        p_value: two-sided, by sign flips of groups of queries.
        p_holm: the same, corrected for the number of rows that are compared; see `corrected`.
        seeds: those that both have.
        relative: the difference in per cent of the control's mean; None where that is 0.
    """

    difference: float
    low: float
    high: float
    seed_sd: float | None
    p_value: float
    p_holm: float
    seeds: tuple[int, ...]
    relative: float | None

    @property
    def verdict(self) -> str:
        """`helps` where the interval is above 0, `hurts` below it; `not told apart` else, or at p_holm 0.05 and up."""
        if self.p_holm >= 0.05 or self.low <= 0 <= self.high:
            return "not told apart"
        return "helps" if self.low > 0 else "hurts"


class Share(NamedTuple):
    """Share of a gap, in per cent, with the ends of its 95 % bootstrap interval over queries."""

    share: float
    low: float
    high: float


def estimates(scores: Scores) -> dict[str, Estimate]:
    """Return every measure of a row.

    The interval is that of queries alone: groups of queries are drawn, and each brings its values of all seeds.
    """
    found = {}
    for block in scores.blocks:
        spread = _spread(block.values.mean(axis=1))
        for measure, (mean, low, high), sd in zip(block.measures, _intervals(block), spread, strict=True):
            found[measure] = Estimate(mean, low, high, sd, len(scores.seeds))
    for measure, values in scores.single.items():
        sd = _spread(values[:, None])[0]
        found[measure] = Estimate(float(values.mean()), None, None, sd, len(scores.seeds))
    return found


def differences(row: Scores, control: Scores) -> dict[str, Difference]:
    """Compare a row with its control query by query, on the seeds that both have.

    Returns:
        By measure, for those that both have; none without a common seed, or of queries of one group, which cannot be
        drawn. `p_holm` is `p_value`.
    """
    seeds = common_seeds(row, control)
    if not seeds:
        return {}
    return {
        measure: difference
        for one, other in _pairs(control.at(seeds), row.at(seeds))
        if _has_groups(one)
        for measure, difference in _compared(one, other, seeds)
    }


def corrected(rows: Sequence[dict[str, Difference]]) -> list[dict[str, Difference]]:
    """Return the differences of the rows of a table, their p-values corrected by Holm's procedure per measure.

    A row whose every query is as in the control counts, too.
    """
    found = [dict(row) for row in rows]
    for measure in {measure for row in rows for measure in row}:
        having = [row for row in found if measure in row]
        for row, p_value in zip(having, holm([row[measure].p_value for row in having]).tolist(), strict=True):
            row[measure] = row[measure]._replace(p_holm=p_value)
    return found


def recovered(row: Scores, control: Scores, oracle: Scores, measure: str = "ODmAP@1") -> Share | None:
    """Return which share of the gap from the control to the oracle a row closes: (row - control) / (oracle - control).

    Numerator and denominator share the draws of query groups. All three are compared on the seeds that they share.

    Returns:
        None where there is no common seed, one group of queries alone, or no gap that is above 0 in every draw.
    """
    seeds = common_seeds(row, control, oracle)
    block = next(block for block in control.blocks if measure in block.measures)
    if not seeds or not _has_groups(block):
        return None
    mine, start, end = (scores.at(seeds)[measure].mean(axis=0) for scores in (row, control, oracle))
    gains = np.stack([mine - start, end - start], axis=1)
    draws = resampled_means(gains, block.groups)
    if not (draws[:, 1] > 0).all():
        return None
    gained, gap = gains.mean(axis=0)
    low, high = np.quantile(100 * draws[:, 0] / draws[:, 1], [0.025, 0.975])
    return Share(float(100 * gained / gap), float(low), float(high))


def common_seeds(*rows: Scores) -> tuple[int, ...]:
    """Return the seeds that all rows have, ascending."""
    return tuple(sorted(set.intersection(*(set(row.seeds) for row in rows))))


def _pairs(control: Scores, row: Scores) -> list[tuple[Block, Block]]:
    """Return the blocks of the same measures."""
    blocks = {block.measures: block for block in control.blocks}
    return [(blocks[block.measures], block) for block in row.blocks if block.measures in blocks]


def _compared(control: Block, row: Block, seeds: tuple[int, ...]) -> list[tuple[str, Difference]]:
    one, other = control.values.mean(axis=0), row.values.mean(axis=0)
    tested = np.stack(paired_test(one, other, control.groups), axis=1).tolist()
    spread = _spread((row.values - control.values).mean(axis=1))
    base = one.mean(axis=0).tolist()
    return [
        (measure, Difference(gain, low, high, sd, p, p, seeds, 100 * gain / mean if mean else None))
        for measure, (gain, low, high, p), sd, mean in zip(row.measures, tested, spread, base, strict=True)
    ]


def _intervals(block: Block) -> list[tuple[float, float | None, float | None]]:
    """Return the mean of every measure, and the ends of its interval where groups can be drawn."""
    values = block.values.mean(axis=0)
    if not _has_groups(block):
        return [(mean, None, None) for mean in values.mean(axis=0).tolist()]
    return [(mean, low, high) for mean, low, high in np.stack(bootstrap(values, block.groups), axis=1).tolist()]


def _has_groups(block: Block) -> bool:
    """Return whether there is something to draw from."""
    return len(np.unique(block.groups)) > 1


def _spread(means: NDArray[np.float64]) -> list[float | None]:
    """Return the standard deviation over seeds of means `[S, M]`."""
    if len(means) < 2:
        return [None] * means.shape[1]
    spread: list[float | None] = means.std(axis=0, ddof=1).tolist()
    return spread
