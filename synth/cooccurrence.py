"""How often classes occur together, in images and in captions, before and after the synthetic pairs are added."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import ConfigError
from datamodules.shown import shown_after_removal, shown_classes
from datamodules.synthetic_set import SyntheticSet
from synth.config import SynthesisConfig

_CHUNK = 65536
_MEASURES = ("phi", "lift", "pmi")
ORDERS = ("phi", "lift")  # PMI, the logarithm of the lift, has the same order


@dataclass(frozen=True)
class Cooccurrence:
    """Counts of classes and of pairs of classes over N images or captions.

    Where a measure would divide by a count of 0, it is not a number.

    Attributes:
        together: `[C, C]` int64, how many show both classes; on the diagonal, how many show the class.
        total: N.

    Example: of four images two show both classes, one shows the second alone, and one shows neither.

        >>> found = Cooccurrence.of(np.array([[1, 1], [1, 1], [0, 1], [0, 0]], bool))
        >>> found.together.tolist()
        [[2, 2], [2, 3]]
        >>> round(float(found.conditional[1, 0]), 3), round(float(found.lift[0, 1]), 3)
        (0.667, 1.333)
    """

    together: NDArray[np.int64]
    total: int

    @staticmethod
    def of(present: NDArray[np.bool_]) -> Cooccurrence:
        """Count `[N, C]` bool, True where an image shows, or a caption names, a class."""
        together = np.zeros((present.shape[1],) * 2, dtype=np.int64)
        for start in range(0, len(present), _CHUNK):
            some = present[start : start + _CHUNK].astype(np.float32)  # exact up to 2**24, and much faster than int
            together += (some.T @ some).astype(np.int64)
        return Cooccurrence(together, len(present))

    def __add__(self, other: Cooccurrence) -> Cooccurrence:
        return Cooccurrence(self.together + other.together, self.total + other.total)

    @property
    def counts(self) -> NDArray[np.int64]:
        """`[C]` how many show each class."""
        return self.together.diagonal()

    @cached_property
    def conditional(self) -> NDArray[np.float64]:
        """`[C, C]` P(column | row): the share of those with the class of the row that have that of the column."""
        return _divide(self.together, self.counts[:, None])

    @cached_property
    def lift(self) -> NDArray[np.float64]:
        """`[C, C]` P(a, b) / (P(a) P(b)): 1 where two classes are independent."""
        return _divide(self.together * float(self.total), np.outer(self.counts, self.counts))

    @cached_property
    def pmi(self) -> NDArray[np.float64]:
        """`[C, C]` pointwise mutual information in bits, log2 of the lift: minus infinity where never together."""
        with np.errstate(divide="ignore"):
            return np.log2(self.lift)

    @cached_property
    def phi(self) -> NDArray[np.float64]:
        """`[C, C]` Pearson correlation of the presence of two classes, from -1 to 1."""
        counts = self.counts.astype(np.float64)
        spread = counts * (self.total - counts)
        covariance = self.together * float(self.total) - np.outer(counts, counts)
        return _divide(covariance, np.sqrt(np.outer(spread, spread)))


def _divide(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, np.true_divide(numerator, denominator))


@dataclass(frozen=True)
class Change:
    """What the synthetic pairs change in a data set.

    Attributes:
        before: original images or captions.
        after: the same and the synthetic ones.
        class_names: names of the C classes.
    """

    before: Cooccurrence
    after: Cooccurrence
    class_names: tuple[str, ...]


class Pair(NamedTuple):
    """Two classes before and after: how often together, each given the other, and how strongly they correlate.

    `a_to_b` is P(b | a), the share of the images or captions with `a` that have `b` as well.
    """

    a: str
    b: str
    together_before: int
    together_after: int
    a_to_b_before: float
    a_to_b_after: float
    b_to_a_before: float
    b_to_a_after: float
    phi_before: float
    phi_after: float
    lift_before: float
    lift_after: float
    pmi_before: float
    pmi_after: float


def pairs(change: Change, min_count: int = 1, by: str = "phi") -> list[Pair]:
    """Return the pairs of classes that occur together, the most spurious first.

    Args:
        change: counts before and after.
        min_count: least number of originals with both classes; lift and PMI favour rare pairs without it.
        by: measure of the originals that orders the pairs, one of `ORDERS`; ties stay in the order of classes.

    Example:
        >>> before = Cooccurrence.of(np.array([[1, 1], [1, 1], [0, 0]], bool))
        >>> after = before + Cooccurrence.of(np.array([[1, 0]], bool))
        >>> [(p.a, p.b, p.phi_before, round(p.phi_after, 2)) for p in pairs(Change(before, after, ("dog", "ball")))]
        [('dog', 'ball', 1.0, 0.58)]
    """
    upper, right = np.nonzero(np.triu(change.before.together >= max(min_count, 1), 1))
    strength = np.nan_to_num(getattr(change.before, by)[upper, right], nan=-np.inf)
    order = np.argsort(-strength, kind="stable")
    return [_pair(change, a, b) for a, b in zip(upper[order].tolist(), right[order].tolist(), strict=True)]


def _pair(change: Change, a: int, b: int) -> Pair:
    both = (change.before, change.after)
    numbers = [float(getattr(each, name)[a, b]) for name in _MEASURES for each in both]
    given = [float(each.conditional[place]) for place in ((a, b), (b, a)) for each in both]
    together = (int(each.together[a, b]) for each in both)
    return Pair(change.class_names[a], change.class_names[b], *together, *given, *numbers)


def measure(config: SynthesisConfig) -> dict[str, Change]:
    """Count the classes that the images show and the captions name, before and after the pairs of a finished set.

    Before: all images of the splits that `pairs` comes from, with the classes of their objects, and their captions.
    After: the same, and the synthetic images, with the classes of their sources that were not removed (`kept` leaves
    out those that are too small to count, or only in crowds, as the selection was told), and their captions.

    Args:
        config: the synthesis that made the set; its data must be prepared.

    Returns:
        The changes by "images" and "captions".

    Raises:
        ConfigError: `pairs` is empty.
        UserError: the set is unfinished, broken or of another data set.
    """
    if not config.pairs:
        raise ConfigError("`pairs` is empty, and queries are not added to training; name the splits with captions.")
    data, tables = config.data, config.data.tables
    names = tables.class_names
    made = SyntheticSet.read(config.output, list(config.pairs), names, tables.image_ids, key="output")
    rows = tables.rows(*(split for sources in config.pairs.values() for split in sources))
    images = Cooccurrence.of(shown_classes(tables)[rows])
    captions = Cooccurrence.of(data.mentions()[tables.captions_of(rows)])
    named = data.named_in(made, edited=config.caption.edits_source)
    _, left = shown_after_removal(tables, made, np.arange(len(made)))
    return {
        "images": Change(images, images + Cooccurrence.of(left), names),
        "captions": Change(captions, captions + Cooccurrence.of(named), names),
    }
