"""A chunker without a language model: closed word classes, endings, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from datamodules.phrases.chunkers import Parse, split_words

_CLOSED = {
    "DT": "a an the this that these those some any each every another both all no",
    "PRP$": "my your his her its our their",
    "CD": "one two three four five six seven eight nine ten eleven twelve dozen several many few",
    "IN": "of in on at by with without from to into onto over under near behind between beside besides next through "
    "across around against along atop inside outside off out up down above below beneath underneath during while as "
    "for about toward towards among before after past like than that which who whose where when",
    "CC": "and or but nor",
    "PRP": "he she it they him them we us you i",
    "VBZ": "is was are were be been has have had does do did sits stands lies holds rides looks plays flies runs walks "
    "sit stand lie lay lays hold ride look play fly run walk eat eats wear wears drive drives swing swings hit hits "
    "catch catches throw throws jump jumps make makes take takes",
    "RB": "very together there here away not just also out back",
    "JJ": "large small big little young old new white black brown red green blue yellow pink purple grey gray tall "
    "short long wooden several many empty full open male female adult other different various",
}
_TAGS = {word: tag for tag, words in _CLOSED.items() for word in words.split()}
_ENDINGS = ((re.compile(r"\w{3,}ing"), "VBG"), (re.compile(r"\w{3,}ed"), "VBN"), (re.compile(r"\w{3,}ly"), "RB"))
_INSIDE = ("DT", "PRP$", "CD", "JJ", "NN", "NNS", "POS", "HYPH", "VBN")


class RuleChunker:
    """Noun chunks by rule, for tests and for machines without a spaCy pipeline; it takes more verbs for nouns.

    Example:
        >>> parse = next(RuleChunker().parse(["Two dogs fighting over a frisbee"]))
        >>> [" ".join(parse.words[start:end]) for start, end in parse.chunks]
        ['two dogs', 'a frisbee']
    """

    version = "rules-1"

    def parse(self, captions: Iterable[str]) -> Iterator[Parse]:
        """Yield one `Parse` per caption, in order."""
        for words, spans in map(split_words, captions):
            tags = [_tag(word) for word in words]
            yield Parse(words, spans, tags, _chunks(tags))


def _tag(word: str) -> str:
    if word in _TAGS:
        return _TAGS[word]
    if not word[0].isalnum():
        return {"'s": "POS", "-": "HYPH"}.get(word, ",")
    if word.isdigit():
        return "CD"
    for ending, tag in _ENDINGS:
        if ending.fullmatch(word):
            return tag
    return "NNS" if word.endswith("s") and not word.endswith("ss") else "NN"


def _chunks(tags: list[str]) -> list[tuple[int, int]]:
    """Return the runs of noun-phrase words, cut at every determiner and ended at the last noun."""
    chunks: list[tuple[int, int]] = []
    start = 0
    for here, tag in enumerate([*tags, "."]):
        if tag in ("DT", "PRP$") or tag not in _INSIDE:
            nouns = [place for place in range(start, here) if tags[place].startswith("NN")]
            if nouns:
                chunks.append((start, nouns[-1] + 1))
            start = here + (tag not in _INSIDE)
    return chunks
