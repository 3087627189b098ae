"""The words of BirdScenes, read from `birds.yaml` into typed records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

KINDS = ("landbird", "waterbird")
PLACES = ("land", "water")


@dataclass(frozen=True)
class Species:
    """A species of birds.

    Attributes:
        name: what captions call it.
        kind: position in `KINDS`.
        glyph: its character in OpenMoji, or None.
        words: what a description of a cut-out may call it.
    """

    name: str
    kind: int
    glyph: str | None
    words: tuple[str, ...]


@dataclass(frozen=True)
class BirdPlace:
    """A place that is painted.

    Attributes:
        name: its name.
        kind: position in `PLACES`.
        painter: what paints it.
    """

    name: str
    kind: int
    painter: str


@dataclass(frozen=True)
class PlaceWords:
    """What captions say of a place: where something is, and what is to be seen."""

    phrases: tuple[str, ...]
    nouns: tuple[str, ...]


@dataclass(frozen=True)
class BirdVocabulary:
    """Everything that BirdScenes can show and say.

    Attributes:
        species: all species.
        places: the painted places.
        place_words: the words of each painted place, and of the kinds of places.
        templates: sentences by what they tell: bird, both, place.
    """

    species: tuple[Species, ...]
    places: tuple[BirdPlace, ...]
    place_words: Mapping[str, PlaceWords]
    templates: Mapping[str, tuple[str, ...]]


@cache
def bird_vocabulary() -> BirdVocabulary:
    """Return the vocabulary, read once."""
    import yaml

    raw = yaml.safe_load(Path(__file__).with_name("birds.yaml").read_text(encoding="utf-8"))
    entries = {name: entry for places in raw["places"].values() for name, entry in places.items()} | raw["kinds"]
    return BirdVocabulary(
        species=tuple(_species(name, entry) for name, entry in raw["species"].items()),
        places=tuple(
            BirdPlace(name, PLACES.index(kind), entry["painter"])
            for kind, places in raw["places"].items()
            for name, entry in places.items()
        ),
        place_words={
            name: PlaceWords(tuple(entry["phrases"]), tuple(entry["nouns"])) for name, entry in entries.items()
        },
        templates={part: tuple(texts) for part, texts in raw["templates"].items()},
    )


def _species(name: str, entry: Mapping[str, Any]) -> Species:
    glyph = chr(int(str(entry["glyph"]), 16)) if "glyph" in entry else None
    return Species(name, KINDS.index(entry["kind"]), glyph, tuple(entry["words"]))
