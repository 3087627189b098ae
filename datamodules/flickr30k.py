"""Flickr30k with the phrases and boxes of Flickr30k Entities."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datamodules.base import RetrievalDataModule
from datamodules.entities import TYPES, AnnotatedPhrases, read_entities
from datamodules.errors import ConfigError
from datamodules.phrases.carried import carried
from datamodules.phrases.lexicon import LexiconMatcher
from datamodules.phrases.protocol import Phrase, PhraseMatcher
from datamodules.sources import rows_of
from datamodules.tables import Tables

if TYPE_CHECKING:
    from datamodules.synthetic_set import SyntheticSet


class Flickr30kDataModule(RetrievalDataModule):
    """Flickr30k: captions and splits of Karpathy's file, boxes and matching of Flickr30k Entities (paper, section 3.2).

    A phrase names a class if it is annotated with that type; no words are matched, and what a caption names is told by
    its own annotation, not by that of others with the same words. In an edited caption the phrases that are left name
    what they named. Captions that are written without a source, such as prompts, have no annotation: there `matcher`
    reads, by default the names of the classes and the phrases that were annotated anywhere in the data set.

    An object is a box; it has all the classes that any caption of its image gives its chain. Chains without a box
    (`nobndbox`, `scene`) are mentioned and cannot be removed.

    Args:
        image_root: folder of the images (`1000092795.jpg`, ...).
        karpathy: json file with captions and splits (`dataset_flickr30k.json`).
        entities: folder with `Sentences/` and `Annotations/`, the content of annotations.zip of Flickr30k Entities.
        classes: types that are classes, any of people, clothing, bodyparts, animals, vehicles, instruments, scene and
            other. The paper has four and does not name them; clothing and bodyparts go with the people, a scene has
            no box.
        unrelated: the file `UNRELATED_CAPTIONS` of Flickr30k Entities: captions that do not describe their image. They
            are left out, but for those of the splits val and test, where recall counts them as published figures do;
            these name nothing. None of them says what a box is.
        strict_chains: whether sentences and boxes must speak of the same chains; false for a partial annotation.
        **base: arguments of `RetrievalDataModule`.

    Raises:
        ConfigError: `classes` is empty, has an unknown or a repeated type, or `matcher` knows other classes.
    """

    def __init__(
        self,
        image_root: str | os.PathLike[str],
        karpathy: str | os.PathLike[str],
        entities: str | os.PathLike[str],
        classes: Sequence[str] = ("people", "animals", "vehicles", "instruments"),
        unrelated: str | os.PathLike[str] | None = None,
        strict_chains: bool = True,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.image_root, self.karpathy, self.entities = Path(image_root), Path(karpathy), Path(entities)
        self.classes = tuple(classes)
        self.unrelated = None if unrelated is None else Path(unrelated)
        self.strict_chains = strict_chains
        self._check_classes()

    def _check_classes(self) -> None:
        if not self.classes or len(set(self.classes)) < len(self.classes) or not set(self.classes) <= set(TYPES):
            raise ConfigError(f"`classes` is {list(self.classes)}: give some of {', '.join(TYPES)}, each once.")
        if self._matcher is not None and self._matcher.class_names != self.classes:
            raise ConfigError(
                f"`matcher` knows the classes {', '.join(self._matcher.class_names[:4])}, but `classes` is "
                f"{', '.join(self.classes)}: name the same in the same order, or leave `matcher` out."
            )

    @cached_property
    def _read(self) -> tuple[Tables, AnnotatedPhrases]:
        places = (self.karpathy, self.entities, self.image_root)
        return read_entities(*places, self.classes, self.unrelated, self.cache_dir, strict=self.strict_chains)

    def read(self) -> Tables:
        """Return the tables of the data set, parsed once and cached in `cache_dir`."""
        return self._read[0]

    @property
    def matcher(self) -> PhraseMatcher:
        """Reads captions that have no annotation."""
        if self._matcher is None:
            self._matcher = LexiconMatcher(self.classes, self._annotated, self.tables.fingerprint)
        return self._matcher

    def _annotated(self) -> Iterator[tuple[str, frozenset[int]]]:
        """Give every annotated phrase with its classes."""
        for text, phrases in zip(self.tables.texts, self._read[1].of(np.arange(len(self.tables.texts))), strict=True):
            for start, end, classes in phrases:
                yield text[start:end], classes

    @cached_property
    def _mentions(self) -> NDArray[np.bool_]:
        return self._read[1].mentions(len(self.classes))

    def phrases(self, rows: NDArray[np.int64]) -> list[list[Phrase]]:
        """Return the annotated phrases of captions, in order, each with the classes that it names.

        Args:
            rows: `[R]` caption rows.
        """
        return self._read[1].of(rows)

    def named(self, texts: Sequence[str], sources: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return `[R, C]` bool, the classes that new captions name.

        Args:
            texts: R captions that are not in the data set.
            sources: `[R]` row of the caption that each was edited from, whose phrases that are left count; -1 where it
                was written without one, which `matcher` reads.
        """
        found = np.zeros((len(texts), len(self.classes)), dtype=bool)
        edited, written = (np.flatnonzero(which).tolist() for which in (sources >= 0, sources < 0))
        found[written] = self.matcher.mentions([texts[row] for row in written])
        originals = sources[edited]
        annotated = zip(edited, self.tables.texts.take(originals), self.phrases(originals), strict=True)
        for row, source, phrases in annotated:
            for phrase in carried(source, phrases, texts[row]):
                found[row, list(phrase.classes)] = True
        return found

    def named_in(self, made: SyntheticSet, *, edited: bool) -> NDArray[np.bool_]:
        """Return `[N, C]` bool, the classes that the captions of a synthetic set name.

        Args:
            made: the set, N pairs.
            edited: whether its captions are those of their sources, edited.
        """
        if not edited:
            return super().named_in(made, edited=False)
        return self.named(list(made.texts), rows_of(self.tables.caption_ids, made.source_caption_ids))
