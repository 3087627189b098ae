"""The caption of the source without the noun phrases that name a removed class (paper, section 3.3)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import ClassVar

from datamodules.phrases import Phrase
from synth.captions.base import CaptionRequest, CaptionStrategy
from synth.rules import Rule

_CONNECTOR = r"(?:,\s*)?(?:\b(?:and|or)\b|&)|,"
_TAIL = re.compile(rf"(?:\s*(?:{_CONNECTOR}))+$", re.IGNORECASE)
_HEAD = re.compile(rf"\s*(?:{_CONNECTOR})\s*", re.IGNORECASE)
_QUOTES = "'\u2019"
_POSSESSIVE = re.compile(rf"[{_QUOTES}](?:s\b|(?<=s.)(?!\w))", re.IGNORECASE)


class NounPhraseRemoval(CaptionStrategy):
    """Deletes the noun phrases that name a removed class; see `remove_phrases` for what happens around them."""

    name: ClassVar[str] = "noun_phrases"
    version: ClassVar[int] = 2
    edits_source: ClassVar[bool] = True

    def write(self, requests: Sequence[CaptionRequest]) -> list[str | Rule]:
        """Return the source caption of each request without its removed classes, or the rule that forbids it."""
        return [remove_phrases(one.text, one.phrases, one.removed, one.kept) for one in requests]


def remove_phrases(
    caption: str, phrases: Sequence[Phrase], removed: Collection[int], kept: Collection[int]
) -> str | Rule:
    """Delete every noun phrase that names a removed class and keep the rest as it is written.

    A phrase that names a removed and a kept class goes as well. Spaces, commas and conjunctions that led to a deleted
    phrase go with it, as does its possessive ending, and a caption that began with a capital still does; prepositions
    stay, as in the paper.

    Args:
        caption: the caption as written.
        phrases: its noun phrases, in order.
        removed: class indices removed from the image.
        kept: class indices left in the image.

    Returns:
        The edited caption, or the rule that forbids it: `NOT_NAMED` if no phrase names a removed class, `NO_WORDS` if
        nothing is left, `NO_KEPT_WORD` if no phrase that is left names a kept class.

    Example:
        >>> dog, frisbee = 16, 29
        >>> phrases = [Phrase(0, 8, frozenset({dog})), Phrase(23, 32, frozenset({frisbee}))]
        >>> remove_phrases("Two dogs fighting over a frisbee", phrases, removed={frisbee}, kept={dog})
        'Two dogs fighting over'
        >>> remove_phrases("Two dogs fighting over a frisbee", phrases, removed={dog}, kept={29})
        'Fighting over a frisbee'
    """
    doomed = [phrase for phrase in phrases if not phrase.classes.isdisjoint(removed)]
    if not doomed:
        return Rule.NOT_NAMED
    text = _tidy(_delete(caption, phrases, doomed), like=caption)
    if not any(character.isalnum() for character in text):
        return Rule.NO_WORDS
    named = frozenset().union(*(phrase.classes for phrase in phrases if phrase not in doomed))
    return Rule.NO_KEPT_WORD if named.isdisjoint(kept) else text


def _delete(caption: str, phrases: Sequence[Phrase], doomed: Sequence[Phrase]) -> str:
    starts = {phrase.start for phrase in phrases}
    ends = [phrase.start for phrase in doomed[1:]] + [len(caption)]
    text = caption[: doomed[0].start].rstrip()
    for phrase, end in zip(doomed, ends, strict=True):
        possessive = _POSSESSIVE.match(caption, phrase.end)
        start = possessive.end() if possessive else phrase.end
        head = _HEAD.match(caption, start)
        in_list = head is not None and _continues_list(head, starts, is_first=phrase is phrases[0])
        text = _join(text, caption[start:end].rstrip(), in_list)
    return text


def _continues_list(head: re.Match[str], starts: Collection[int], *, is_first: bool) -> bool:
    """Whether a connector leads to another member of a list ("on a bench, a man sits" has one, but no list)."""
    return head.end() in starts and not (is_first and head.group().strip() == ",")


def _join(left: str, right: str, in_list: bool) -> str:
    """Join what stood before and behind a deleted phrase, with one connector fewer if the phrase was in a list."""
    closes = right[:1] in tuple(_QUOTES)
    shorter, right = _TAIL.sub("", left), right.lstrip()
    if shorter == left and (in_list or not left):
        right = _HEAD.sub("", right, count=1) if _HEAD.match(right) else right
    if shorter.endswith("(") and right.startswith(")"):
        shorter, right = shorter[:-1].rstrip(), right[1:].lstrip()
    tight = closes or not shorter or not right or right[0] in ".,;:!?)" or shorter[-1] == "("
    return shorter + ("" if tight else " ") + right


def _tidy(text: str, like: str) -> str:
    text = _TAIL.sub("", text).strip().lstrip(",;:.").lstrip()
    capital = next((character for character in like if character.isalpha()), "").isupper()
    return text[:1].upper() + text[1:] if capital else text
