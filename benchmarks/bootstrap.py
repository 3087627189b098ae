"""Bootstrap intervals and the paired test of `metrics.statistics` against scipy: same values first, then seconds.

`python benchmarks/bootstrap.py` takes 5,000 queries and 10,000 resamples. scipy gets the same data and a batch of the
same size. Its intervals have to agree with ours within the Monte Carlo error of both; then the two sides run in turn,
three times, and the medians are printed. `--scale 0.1` is a quick look.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import scipy
import scipy.stats
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from metrics.statistics import bootstrap, paired_test

QUERIES, RESAMPLES, ROUNDS = 5_000, 10_000, 3

Floats: TypeAlias = NDArray[np.float64]
Side: TypeAlias = Callable[[], Floats]


def draw(queries: int, measures: int, seed: int) -> Floats:
    """Return per cents `[Q, M]` as ODmAP has them: many 0, the others anywhere up to 100."""
    generator = np.random.default_rng(seed)
    return np.where(generator.random((queries, measures)) < 0.4, generator.uniform(0, 100, (queries, measures)), 0.0)


def intervals(queries: int, resamples: int, measures: int) -> tuple[Side, Side, Floats]:
    """Return both sides of `[2, M]` interval ends, and how far apart they may be."""
    values = draw(queries, measures, seed=0)
    columns = np.ascontiguousarray(values.T)

    def ours() -> Floats:
        return np.stack(bootstrap(values, resamples=resamples)[1:])

    def theirs() -> Floats:
        found = scipy.stats.bootstrap(
            (columns,), np.mean, axis=-1, n_resamples=resamples, batch=_batch(queries), method="percentile", rng=1
        )
        return np.stack(found.confidence_interval)

    return ours, theirs, _quantile_error(resamples) * values.std(axis=0) / np.sqrt(queries)


def p_values(queries: int, resamples: int) -> tuple[Side, Side, Floats]:
    """Return both sides of a two-sided p-value, and how far apart they may be."""
    first = draw(queries, 1, seed=0)[:, 0]
    second = first + np.random.default_rng(1).normal(0.3, 20, queries)

    def ours() -> Floats:
        return np.array([paired_test(first, second, resamples=resamples).p_value])

    def theirs() -> Floats:
        found = scipy.stats.permutation_test(
            (second - first,),
            lambda differences, axis: differences.mean(axis=axis),
            permutation_type="samples",
            n_resamples=resamples,
            batch=_batch(queries),
            rng=1,
        )
        return np.array([found.pvalue])

    p_value = ours()[0]
    # scipy doubles the smaller tail, whose share of p / 2 has twice the error
    return ours, theirs, np.array([5 * np.sqrt(3 * p_value / resamples)])


def _batch(queries: int) -> int:
    return max(1, 2**20 // queries)


def _quantile_error(resamples: int) -> float:
    """Return five Monte Carlo errors of the difference of two 2.5 % quantiles of a normal, in standard deviations."""
    density = scipy.stats.norm.pdf(scipy.stats.norm.ppf(0.025))
    return float(5 * np.sqrt(2 * 0.025 * 0.975 / resamples) / density)


def report(name: str, ours: Side, theirs: Side, tolerance: Floats) -> None:
    """Compare the values, then print the median seconds of both sides run in turn."""
    apart = np.abs(ours() - theirs())
    assert (apart <= tolerance).all(), f"{name}: the sides are {apart} apart, more than {tolerance}"
    seconds: dict[Side, list[float]] = {ours: [], theirs: []}
    for _ in range(ROUNDS):
        for side, taken in seconds.items():
            start = time.perf_counter()
            side()
            taken.append(time.perf_counter() - start)
    mine, other = (statistics.median(taken) for taken in seconds.values())
    print(f"{name:<28}{apart.max():>12.4f}{mine:>12.2f}{other:>12.2f}{other / mine:>8.1f}")


def main() -> None:
    """Print one row per task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the queries and of the resamples")
    scale = parser.parse_args().scale
    queries, resamples = int(scale * QUERIES), int(scale * RESAMPLES)
    print(f"{queries:,} queries, {resamples:,} resamples; numpy {np.__version__}, scipy {scipy.__version__}, ", end="")
    print(f"Python {platform.python_version()}")
    print(f"{'':<28}{'apart':>12}{'ours, s':>12}{'scipy, s':>12}{'ratio':>8}")
    for measures in (1, 3, 20):
        report(f"intervals of {measures} measures", *intervals(queries, resamples, measures))
    report("interval and p of 1 measure", *p_values(queries, resamples))


if __name__ == "__main__":
    main()
