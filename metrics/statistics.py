"""How sure a mean over queries is: bootstrap intervals, a paired test between two models, Holm's correction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.arrays import Values, as_array

FloatArray: TypeAlias = NDArray[np.float64]

_CELLS = 2**20  # of a batch of resamples, resamples x groups: about 25 MB at work


class Interval(NamedTuple):
    """A mean over queries and its confidence interval, in the unit of the values.

    Floats for values `[Q]`, float64 arrays `[M]` for values `[Q, M]`.
    """

    mean: float | FloatArray
    low: float | FloatArray
    high: float | FloatArray


class PairedTest(NamedTuple):
    """The mean of second minus first, its confidence interval, and the two-sided p-value of no difference.

    Floats for values `[Q]`, float64 arrays `[M]` for values `[Q, M]`.
    """

    difference: float | FloatArray
    low: float | FloatArray
    high: float | FloatArray
    p_value: float | FloatArray


def bootstrap(
    values: Values, groups: Values | None = None, *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Return the mean over queries and its percentile bootstrap interval.

    Whole groups are drawn with replacement, as many as there are, and the mean of a draw is the mean over its queries.
    Without groups every query is one. All measures share the draws, so 20 cost about twice one. The percentile
    interval is preferred to BCa because it is defined where BCa is not (a measure that is equal for all queries) and
    needs no jackknife; the two agree at the hundreds of queries that a benchmark has. Below about 30 groups either is
    too narrow.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife"; Davison and Hinkley 1997, "Bootstrap
    methods and their application", section 3.8 for groups.

    Args:
        values: `[Q]` or `[Q, M]` numbers, one row per query, one column per measure.
        groups: `[Q]` integers or strings: queries that are not independent share one, as the five captions of an
            image, or several images made from one photo.
        resamples: Number of draws.
        confidence: Share of intervals that shall cover the true mean, between 0 and 1.
        seed: Same seed, same interval.

    Returns:
        `mean`, `low`, `high`: floats, or `[M]` float64.

    Raises:
        ValueError: Shapes do not fit, a value is not finite, there are fewer than 2 queries or groups, or an option is
            out of range.

    Example:
        >>> bootstrap([0, 100, 100, 100, 0, 100, 100, 100])
        Interval(mean=75.0, low=37.5, high=100.0)
        >>> bootstrap([0, 100, 100, 100, 0, 100, 100, 100], groups=[1, 2, 3, 4, 1, 2, 3, 4])
        Interval(mean=75.0, low=25.0, high=100.0)
    """
    given = as_array(values)
    rows = _rows("values", given)
    _check_options(resamples, confidence, seed)
    sums, sizes = _by_group(rows, groups)
    low, high = _percentiles(sums, sizes, resamples, confidence, seed)
    return Interval(*(_like(given, found) for found in (rows.mean(axis=0), low, high)))


def resampled_means(
    values: Values, groups: Values | None = None, *, resamples: int = 10_000, seed: int = 0
) -> FloatArray:
    """Return the mean over queries in every draw that `bootstrap` takes its interval from.

    All measures share the draws, so that what is computed from several means, such as a ratio, has an interval too.

    Args:
        values: `[Q]` or `[Q, M]` numbers, one row per query, one column per measure.
        groups: `[Q]` integers or strings: queries that are not independent share one.
        resamples: Number of draws, R.
        seed: Same seed, same draws.

    Returns:
        `[R, M]` float64; one column for values `[Q]`.

    Raises:
        ValueError: As `bootstrap`.

    Example:
        >>> resampled_means([[1, 2], [3, 6]], resamples=3).tolist()
        [[3.0, 6.0], [2.0, 4.0], [1.0, 2.0]]
    """
    rows = _rows("values", as_array(values))
    _check_options(resamples, 0.5, seed)
    return _means_of_draws(*_by_group(rows, groups), resamples, seed)


def paired_test(
    first: Values,
    second: Values,
    groups: Values | None = None,
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedTest:
    """Compare two models query by query: the difference of their means, its interval and a p-value.

    The interval is that of `bootstrap` on second minus first. The p-value is that of a sign-flip permutation test: if
    the models were alike, the difference of every group could as well have had the other sign. It is the share of
    sign patterns whose mean is at least as far from 0 as the one found: of all patterns where there are no more than
    `resamples`, else of as many random ones together with the one found, so it is never 0.

    Source: Phipson and Smyth 2010, "Permutation p-values should never be zero", for the counting of the one found;
    Smucker, Allan and Carterette 2007, "A comparison of statistical significance tests for information retrieval
    evaluation", for the test.

    Args:
        first: `[Q]` or `[Q, M]` numbers, one row per query, one column per measure.
        second: The same queries in the same order, of the other model.
        groups: `[Q]` integers or strings: queries that are not independent share one; they change signs together.
        resamples: Number of draws, and of sign patterns.
        confidence: Share of intervals that shall cover the true difference, between 0 and 1.
        seed: Same seed, same result.

    Returns:
        `difference`, `low`, `high`, `p_value`: floats, or `[M]` float64. P-values are per measure, not corrected for
        their number; see `holm`.

    Raises:
        ValueError: Shapes do not fit, a value is not finite, there are fewer than 2 queries or groups, or an option is
            out of range.

    Example:
        >>> paired_test([40, 0, 60, 20], [50, 10, 80, 30])
        PairedTest(difference=12.5, low=10.0, high=17.5, p_value=0.125)
    """
    given, other = as_array(first), as_array(second)
    if given.shape != other.shape:
        raise ValueError(f"second must have the shape of first, {given.shape}, got {other.shape}.")
    rows = _rows("second", other) - _rows("first", given)
    _check_options(resamples, confidence, seed)
    sums, sizes = _by_group(rows, groups)
    low, high = _percentiles(sums, sizes, resamples, confidence, seed)
    p_value = _sign_flip_p(sums, resamples, seed)
    return PairedTest(*(_like(given, found) for found in (rows.mean(axis=0), low, high, p_value)))


def holm(p_values: ArrayLike) -> FloatArray:
    """Correct p-values for their number, so that the chance of any false finding among them keeps its level.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Args:
        p_values: `[M]` numbers between 0 and 1.

    Returns:
        `[M]` float64, in the order given.

    Raises:
        ValueError: They are no vector of numbers between 0 and 1.

    Example:
        >>> holm([0.01, 0.5, 0.02]).tolist()
        [0.03, 0.5, 0.04]
    """
    given = np.asarray(p_values, dtype=np.float64)
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"p_values must be a vector of numbers between 0 and 1, got {p_values!r}.")
    order = np.argsort(given, kind="stable")
    corrected = np.empty_like(given)
    corrected[order] = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)).clip(max=1)
    return corrected


