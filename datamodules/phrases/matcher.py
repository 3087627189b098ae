"""A matcher for any classes that a word list can describe: noun chunks, longest terms first, a few general rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.phrases.chunkers import Chunker, Parse, SpacyChunker
from datamodules.phrases.protocol import Phrase
from datamodules.phrases.words import Entry, WordList, join_words

_RULES_VERSION = 3  # raise it with every change of the rules below that changes a match
_ARTICLES = {"a", "an", "the", "i"}
_BEFORE_NOUNS = ("DT", "CD", "PRP$", "POS")
_Span = tuple[int, int]


class _Hit(NamedTuple):
    """A term found at the words `start` to `end` and the classes that it names there; an owner is followed by "'s"."""

    start: int
    end: int
    term: str
    classes: frozenset[int]
    plural: bool
    owner: bool = False


class WordListMatcher:
    """Finds the noun phrases of captions and the classes that a word list gives them.

    Args:
        word_list: a yaml file; the head of `coco_words.yaml` explains the format.
        chunker: cuts captions into words and noun chunks; spaCy's by default.

    Raises:
        MissingPathError: if there is no such file.
        ConfigError: if the file is not a word list.
    """

    def __init__(self, word_list: Path, chunker: Chunker | None = None) -> None:
        self._list = WordList(word_list)
        self._chunker: Chunker = SpacyChunker() if chunker is None else chunker

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the C classes; position = class index."""
        return self._list.class_names

    @property
    def version(self) -> str:
        """Hash over the word list, the rules and the chunker."""
        parts = f"{self._list.digest} {_RULES_VERSION} {self._chunker.version}"
        return sha256(parts.encode()).hexdigest()[:16]

    def phrases(self, captions: Sequence[str]) -> list[list[Phrase]]:
        """Return, for each caption, its noun phrases in order, without overlap.

        A phrase is a noun chunk, a measure with what it measures ("a group of people") or, where the chunker missed a
        noun that names a class, that noun with its determiner and adjectives. The characters are those of the caption
        as it was given.

        Raises:
            UserError: if the chunker needs a language model that is not installed.
        """
        unique = dict.fromkeys(captions)
        found = dict(zip(unique, map(self._phrases, self._chunker.parse(unique)), strict=True))
        return [list(found[caption]) for caption in captions]

    def mentions(self, captions: Sequence[str]) -> NDArray[np.bool_]:
        """Return `[len(captions), C]` bool: True where a phrase of the caption names the class.

        Raises:
            UserError: if the chunker needs a language model that is not installed.
        """
        numbers: dict[str, int] = {}
        rows = np.fromiter((numbers.setdefault(caption, len(numbers)) for caption in captions), np.int64)
        table = np.zeros((len(numbers), len(self.class_names)), dtype=bool)
        for row, parse in enumerate(self._chunker.parse(numbers)):
            for phrase in self._phrases(parse):
                table[row, list(phrase.classes)] = True
        return table[rows]

    def _phrases(self, parse: Parse) -> list[Phrase]:
        hits = self._hits(parse)
        spans = self._spans(parse, hits)
        held = [[hit for hit in hits if start <= hit.start < end] for start, end in spans]
        held = [self._named(parse, span, inside) for span, inside in zip(spans, held, strict=True)]
        everywhere = [hit for inside in held for hit in inside]
        return [
            Phrase(
                parse.spans[start][0],
                parse.spans[end - 1][1],
                frozenset().union(*(hit.classes for hit in inside if not self._yields(hit, everywhere, caption=True))),
            )
            for (start, end), inside in zip(spans, held, strict=True)
        ]

    def _hits(self, parse: Parse) -> list[_Hit]:
        """Find terms from left to right, the longest first; those that are verbs or modifiers name no class."""
        hits: list[_Hit] = []
        start = 0
        while start < len(parse.words):
            hit = self._longest(parse, start, hits[-1] if hits else None)
            if hit is not None:
                hits.append(hit)
            start = start + 1 if hit is None else hit.end
        modifiers = {index for index in range(len(hits)) if self._modifies(parse, hits, index)}
        return [hit._replace(classes=frozenset()) if n in modifiers else hit for n, hit in enumerate(hits)]

    def _longest(self, parse: Parse, start: int, previous: _Hit | None) -> _Hit | None:
        first = parse.words[start]
        if first == "-" or first in _ARTICLES:
            return None
        for end, entry in self._list.starting(parse.words, start):
            owner = parse.words[end : end + 1] in (["'s"], ["'"])
            hit = _Hit(start, end, entry.term, self._meaning(parse, entry), entry.plural, owner)
            if not self._is_clause(parse, hit) and (
                entry.term not in self._list.nouns_only or self._is_noun(parse, hit, previous)
            ):
                return hit
        if first in self._list.entries or not parse.tags[start].startswith(("N", "J")):
            return None
        guess = self._list.guess(first)
        return guess and _Hit(start, start + 1, guess.term, guess.classes, guess.plural)

    @staticmethod
    def _is_clause(parse: Parse, hit: _Hit) -> bool:
        """Tell "a cat walks" from "catwalks", and "a train crossing a bridge" from a level crossing."""
        last, tag = parse.words[hit.end - 1], parse.tags[hit.end - 1]
        if hit.end == hit.start + 1 or not last.endswith(("s", "ed", "ing")):
            return False
        number = parse.number_before(hit.start) if hit.plural else ""
        if number == "many" or (number == "bare" and hit.classes):
            return False  # "two teddy bears" hold no verb, whatever the tagger says
        if number == "one" and tag == "NNS" and not hit.classes:
            return True  # "a taxi stops" is no noun
        return tag in (("VBZ", "VBD") if hit.classes else ("VBZ", "VBD", "VBG"))

    def _meaning(self, parse: Parse, entry: Entry) -> frozenset[int]:
        """Return the classes of the sense with most cues in the caption; the first wins a tie."""
        senses = self._list.senses.get(entry.term)
        if senses is None:
            return entry.classes
        text = " ".join(parse.words)
        fits = [0.5 if sense.cues is None else len(set(sense.cues.findall(text))) for sense in senses]
        best = max(range(len(senses)), key=fits.__getitem__)
        return senses[best].classes if fits[best] else frozenset()

    def _is_noun(self, parse: Parse, hit: _Hit, previous: _Hit | None) -> bool:
        tag = parse.tags[hit.end - 1]
        if tag.startswith("VB"):
            return self._in_noun_position(parse, hit, tag)
        if not tag.startswith("NN"):
            following = parse.tags[hit.end : hit.end + 1]
            return not following or not following[0].startswith(("NN", "JJ", "HYPH"))
        subject = previous if previous is not None and previous.end == hit.start and not previous.plural else None
        conjugated = subject is not None and subject.classes - hit.classes and parse.words[hit.end - 1].endswith("s")
        return not conjugated  # "the man skis" is tagged as if it were "the water skis"

    @staticmethod
    def _in_noun_position(parse: Parse, hit: _Hit, tag: str) -> bool:
        """Tell a noun that the tagger took for a verb: after an article, or in a list such as "a suit and tie"."""
        before = ["", "", *parse.tags[: hit.start]][-2:]
        listed = before[1] in (",", "IN") or (before[1] == "CC" and before[0].startswith("NN"))
        return before[1] in _BEFORE_NOUNS or (listed and tag in ("VB", "VBP"))

    def _modifies(self, parse: Parse, hits: list[_Hit], index: int) -> bool:
        """Tell whether a term only says of what kind the next noun is: "dog bed", "computer desk", "train station"."""
        hit = hits[index]
        if hit.plural:
            return False
        after = hit.end + (parse.words[hit.end : hit.end + 1] == ["-"])
        if after >= len(parse.words) or not parse.tags[after].startswith("NN"):
            return False
        if parse.words[after] in self._list.heads:
            return True
        if index + 1 < len(hits) and hits[index + 1].start == after and self._groups(hit, hits[index + 1]):
            return False
        chain = [index]
        while chain[-1] + 1 < len(hits) and hits[chain[-1] + 1].start == after:
            chain.append(chain[-1] + 1)
            after = hits[chain[-1]].end
        followed = len(chain) == 2 and bool(hits[chain[-1]].classes)  # three in a row are a list without commas
        return followed and not (index and hits[index - 1].end == hit.start and hits[index - 1].classes)

    def _groups(self, animal: _Hit, head: _Hit) -> bool:
        """Tell whether a head such as "family" or "baby" speaks of the class before it: "an elephant family"."""
        return any(rule.caption and head.term in rule.terms and animal.classes & rule.to for rule in self._list.yields)

    def _spans(self, parse: Parse, hits: list[_Hit]) -> list[_Span]:
        """Return the word spans of the phrases: chunks, terms across or outside chunks, measures with their "of"."""
        covered = {word for start, end in parse.chunks for word in range(start, end)}
        named = (self._grown(parse, hit, covered) for hit in hits if hit.classes)
        spans = _united([*parse.chunks, *named])
        trimmed = [span for span in (_trimmed(parse.words, span) for span in spans) if span[0] < span[1]]
        merged: list[_Span] = []
        for span in trimmed:
            if merged and self._measures(parse, hits, merged[-1], span):
                span = (merged.pop()[0], span[1])
            merged.append(span)
        return merged

    def _grown(self, parse: Parse, hit: _Hit, covered: set[int]) -> _Span:
        start, end = hit.start, hit.end
        if start in covered or end - 1 in covered:
            return start, end
        while start and start - 1 not in covered and parse.tags[start - 1].startswith((*_BEFORE_NOUNS, "JJ", "NN")):
            start -= 1
        while end < len(parse.words) and end not in covered and parse.tags[end].startswith("NN"):
            end += 1
        return start, end

    def _measures(self, parse: Parse, hits: list[_Hit], left: _Span, right: _Span) -> bool:
        """Tell whether two spans are a measure and its object, of which only one names a class."""
        if parse.words[left[1] : right[0]] != ["of"] or parse.words[left[1] - 1] not in self._list.measures:
            return False
        named = [
            any(hit.classes and start <= hit.start < end and not self._is_yielding(hit) for hit in hits)
            for start, end in (left, right)
        ]
        return not all(named)

    def _named(self, parse: Parse, span: _Span, hits: list[_Hit]) -> list[_Hit]:
        """Return the hits of a phrase that name a class there."""
        if self._follows(parse, span[0], self._list.unreal) or parse.words[span[0]] in self._list.unreal:
            return []
        kept = [hit for hit in hits if hit.classes and self._is_thing(parse, span, hit)]
        return [hit for hit in kept if not self._yields(hit, kept, caption=False)]

    @staticmethod
    def _follows(parse: Parse, start: int, keys: frozenset[str]) -> bool:
        return any(join_words(parse.words[max(0, start - length) : start]) in keys for length in (1, 2, 3))

    def _is_thing(self, parse: Parse, span: _Span, hit: _Hit) -> bool:
        """Tell an object from a colour or a game ("an orange cat", "play baseball") and a likeness ("a toy dog")."""
        before = parse.words[span[0] : hit.start]
        if any(not words.isdisjoint(before) and hit.classes <= classes for words, classes in self._list.likenesses):
            return False
        if hit.term not in self._list.articled or hit.plural:
            return True
        if hit.end != span[1]:
            return False
        cues = self._list.articled[hit.term]
        if cues is not None and cues.search(" ".join(parse.words)):
            return True
        return parse.tags[span[0]] in _BEFORE_NOUNS and not self._goes_on(parse, span[1])

    @staticmethod
    def _goes_on(parse: Parse, end: int) -> bool:
        """Tell whether a colour goes on behind its span: "an orange and white cat", but not "an orange and a chair"."""
        joined = parse.words[end : end + 1] in (["and"], ["-"])
        return joined and not any(tag in _BEFORE_NOUNS for tag in parse.tags[end + 1 : end + 2])

    def _is_yielding(self, hit: _Hit) -> bool:
        return not hit.owner and any(hit.term in rule.terms for rule in self._list.yields)

    def _yields(self, hit: _Hit, others: Iterable[_Hit], *, caption: bool) -> bool:
        """Tell whether a word such as "baby" or "couple" speaks of what other words name."""
        rules = [rule for rule in self._list.yields if rule.caption is caption and hit.term in rule.terms]
        if not rules or hit.owner:
            return False
        rivals = [other for other in others if not self._is_yielding(other)]
        if caption and any(rival.classes & hit.classes for rival in rivals):
            return False
        return any(rival.classes & rule.to and not rival.classes & hit.classes for rule in rules for rival in rivals)


def _united(spans: Iterable[_Span]) -> list[_Span]:
    """Merge spans that overlap.

    Example:
        >>> _united([(0, 2), (4, 6), (1, 3), (5, 6)])
        [(0, 3), (4, 6)]
    """
    united: list[_Span] = []
    for start, end in sorted(spans):
        if united and start < united[-1][1]:
            start, end = united[-1][0], max(end, united.pop()[1])
        united.append((start, end))
    return united


def _trimmed(words: list[str], span: _Span) -> _Span:
    start, end = span
    while start < end and not words[start].isalnum():
        start += 1
    while start < end and not words[end - 1].isalnum():
        end -= 1
    return start, end
