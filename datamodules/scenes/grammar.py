"""Writes captions as people do: what is there and what it does, where, and next to what; sometimes leaving things out.

A caption is a subject with a predicate ("two dogs chase a frisbee"), up to two companions ("with a bike nearby") and a
place ("in the park"). Numbers, colours, sizes, sides and heights are said only where they are true of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from datamodules.scenes.picture import Scene, SceneObject
from datamodules.scenes.vocabulary import Noun, Verb, Vocabulary

_NAMED = 0.74  # how often a class that is there is named
_PLACE, _PLACE_ALONE = 0.6, 0.93
_COLOUR, _SIZE = 0.35, 0.12
_LARGE, _SMALL = 0.42, 0.21  # longer side as a share of the picture's
_NEAR = 0.15  # gap between boxes as a share of the picture's side
_LIVELY = ("person", "animal", "grazer", "vehicle", "boat", "air", "sky")
_FRAMES = ("plain", "participle", "progressive", "there", "still", "photo")
_FRAME_WEIGHTS = (30, 28, 10, 9, 20, 3)


@dataclass(frozen=True)
class Caption:
    """A caption and the names of the classes that it names."""

    text: str
    classes: frozenset[str]


@dataclass(frozen=True)
class _Group:
    """All objects of one class in a picture."""

    name: str
    kind: str
    objects: tuple[SceneObject, ...]

    @property
    def plural(self) -> bool:
        return len(self.objects) > 1

    @cached_property
    def edges(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the smallest box around all objects."""
        boxes = [one.box for one in self.objects]
        left, top = min(x for x, _, _, _ in boxes), min(y for _, y, _, _ in boxes)
        return left, top, max(x + w for x, _, w, _ in boxes), max(y + h for _, y, _, h in boxes)

    @cached_property
    def behaviour(self) -> str:
        """The kind whose verbs fit where the objects are."""
        zone = self.objects[0].zone
        if zone == "water":
            return "boat"
        return zone if zone in ("sky", "wall") else self.kind

    @property
    def aloft(self) -> bool:
        return self.objects[0].zone in ("sky", "air", "wall")

    @cached_property
    def same(self) -> bool:
        return len({(one.nouns, one.colour) for one in self.objects}) == 1


