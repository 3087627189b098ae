"""The words and glyphs of Scenes, read from `vocabulary.yaml` into typed records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

Pair = tuple[str, str]


class Noun(NamedTuple):
    """A noun in the singular and the plural."""

    one: str
    many: str

    @classmethod
    def parse(cls, text: str) -> Noun:
        """Read "man/men", or "dog" with a regular plural.

        Example:
            >>> Noun.parse("man/men"), Noun.parse("hot dog").many
            (Noun(one='man', many='men'), 'hot dogs')
        """
        one, _, many = text.partition("/")
        return cls(one, many or f"{one}s")


class Verb(NamedTuple):
    """A verb after several subjects, after one, and as a participle."""

    many: str
    one: str
    participle: str

    @classmethod
    def parse(cls, text: str) -> Verb:
        """Read "run/runs/running"."""
        many, one, participle = text.split("/")
        return cls(many, one, participle)


@dataclass(frozen=True)
class Glyph:
    """One way in which OpenMoji shows a class.

    Attributes:
        text: the code point as a string.
        nouns: what people call it.
        colour: palette family of its main colour, or None.
        paint: families that may replace it.
        said: whether captions may name the colour.
        tones: whether skin and hair vary.
        erase: palette family that is made transparent, or None.
        zone: where it belongs.
        post: whether it stands on a post.
    """

    text: str
    nouns: tuple[Noun, ...]
    colour: str | None
    paint: tuple[str, ...]
    said: bool
    tones: bool
    erase: str | None
    zone: str
    post: bool


@dataclass(frozen=True)
class SceneClass:
    """How one of COCO's classes appears in Scenes.

    Attributes:
        name: COCO's name.
        category_id: COCO's id, 1 to 90.
        group: COCO's supercategory.
        stage: "outdoors" or "indoors".
        kind: decides its verbs.
        zone: "ground", "water", "air", "sky" or "wall".
        size: longer side as a share of the picture's side.
        most: how many a picture shows at most.
        flip: whether it may be mirrored.
        nouns: what people call it.
        glyphs: its OpenMoji glyphs, empty where there is none.
    """

    name: str
    category_id: int
    group: str
    stage: str
    kind: str
    zone: str
    size: float
    most: int
    flip: bool
    nouns: tuple[Noun, ...]
    glyphs: tuple[Glyph, ...]


@dataclass(frozen=True)
class Place:
    """A place: what it is called and which classes people expect there."""

    name: str
    stage: str
    phrases: tuple[str, ...]
    over: tuple[str, ...]
    welcomes: frozenset[str]


class Action(NamedTuple):
    """What a subject (class or kind) does with an object (class or kind)."""

    subject: str
    target: str
    verbs: tuple[Verb, ...]


@dataclass(frozen=True)
class Vocabulary:
    """Everything Scenes can show and say."""

    classes: Mapping[str, SceneClass]
    places: Mapping[str, Place]
    pairs: Mapping[str, tuple[Pair, ...]]
    verbs: Mapping[str, tuple[Verb, ...]]
    actions: tuple[Action, ...]

    def actions_of(self, subject: str, target: str) -> tuple[Verb, ...]:
        """Return the verbs that join these two classes, empty where none does."""
        subjects, targets = ({name, self.classes[name].kind} for name in (subject, target))
        fitting = (action.verbs for action in self.actions if action.subject in subjects and action.target in targets)
        return next(fitting, ())


@cache
def vocabulary() -> Vocabulary:
    """Return the vocabulary, read once."""
    import yaml

    raw = yaml.safe_load(Path(__file__).with_name("vocabulary.yaml").read_text(encoding="utf-8"))
    return Vocabulary(
        classes={name: _scene_class(name, entry) for name, entry in raw["classes"].items()},
        places={name: _place(name, entry) for name, entry in raw["places"].items()},
        pairs={stage: tuple((one, other) for one, other in pairs) for stage, pairs in raw["pairs"].items()},
        verbs={kind: _verbs(texts) for kind, texts in raw["kinds"].items()},
        actions=tuple(Action(subject, target, _verbs(texts)) for subject, target, texts in raw["actions"]),
    )


def _verbs(texts: list[str]) -> tuple[Verb, ...]:
    return tuple(map(Verb.parse, texts))


def _nouns(texts: list[str]) -> tuple[Noun, ...]:
    return tuple(map(Noun.parse, texts))


def _place(name: str, entry: Mapping[str, Any]) -> Place:
    return Place(name, entry["stage"], tuple(entry["phrases"]), tuple(entry["over"]), frozenset(entry["welcomes"]))


def _scene_class(name: str, entry: Mapping[str, Any]) -> SceneClass:
    return SceneClass(
        name=name,
        category_id=entry["id"],
        group=entry["group"],
        stage=entry["stage"],
        kind=entry["kind"],
        zone=entry.get("zone", "ground"),
        size=entry["size"],
        most=entry["most"],
        flip=entry.get("flip", True),
        nouns=_nouns(entry["nouns"]),
        glyphs=tuple(_glyph(glyph, entry) for glyph in entry.get("glyphs", [])),
    )


def _glyph(glyph: Mapping[str, Any], entry: Mapping[str, Any]) -> Glyph:
    return Glyph(
        text=chr(int(glyph["glyph"], 16)),
        nouns=_nouns(glyph.get("nouns", entry["nouns"])),
        colour=glyph.get("colour"),
        paint=tuple(glyph.get("paint", [])),
        said="colour" in glyph and not glyph.get("unsaid", False),
        tones=glyph.get("tones", False),
        erase=glyph.get("erase"),
        zone=glyph.get("zone", entry.get("zone", "ground")),
        post=glyph.get("post", False),
    )
