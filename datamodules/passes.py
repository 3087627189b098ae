"""Rows that come in reshuffled passes, one after another without end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Return random numbers of their own for each seed, purpose and number, all three from 0."""
    return np.random.default_rng([seed, purpose, number])


@dataclass(frozen=True)
class EndlessPasses:
    """Batches cut from shuffled passes over all rows; a batch may begin in one pass and end in the next.

    So at any point no row has come more than once more often than another. Where a batch goes on with the next pass,
    rows that it holds already come behind it in that pass: no row comes twice in a batch of up to `rows` rows.

    Attributes:
        rows: number of rows.
        width: rows of a batch.
        seed: shuffles the passes.
        purpose: number that keeps these passes apart from others of the seed.

    Example:
        >>> EndlessPasses(rows=3, width=2, seed=0, purpose=0).batches(first=0, count=3).shape
        (3, 2)
    """

    rows: int
    width: int
    seed: int
    purpose: int

    def batches(self, first: int, count: int) -> Rows:
        """Return batches `first` to `first + count - 1`, `[count, width]`."""
        start, length = first * self.width, count * self.width
        begin, skipped = divmod(start, self.rows)
        passes = list(self._passes(begin, -(-(start + length) // self.rows)))
        return np.concatenate(passes)[skipped : skipped + length].reshape(count, self.width)

    def _passes(self, begin: int, end: int) -> Iterator[Rows]:
        """Yield those passes; each depends on the one before, from the last that began with a batch."""
        order = np.empty(0, dtype=np.int64)
        chain = self.width // math.gcd(self.rows, self.width)
        for number in range(begin - begin % chain, end):
            begun = number * self.rows % self.width
            order = self._shuffled(number, order[::-1][:begun])
            if number >= begin:
                yield order

    def _shuffled(self, number: int, held: Rows) -> Rows:
        """Return a pass whose rows that the batch holds already come after those that fill it up."""
        order = generator(self.seed, self.purpose, number).permutation(self.rows)
        is_held = np.zeros(self.rows, dtype=bool)
        is_held[held] = True
        late = is_held[order]
        late |= np.cumsum(~late) > self.width - len(held)
        return np.concatenate([order[~late], order[late]])
