"""What the captions of a data set name: one contract, kept here by reading words and elsewhere by annotation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datamodules.mentions import mentions, mentions_of

if TYPE_CHECKING:
    from datamodules.phrases.protocol import Phrase, PhraseMatcher
    from datamodules.synthetic_set import SyntheticSet
    from datamodules.tables import Tables


class MatchedCaptions:
    """Reads captions with the phrase matcher of the data set, whoever wrote them.

    A data set whose captions are annotated overrides the public methods: what its own captions name is found by their
    rows, for the same words may be annotated in two ways.

    Attributes:
        cache_dir: folder for what is found once, see `datamodules.cache.cache_root`.
    """

    if TYPE_CHECKING:
        cache_dir: Path | None

        @property
        def tables(self) -> Tables:
            """The data set, M captions."""

        @property
        def matcher(self) -> PhraseMatcher:
            """Finds the C classes that captions name."""

    @cached_property
    def _mentions(self) -> NDArray[np.bool_]:
        return mentions(self.tables, self.matcher, self.cache_dir)

    def mentions(self) -> NDArray[np.bool_]:
        """Return `[M, C]` bool, the classes that each caption names; computed once and cached by content."""
        return self._mentions

    def phrases(self, rows: NDArray[np.int64]) -> list[list[Phrase]]:
        """Return the noun phrases of captions of the data set, in order, each with the classes that it names.

        Args:
            rows: `[R]` caption rows.
        """
        return self.matcher.phrases(self.tables.texts.take(rows))

    def named(self, texts: Sequence[str], sources: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return `[R, C]` bool, the classes that new captions name.

        Args:
            texts: R captions that are not in the data set.
            sources: `[R]` row of the caption that each was edited from, -1 where it was written without one.
        """
        return self.matcher.mentions(texts)

    def named_in(self, made: SyntheticSet, *, edited: bool) -> NDArray[np.bool_]:
        """Return `[N, C]` bool, the classes that the captions of a synthetic set name; reading them once will do.

        Args:
            made: the set, N pairs.
            edited: whether its captions are those of their sources, edited.
        """
        return mentions_of(made.texts, self.matcher, self.cache_dir)
