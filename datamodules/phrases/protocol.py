"""The protocol between captions and classes: captions in, phrases with their classes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class Phrase(NamedTuple):
    """A noun phrase of a caption: the characters `caption[start:end]` and the class indices that it names."""

    start: int
    end: int
    classes: frozenset[int]


@runtime_checkable
class PhraseMatcher(Protocol):
    """Finds the noun phrases of captions and the classes that each names."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the C classes; position = class index."""

    @property
    def version(self) -> str:
        """Changes whenever the same caption could give other phrases (word list, rules, language model)."""

    def phrases(self, captions: Sequence[str]) -> list[list[Phrase]]:
        """Return, for each caption, its noun phrases in order; a phrase that names no class has empty `classes`."""

    def mentions(self, captions: Sequence[str]) -> NDArray[np.bool_]:
        """Return `[len(captions), C]` bool: True where a phrase of the caption names the class."""
