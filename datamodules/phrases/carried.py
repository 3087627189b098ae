"""What is left of the phrases of a caption when the caption is edited."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from datamodules.phrases.protocol import Phrase

_WORD = re.compile(r"\w+")


class Word(NamedTuple):
    """A word in lower case, and the characters `text[start:end]` that it is."""

    lower: str
    start: int
    end: int


def words_of(text: str) -> list[Word]:
    """Return the words of a text, without punctuation.

    >>> [word.lower for word in words_of("A man's dog .")]
    ['a', 'man', 's', 'dog']
    """
    return [Word(found[0].lower(), found.start(), found.end()) for found in _WORD.finditer(text)]


class _Unit(NamedTuple):
    """Words of a caption that an edit leaves or removes as a whole: those of a phrase, or one that is in none."""

    words: list[str]
    phrase: Phrase | None


def carried(source: str, phrases: Sequence[Phrase], edited: str) -> list[Phrase]:
    """Return the phrases of a caption that an edit of it still has, at the places where they stand now.

    The words of both are aligned in order, so that as many as possible agree; a phrase is there as a whole or not at
    all. Words that only the edit has belong to no phrase.

    Args:
        source: the caption.
        phrases: its phrases, in order and without overlap.
        edited: the same caption, of which words were removed or to which words were added.

    Example:
        >>> phrases = [Phrase(0, 5, frozenset({0})), Phrase(10, 15, frozenset({1})), Phrase(19, 29, frozenset({2}))]
        >>> edited = "A dog in a dog park"
        >>> [edited[start:end] for start, end, _ in carried("A man and a dog in a dog park", phrases, edited)]
        ['A dog', 'a dog park']
    """
    units, after = _units(words_of(source), phrases), words_of(edited)
    words = [word.lower for word in after]
    best = _agreement(units, words)
    place, found = 0, []
    for number, (said, phrase) in enumerate(units):
        while place < len(words) and best[number][place] == best[number][place + 1]:
            place += 1
        end = place + len(said)
        if words[place:end] == said and best[number][place] == len(said) + best[number + 1][end]:
            if phrase is not None:
                found.append(Phrase(after[place].start, after[end - 1].end, phrase.classes))
            place = end
    return found


def _units(words: Sequence[Word], phrases: Sequence[Phrase]) -> list[_Unit]:
    units: list[_Unit] = []
    ahead = deque(phrases)
    for lower, start, _ in words:
        while ahead and ahead[0].end <= start:
            ahead.popleft()
        phrase = ahead[0] if ahead and ahead[0].start <= start else None
        if phrase is None or not units or units[-1].phrase is not phrase:
            units.append(_Unit([], phrase))
        units[-1].words.append(lower)
    return units


def _agreement(units: Sequence[_Unit], words: Sequence[str]) -> list[list[int]]:
    """Return, for each unit and word, how many words agree at most from there on, by Bellman's recursion."""
    best = [[0] * (len(words) + 1) for _ in range(len(units) + 1)]
    for number in range(len(units) - 1, -1, -1):
        said = units[number].words
        for place in range(len(words) - 1, -1, -1):
            end = place + len(said)
            agreed = len(said) + best[number + 1][end] if words[place:end] == said else 0
            best[number][place] = max(agreed, best[number + 1][place], best[number][place + 1])
    return best
