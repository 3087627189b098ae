"""Sentences with annotated phrases: `[/EN#12/people A man] rides [/EN#7/vehicles a bike] .`, one caption a line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from datamodules.errors import AnnotationError
from datamodules.sources import is_text

TYPES = ("people", "clothing", "bodyparts", "animals", "vehicles", "instruments", "scene", "other")
"""The types of an entity; a phrase that names nothing visible is marked `notvisual` instead."""
UNANNOTATED = 0
"""The chain of phrases that were not annotated."""

_KNOWN = frozenset({*TYPES, "notvisual"})
_PHRASE = re.compile(r"\[/EN#(?P<chain>\d+)/(?P<types>[^\s\[\]]+) (?P<words>[^\[\]]*[^\s\[\]][^\[\]]*)\]")
_EXPECTED = "`[/EN#CHAIN/TYPE words]`, with further types as in `/TYPE/TYPE`"


class Entity(NamedTuple):
    """An annotated phrase: the characters `text[start:end]` of a caption, its chain (what it names) and its types."""

    start: int
    end: int
    chain: int
    types: tuple[str, ...]


class Sentence(NamedTuple):
    """A caption without its brackets, and the phrases that had them, in order."""

    text: str
    entities: list[Entity]


def read_sentences(path: Path) -> list[Sentence]:
    """Read the captions of an image, one a line.

    Raises:
        AnnotationError: a line is blank, a bracket is malformed or a type is unknown; the text has file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path.absolute()} (config key `entities`) is not text: unpack it again.") from error
    where = f"{path.absolute()} (config key `entities`), line"
    return [parse_sentence(line, f"{where} {number}") for number, line in enumerate(lines, 1)]


def parse_sentence(line: str, where: str = "sentence") -> Sentence:
    """Take the brackets out of a line.

    Args:
        line: an annotated caption.
        where: what the line is, for the error.

    Raises:
        AnnotationError: a bracket is malformed, a type is unknown or there is no text.

    Example:
        >>> text, entities = parse_sentence("[/EN#1/people Two men] look at [/EN#3/bodyparts/people their hands] .")
        >>> text
        'Two men look at their hands .'
        >>> [(text[one.start : one.end], one.chain, one.types) for one in entities]
        [('Two men', 1, ('people',)), ('their hands', 3, ('bodyparts', 'people'))]
    """
    text, entities, last = "", [], 0
    for found in _PHRASE.finditer(line):
        text += _outside(line, last, found.start(), where)
        types = tuple(found["types"].split("/"))
        if not _KNOWN.issuperset(types):
            raise AnnotationError(
                f"{where}: {found[0]!r} has the type {found['types']!r}, known are {', '.join(TYPES)} and notvisual: "
                "mend the line."
            )
        start, text, last = len(text), text + found["words"], found.end()
        entities.append(Entity(start, len(text), int(found["chain"]), types))
    text += _outside(line, last, len(line), where)
    if not is_text(text):
        raise AnnotationError(f"{where}: there is no caption: write it or remove the line.")
    return Sentence(text, entities)


def _outside(line: str, start: int, end: int, where: str) -> str:
    """Return what stands between two phrases, which must hold no bracket."""
    odd = re.search(r"[\[\]]|/EN#", line[start:end])
    if odd:
        column = start + odd.start()
        raise AnnotationError(
            f"{where}, column {column + 1}: the bracket of a phrase is malformed at {line[column : column + 30]!r}, "
            f"expected is {_EXPECTED}: mend the line."
        )
    return line[start:end]
