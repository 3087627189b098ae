"""Which words a model's errors align with: spurious attributes, found through language instead of labels.

A spurious attribute moves predictions where it has no business to: landbirds that are taken for waterbirds stand
before water, and waterbirds that are not recognised do not. So, among images of one true class, those that the model
calls class c are more similar to the word than the others. `word_pull` measures that and joins all true classes, each
compared within itself alone: what a word says about the true class cannot count.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from metrics.arrays import Values, as_array

FloatArray: TypeAlias = NDArray[np.float64]

_CELLS = 2**22  # of a batch of permutations, permutations x images: about 70 MB at work


class WordPull(NamedTuple):
    """How words pull predictions toward a class; arrays `[M]`, one place per word.

    Attributes:
        auc: float64, the chance that, of two images of the same true class of which the model calls one by the class
            and the other not, the first is more similar to the word; 0.5 where the word makes no difference.
        low: float64, lower end of its confidence interval.
        high: float64, upper end.
        p_value: float64, two-sided, of the word making no difference; not corrected for the number of words, see
            `metrics.statistics.holm`.
        errors: int, images whose true class and prediction differ as to the class.
    """

    auc: FloatArray
    low: FloatArray
    high: FloatArray
    p_value: FloatArray
    errors: int


class _Stratum(NamedTuple):
    """Images of one true class: m that the model calls by the class in question, n that it does not."""

    called: NDArray[np.bool_]
    similarities: FloatArray

    @property
    def sizes(self) -> tuple[int, int]:
        called = int(self.called.sum())
        return called, len(self.called) - called

    @property
    def weight(self) -> float:
        """One over the variance of its AUC where the word makes no difference, but for a factor of 12."""
        called, others = self.sizes
        return called * others / (called + others + 1)


def word_pull(
    similarities: Values,
    labels: Values,
    predictions: Values,
    target: int,
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> WordPull:
    """Return how each word pulls predictions toward a class, within images of the same true class.

    Each true class has an AUC of its own, and their mean weighs each by m * n / (m + n + 1), of m images that are
    called by the class and n that are not: the inverse of its variance under chance. With two classes that joins the
    errors of both: "water" pulls landbirds toward waterbird, and unrecognised waterbirds lack it. With more, every
    class has its own ranking of words.

    The p-value is that of a permutation test, which shuffles the predictions within each true class; the interval is
    DeLong's. A word that separates the errors without exception has an interval of no width: believe the p-value then.

    Similarities are taken as they are. Centring each image over the words first did not help where the truth is known:
    on Scenes it found the planted partner of a class no more often.

    A word that describes the class itself ("duck" for waterbird) pulls, too, and rightly so. One that is part of the
    name of the class ("water") may pull for the sake of its spelling alone. Which of the words at the top are spurious
    is the reader's judgement.

    Source: this project's own definition, after the question of METHODS 7.1; van Elteren 1960 for the weights, DeLong,
    DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated receiver operating characteristic
    curves", for the variance, Phipson and Smyth 2010 for the counting of the one found.

    Args:
        similarities: `[N, M]` finite numbers, cosines of images and words. Only their order within a true class counts.
        labels: `[N]` integers, the true class.
        predictions: `[N]` integers, the class that the model gives.
        target: The class in question.
        resamples: Number of permutations.
        confidence: Share of intervals that shall cover the true AUC, between 0 and 1.
        seed: Same seed, same p-values.

    Returns:
        One place per word. Where no true class has images of both kinds, as of a model without errors, `auc`, `low` and
        `high` are NaN and `p_value` is 1.

    Raises:
        ValueError: Shapes do not fit, a similarity is not finite, or an option is out of range.

    Example:
        Water behind images 1 and 2: a landbird that is taken for a waterbird, a waterbird that is recognised.

        >>> pull = word_pull([[0.1], [0.4], [0.5], [0.2]], labels=[0, 0, 1, 1], predictions=[0, 1, 1, 0], target=1)
        >>> pull.auc, pull.errors
        (array([1.]), 2)
    """
    given, true, called = _checked(similarities, labels, predictions, target, resamples, confidence)
    strata = [_Stratum(called[rows], given[rows]) for rows in (true == label for label in np.unique(true))]
    strata = [stratum for stratum in strata if stratum.weight]
    errors = int((called != (true == target)).sum())
    if not strata:
        nothing = np.full(given.shape[1], np.nan)
        return WordPull(nothing, nothing, nothing, np.ones(given.shape[1]), errors)
    auc, error = _joined(strata)
    margin = NormalDist().inv_cdf((1 + confidence) / 2) * error
    p_value = _permutation_p(strata, resamples, seed)
    return WordPull(auc, (auc - margin).clip(0, 1), (auc + margin).clip(0, 1), p_value, errors)


def _checked(
    similarities: Values, labels: Values, predictions: Values, target: int, resamples: int, confidence: float
) -> tuple[FloatArray, NDArray[Any], NDArray[np.bool_]]:
    given, true, found = as_array(similarities), as_array(labels), as_array(predictions)
    if given.ndim != 2 or given.dtype.kind not in "iuf" or not np.isfinite(given).all():
        raise ValueError(f"similarities must be finite numbers of shape [N, M], got {given.dtype} {given.shape}.")
    for name, values in (("labels", true), ("predictions", found)):
        if values.shape != (len(given),) or values.dtype.kind not in "iub":
            raise ValueError(f"{name} must be integers of shape [{len(given)}], got {values.dtype} {values.shape}.")
    if not isinstance(resamples, int) or resamples < 1:
        raise ValueError(f"resamples must be a positive integer, got {resamples!r}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}.")
    return given.astype(np.float64), true, found == target


def _joined(strata: Sequence[_Stratum]) -> tuple[FloatArray, FloatArray]:
    """Return the weighted mean of the AUCs and its standard error, `[M]` each."""
    weights = np.array([stratum.weight for stratum in strata])
    weights /= weights.sum()
    aucs, variances = zip(*map(_auc, strata), strict=True)
    return weights @ np.stack(aucs), np.sqrt(weights**2 @ np.stack(variances))


def _auc(stratum: _Stratum) -> tuple[FloatArray, FloatArray]:
    """Return the AUC and DeLong's variance of it, `[M]` each, from the share of the other kind below each image."""
    called, (m, n) = stratum.called, stratum.sizes
    ranks, of_called, of_others = (_midranks(stratum.similarities[rows]) for rows in (slice(None), called, ~called))
    below = (ranks[called] - of_called) / n, (ranks[~called] - of_others) / m
    # A single image shows no variance; that of a share is 1/4 at most.
    variances = [shares.var(axis=0, ddof=1) if len(shares) > 1 else np.full(shares.shape[1], 0.25) for shares in below]
    return below[0].mean(axis=0), variances[0] / m + variances[1] / n


