"""The little English that a list of class names needs: articles, plurals and small numbers."""

from __future__ import annotations

import re

_VOWEL = re.compile(r"(?!uni(?!n)|us[eu]|ute|uku|eu|one\b)[aeiou]|hour|honest|heir", re.IGNORECASE)
_MANY = frozenset({"people", "animals", "vehicles", "instruments", "bodyparts"})  # classes that are plurals already
_NO_SINGULAR = _MANY | {"broccoli", "scissors", "skis", "clothing"}
_UNCHANGED = _NO_SINGULAR | {"sheep", "fish", "deer", "aircraft"}
_IRREGULAR = {
    "child": "children",
    "foot": "feet",
    "goose": "geese",
    "knife": "knives",
    "leaf": "leaves",
    "loaf": "loaves",
    "man": "men",
    "mouse": "mice",
    "ox": "oxen",
    "person": "people",
    "shelf": "shelves",
    "woman": "women",
}
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def with_article(name: str) -> str:
    """Put "a" or "an" before words, or nothing before a noun that takes neither.

    Example:
        >>> [with_article(name) for name in ("umbrella", "unicycle", "hourglass", "plastic scissors", "animals")]
        ['an umbrella', 'a unicycle', 'an hourglass', 'plastic scissors', 'animals']
    """
    if has_no_singular(name):
        return name
    return f"{'an' if _VOWEL.match(name) else 'a'} {name}"


def has_no_singular(name: str) -> bool:
    """Tell whether the last word takes neither an article nor "one": always plural, or no thing to be counted."""
    return name.split(" ")[-1].lower() in _NO_SINGULAR


def plural(name: str) -> str:
    """Return the plural of words by their last word.

    Example:
        >>> [plural(name) for name in ("person", "wine glass", "butter knife", "giraffe", "puppy", "skis")]
        ['people', 'wine glasses', 'butter knives', 'giraffes', 'puppies', 'skis']
    """
    *before, last = name.split(" ")
    if last in _UNCHANGED:
        return name
    if last in _IRREGULAR:
        return " ".join([*before, _IRREGULAR[last]])
    if re.search(r"(s|x|z|ch|sh)$", last):
        return name + "es"
    return re.sub(r"(?<=[^aeiou])y$", "ie", name) + "s"


def number_word(count: int) -> str:
    """Write a number as people do in captions: a word up to twelve, digits above.

    Example:
        >>> number_word(2), number_word(13)
        ('two', '13')
    """
    return _NUMBERS[count - 1] if 1 <= count <= len(_NUMBERS) else str(count)
