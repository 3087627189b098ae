"""A matcher whose words are annotated phrases, for captions that have no annotation beside many that have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from datamodules.phrases.carried import Word, words_of
from datamodules.phrases.protocol import Phrase

_RULES_VERSION = 1  # raise it with every change of the rules below that changes a match
_DETERMINERS = frozenset(
    {"a", "an", "the", "this", "that", "these", "those", "some", "another", "other", "each", "every"}
)
_DETERMINERS |= {"its", "his", "her", "their", "one", "two", "three", "four", "five", "six", "several", "many"}


class LexiconMatcher:
    """Finds in captions what was annotated as a phrase elsewhere, the longest first.

    A phrase names a class if more than half of its annotations do. Determiners and numbers before a phrase make no
    difference, and a phrase of nothing else ("two") is left out. The names of the classes name them whatever the
    annotation says, even one that is a determiner ("other"), so that prompts made of them are understood.

    Args:
        class_names: names of the C classes.
        annotated: gives annotated phrases and the classes of each; asked when the first caption is read.
        version: changes whenever `annotated` may give something else.

    Example:
        >>> said = [("A man", frozenset({0})), ("the dog", frozenset({1})), ("a dog park", frozenset())]
        >>> matcher = LexiconMatcher(("people", "animals"), lambda: iter(said), "1")
        >>> matcher.mentions(["A photo of animals", "Two dog trainers and a man in the dog park"]).astype(int).tolist()
        [[0, 1], [1, 1]]
    """

    def __init__(
        self, class_names: Sequence[str], annotated: Callable[[], Iterator[tuple[str, frozenset[int]]]], version: str
    ) -> None:
        self._class_names, self._annotated, self._version = tuple(class_names), annotated, version

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the C classes; position = class index."""
        return self._class_names

    @property
    def version(self) -> str:
        """Changes with the annotation and with the rules."""
        return f"lexicon-{_RULES_VERSION}-{self._version}"

    @cached_property
    def _terms(self) -> dict[tuple[str, ...], frozenset[int]]:
        """Classes of each term, which begins with no determiner."""
        seen: Counter[tuple[str, ...]] = Counter()
        votes: Counter[tuple[tuple[str, ...], int]] = Counter()
        for (text, classes), count in Counter(self._annotated()).items():
            term = _term(words_of(text))
            seen[term] += count
            for index in classes:
                votes[term, index] += count
        terms: dict[tuple[str, ...], set[int]] = {term: set() for term in seen if term}
        for (term, index), count in votes.items():
            if term and 2 * count > seen[term]:
                terms[term].add(index)
        names = (tuple(word.lower for word in words_of(name)) for name in self._class_names)
        named = {name: frozenset({index}) for index, name in enumerate(names)}
        return {term: frozenset(classes) for term, classes in terms.items()} | named

    @cached_property
    def _lengths(self) -> dict[str, int]:
        """Words of the longest term that begins with each word."""
        lengths: defaultdict[str, int] = defaultdict(int)
        for term in self._terms:
            lengths[term[0]] = max(lengths[term[0]], len(term))
        return dict(lengths)

    def phrases(self, captions: Sequence[str]) -> list[list[Phrase]]:
        """Return, for each caption, the phrases found, in order and without overlap."""
        return [list(self._find(caption)) for caption in captions]

    def mentions(self, captions: Sequence[str]) -> NDArray[np.bool_]:
        """Return `[len(captions), C]` bool: True where a phrase of the caption names the class."""
        found = np.zeros((len(captions), len(self._class_names)), dtype=bool)
        for row, phrases in zip(found, self.phrases(captions), strict=True):
            row[[index for phrase in phrases for index in phrase.classes]] = True
        return found

    def _find(self, caption: str) -> Iterator[Phrase]:
        words = words_of(caption)
        place = before = 0
        while place < len(words):
            term = self._longest(words, place)
            if term:
                end = place + len(term)
                yield Phrase(words[before].start, words[end - 1].end, self._terms[term])
                place = before = end
                continue
            place += 1
            if words[place - 1].lower not in _DETERMINERS:
                before = place

    def _longest(self, words: Sequence[Word], place: int) -> tuple[str, ...]:
        """Return the longest term that stands here, an empty one where there is none."""
        most = self._lengths.get(words[place].lower, 0)
        following = tuple(word.lower for word in words[place : place + most])
        return next((following[:size] for size in range(len(following), 0, -1) if following[:size] in self._terms), ())


def _term(words: Sequence[Word]) -> tuple[str, ...]:
    """Return words from the first that is no determiner on."""
    lower = [word.lower for word in words]
    start = next((n for n, word in enumerate(lower) if word not in _DETERMINERS), len(lower))
    return tuple(lower[start:])