def _rows(name: str, rows: NDArray[Any]) -> FloatArray:
    """Return `[Q, M]` float64, or refuse what cannot be averaged."""
    if rows.ndim not in (1, 2) or rows.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers of shape [Q] or [Q, M], got {rows.dtype} of shape {rows.shape}.")
    if len(rows) < 2:
        raise ValueError(f"{name} must hold 2 queries or more, got {len(rows)}.")
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise ValueError(f"{int(bad.sum())} of {len(rows)} rows of {name} are not finite, the first is {bad.argmax()}.")
    return rows


def _check_options(resamples: int, confidence: float, seed: int) -> None:
    if not isinstance(resamples, int) or resamples < 1:
        raise ValueError(f"resamples must be a positive integer, got {resamples!r}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}.")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer from 0, got {seed!r}.")


def _by_group(rows: FloatArray, groups: Values | None) -> tuple[FloatArray, FloatArray]:
    """Return the sums `[M, G]` and the sizes `[G]` of the groups, ascending by group."""
    if groups is None:
        return np.ascontiguousarray(rows.T), np.ones(len(rows))
    names = as_array(groups)
    if names.shape != (len(rows),):
        raise ValueError(f"groups must have shape [{len(rows)}], got {names.shape}.")
    distinct, member = np.unique(names, return_inverse=True)
    if len(distinct) < 2:
        raise ValueError(f"groups must hold 2 distinct values or more, all of them are {names[0]!r}.")
    sums = [np.bincount(member, weights=column) for column in rows.T]
    return np.stack(sums), np.bincount(member).astype(np.float64)


def _percentiles(sums: FloatArray, sizes: FloatArray, resamples: int, confidence: float, seed: int) -> FloatArray:
    """Return the ends `[2, M]` of the interval."""
    tail = (1 - confidence) / 2
    return np.quantile(_means_of_draws(sums, sizes, resamples, seed), [tail, 1 - tail], axis=0)


def _means_of_draws(sums: FloatArray, sizes: FloatArray, resamples: int, seed: int) -> FloatArray:
    generator, means = np.random.default_rng(seed), []
    for count in _batches(resamples, len(sizes)):
        drawn = generator.integers(len(sizes), size=(count, len(sizes)))
        drawn += np.arange(count)[:, None] * len(sizes)
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)
        means.append(_totals(times, sums) / _totals(times, sizes[None]))
    return np.concatenate(means)


def _sign_flip_p(sums: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Return `[M]`, the share of sign patterns that bring the sum at least as far from 0 as it is."""
    # One sum, added in another order, differs by rounding.
    least = np.abs(sums.sum(axis=1)) - 1e-12 * np.abs(sums).sum(axis=1)
    groups = sums.shape[1]
    every = 1 << groups
    exact = every <= resamples
    patterns = _all_patterns(groups) if exact else _random_patterns(groups, resamples, seed)
    as_far = np.zeros(len(least))
    for signs in patterns:
        as_far += (np.abs(_totals(2.0 * signs - 1, sums)) >= least).sum(axis=0)
    return as_far / every if exact else (1 + as_far) / (1 + resamples)


def _totals(weights: NDArray[Any], sums: FloatArray) -> FloatArray:
    """Return the weighted totals `[B, M]` over the groups, from weights `[B, G]` and sums `[M, G]`."""
    # Not `weights @ sums.T`: a BLAS adds in an order that depends on its threads, so one seed gave two results.
    totals: FloatArray = np.einsum("bg,mg->bm", weights, sums)
    return totals


def _all_patterns(groups: int) -> Iterator[NDArray[np.int64]]:
    start = 0
    for count in _batches(1 << groups, groups):
        yield np.arange(start, start + count)[:, None] >> np.arange(groups) & 1
        start += count


def _random_patterns(groups: int, resamples: int, seed: int) -> Iterator[NDArray[np.int32]]:
    generator = np.random.default_rng(seed)
    for count in _batches(resamples, groups):
        yield generator.integers(2, size=(count, groups), dtype=np.int32)


def _batches(resamples: int, groups: int) -> Iterator[int]:
    """Cut the resamples so that a batch of them fits into memory."""
    size = max(1, _CELLS // groups)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _like(values: NDArray[Any], found: FloatArray) -> float | FloatArray:
    return float(found[0]) if values.ndim == 1 else found
