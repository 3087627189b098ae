"""What is left of the phrases of a caption when the caption is edited."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
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


def carried(source: str, phrases: Sequence[Phrase], edited: str) -> list[Phrase]:
    """Return the phrases of a caption that an edit of it still has, at the places where they stand now.

    The words of both are aligned by their longest common stretches; a phrase is still there if all its words are, with
    nothing put between them. Words that only the edit has belong to no phrase.

    Args:
        source: the caption.
        phrases: its phrases, in order.
        edited: the same caption, of which words were removed or others added.

    Example:
        >>> phrases = [Phrase(0, 5, frozenset({0})), Phrase(10, 15, frozenset({1})), Phrase(19, 29, frozenset({2}))]
        >>> edited = "A dog in a dog park"
        >>> [edited[start:end] for start, end, _ in carried("A man and a dog in a dog park", phrases, edited)]
        ['A dog', 'a dog park']
    """
    before, after = words_of(source), words_of(edited)
    matcher = SequenceMatcher(None, [word.lower for word in before], [word.lower for word in after], autojunk=False)
    blocks = matcher.get_matching_blocks()
    places = {block.a + step: block.b + step for block in blocks for step in range(block.size)}
    found = []
    for phrase in phrases:
        inside = [places.get(n, -1) for n, word in enumerate(before) if phrase.start <= word.start < phrase.end]
        if inside and inside[0] >= 0 and inside == list(range(inside[0], inside[0] + len(inside))):
            found.append(Phrase(after[inside[0]].start, after[inside[-1]].end, phrase.classes))
    return found
