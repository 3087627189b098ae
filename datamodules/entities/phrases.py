"""The annotated phrases of a data set as columns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.cache import replacing
from datamodules.phrases.protocol import Phrase

_SETS = [frozenset(bit for bit in range(8) if mask >> bit & 1) for mask in range(256)]


@dataclass(frozen=True, eq=False)
class AnnotatedPhrases:
    """P phrases of M captions, grouped by caption; about 10 bytes each.

    Attributes:
        offsets: `[M + 1]` int64: the phrases of caption row m are `offsets[m]` to `offsets[m + 1]`.
        starts: `[P]` int32, first character.
        ends: `[P]` int32, character behind the last.
        classes: `[P]` uint8, bit c is set where the phrase names class c, of at most 8.

    Example:
        >>> offsets, starts, ends = map(np.array, ([0, 2, 2], [0, 9], [5, 14]))
        >>> found = AnnotatedPhrases(offsets, starts, ends, classes=np.array([1, 6], np.uint8))
        >>> found.of(np.array([1, 0]))
        [[], [Phrase(start=0, end=5, classes=frozenset({0})), Phrase(start=9, end=14, classes=frozenset({1, 2}))]]
        >>> found.mentions(3).astype(int).tolist()
        [[1, 1, 1], [0, 0, 0]]
    """

    offsets: NDArray[np.int64]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    classes: NDArray[np.uint8]

    def of(self, rows: NDArray[np.int64]) -> list[list[Phrase]]:
        """Return the phrases of these caption rows, in order; one of none of the classes has empty `classes`."""
        return [
            [
                Phrase(int(self.starts[p]), int(self.ends[p]), _SETS[self.classes[p]])
                for p in range(self.offsets[row], self.offsets[row + 1])
            ]
            for row in rows
        ]

    def mentions(self, classes: int) -> NDArray[np.bool_]:
        """Return `[M, classes]` bool, True where a phrase of the caption names the class."""
        named = np.zeros(len(self.offsets) - 1, np.uint8)
        captions = np.repeat(np.arange(len(named)), np.diff(self.offsets))
        np.bitwise_or.at(named, captions, self.classes)
        return np.unpackbits(named[:, None], axis=1, count=classes, bitorder="little").view(np.bool_)

    def save(self, path: Path) -> None:
        """Write a file that appears whole or not at all.

        Raises:
            ConfigError: its folder cannot be written.
        """
        with replacing(path) as file:
            np.savez(file, **{column.name: getattr(self, column.name) for column in fields(self)})

    @staticmethod
    def load(path: Path) -> AnnotatedPhrases:
        """Return what `save` wrote."""
        with np.load(path) as columns:
            return AnnotatedPhrases(**columns)