class CaptionWriter:
    """Writes captions for scenes.

    Args:
        vocabulary: nouns, verbs and places.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def write(self, scene: Scene, count: int, rng: Random) -> list[Caption]:
        """Return `count` captions, different ones as far as a few tries find them."""
        captions: list[Caption] = []
        for attempt in range(3 * count):
            caption = _Sentence(self._vocabulary, scene, rng).caption()
            if caption not in captions or attempt >= 2 * count:
                captions.append(caption)
            if len(captions) == count:
                break
        return captions


class _Sentence:
    """One caption in the making."""

    def __init__(self, vocabulary: Vocabulary, scene: Scene, rng: Random) -> None:
        self._vocabulary, self._scene, self._rng = vocabulary, scene, rng
        self._side = scene.picture.width
        members: dict[str, list[SceneObject]] = {}
        for one in scene.objects:
            members.setdefault(one.name, []).append(one)
        self._groups = [_Group(name, vocabulary.classes[name].kind, tuple(m)) for name, m in members.items()]

    def caption(self) -> Caption:
        rng = self._rng
        named = [group for group in self._groups if rng.random() < _NAMED] or [rng.choice(self._groups)]
        named.sort(key=lambda group: rng.random() - (0.8 if group.kind in _LIVELY else 0))
        subject, others = named[0], named[1:]
        frame = rng.choices(_FRAMES, _FRAME_WEIGHTS)[0]
        clause, rest = self._clause(subject, others, frame)
        words = self._arranged(clause, self._companions(rest), self._place(subject, alone=not others))
        ending = "." if rng.random() < 0.7 or frame == "progressive" else ""
        return Caption(words[0].upper() + words[1:] + ending, frozenset(group.name for group in named))

    def _arranged(self, clause: str, companions: str, place: str) -> str:
        """Put the parts in one of the orders that people use."""
        if place and self._rng.random() < 0.12:
            return f"{place}, {clause}{companions}"
        if companions and self._rng.random() < 0.5:
            return f"{clause}{companions} {place}".rstrip()
        return f"{clause} {place}".rstrip() + companions

    def _clause(self, subject: _Group, others: Sequence[_Group], frame: str) -> tuple[str, Sequence[_Group]]:
        """Return what the subject does, and the groups that are not yet named."""
        head = self._noun_phrase(subject)
        if frame in ("still", "photo"):
            target, rest = others[:1], others[1:]
            tail = f" {self._relation(subject, target[0])}" if target else ""
            return ("a photo of " if frame == "photo" else "") + head + tail, rest
        for target_group in self._rng.sample(others, len(others)):
            verbs = self._vocabulary.actions_of(subject.name, target_group.name)
            if verbs and self._rng.random() < 0.75:
                predicate = self._predicate(subject, self._rng.choice(verbs), frame)
                rest = [group for group in others if group is not target_group]
                return self._opened(subject, f"{head} {predicate} {self._noun_phrase(target_group)}", frame), rest
        predicate = self._predicate(subject, self._rng.choice(self._vocabulary.verbs[subject.behaviour]), frame)
        placed = [group for group in others if self._positions(subject, group)]
        if not placed or self._rng.random() < 0.3:
            return self._opened(subject, f"{head} {predicate}", frame), others
        target_group = self._rng.choice(placed)
        position = self._rng.choice(self._positions(subject, target_group))
        clause = f"{head} {predicate} {position} {self._noun_phrase(target_group)}"
        return self._opened(subject, clause, frame), [group for group in others if group is not target_group]

    def _opened(self, subject: _Group, clause: str, frame: str) -> str:
        if frame != "there":
            return clause
        return f"there {'are' if subject.plural else 'is'} {clause}"

    def _predicate(self, subject: _Group, verb: Verb, frame: str) -> str:
        if frame in ("participle", "there"):
            return verb.participle
        if frame == "progressive":
            return f"{'are' if subject.plural else 'is'} {verb.participle}"
        return verb.many if subject.plural else verb.one

    def _relation(self, subject: _Group, target: _Group) -> str:
        positions = [*self._positions(subject, target), "and", "with"]
        return f"{self._rng.choice(positions)} {self._noun_phrase(target)}"

    def _positions(self, subject: _Group, target: _Group) -> list[str]:
        """Return the words that tell truly where the subject is, seen from the target."""
        left, top, right, bottom = subject.edges
        target_left, target_top, target_right, target_bottom = target.edges
        overlap_x = min(right, target_right) - max(left, target_left)
        overlap_y = min(bottom, target_bottom) - max(top, target_top)
        words = []
        if max(-overlap_x, -overlap_y) < _NEAR * self._side:
            words += ["next to", "near", "beside", "by"] if overlap_y > 0 else ["near", "close to"]
        if overlap_x <= 0 and overlap_y > 0:
            words.append("to the left of" if right <= target_left else "to the right of")
        if overlap_y <= 0 < overlap_x:
            words += ["above"] * (bottom <= target_top and subject.aloft)
            words += ["below"] * (top >= target_bottom and target.aloft)
        return words

    def _companions(self, groups: Sequence[_Group]) -> str:
        if not groups:
            return ""
        phrases = [self._noun_phrase(group) for group in groups]
        listed = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
        if all(group.objects[0].zone == "sky" for group in groups):
            return f" {self._rng.choice(('with', 'under'))} {listed}" + " in the sky" * (self._rng.random() < 0.5)
        return f" with {listed}{self._rng.choice(('', '', '', ' nearby', ' close by'))}"

    def _place(self, subject: _Group, *, alone: bool) -> str:
        if self._rng.random() > (_PLACE_ALONE if alone else _PLACE):
            return ""
        place = self._scene.place
        if subject.behaviour == "sky" and self._rng.random() < 0.7:
            return f"over {self._rng.choice(place.over)}"
        return self._rng.choice(place.phrases)

    def _noun_phrase(self, group: _Group) -> str:
        noun = self._noun(group)
        words = [*self._adjectives(group), noun.many if group.plural else noun.one]
        return f"{self._determiner(len(group.objects), words[0])} {' '.join(words)}"

    def _noun(self, group: _Group) -> Noun:
        same = len({one.nouns for one in group.objects}) == 1
        return self._rng.choice(group.objects[0].nouns if same else self._vocabulary.classes[group.name].nouns)

    def _adjectives(self, group: _Group) -> Iterator[str]:
        longest = [max(one.box[2:]) / self._side for one in group.objects]
        if min(longest) > _LARGE and self._rng.random() < 2 * _SIZE:
            yield self._rng.choice(("big", "large"))
        elif max(longest) < _SMALL and self._rng.random() < _SIZE:
            yield self._rng.choice(("small", "little"))
        colour = group.objects[0].colour
        if group.same and colour and self._rng.random() < _COLOUR:
            yield colour

    def _determiner(self, count: int, word: str) -> str:
        if count == 1:
            return "an" if word[0] in "aeiou" else "a"
        if count == 2:
            return "two"
        return self._rng.choice(("three", "three", "three", "several", "some"))