def _midranks(columns: FloatArray) -> FloatArray:
    """Return the rank of every number in its column from 1; equal ones share the middle of their ranks."""
    ranks = np.empty_like(columns)
    for number, column in enumerate(columns.T):
        _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranks[:, number] = (counts.cumsum() - (counts - 1) / 2)[place]
    return ranks


def _permutation_p(strata: Sequence[_Stratum], resamples: int, seed: int) -> FloatArray:
    """Return `[M]`, the share of shuffled predictions whose AUC is at least as far from a half as the one found."""
    generator = np.random.default_rng(seed)
    # Twice the centred ranks are whole numbers, so that their sums are exact in whatever order they are added.
    scores = [2 * _midranks(stratum.similarities) - len(stratum.called) - 1 for stratum in strata]
    factors = [stratum.weight / np.prod(stratum.sizes) for stratum in strata]

    def far(called: Sequence[NDArray[np.bool_]]) -> FloatArray:
        sums = (chosen.astype(np.float64) @ score for chosen, score in zip(called, scores, strict=True))
        return np.abs(sum(factor * total for factor, total in zip(factors, sums, strict=True)))

    found = far([stratum.called[None] for stratum in strata])
    as_far = np.zeros(found.shape[1])
    size = max(1, _CELLS // sum(len(stratum.called) for stratum in strata))
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        drawn = [generator.permuted(np.tile(stratum.called, (count, 1)), axis=1) for stratum in strata]
        as_far += (far(drawn) >= found * (1 - 1e-12)).sum(axis=0)
    return (1 + as_far) / (1 + resamples)
