"""Which classes a picture shows, and where: the part of Scenes that plants the correlation.

The model.  n pairs of partner classes are spread over two stages, outdoors and indoors; stage s has n_s >= 2 pairs.
For each picture independently:

1. draw a stage with probability n_s / n;
2. with probability p, show one pair of the stage, both partners, each pair equally often; else show two different pairs
   of it, one member of each, all equally often;
3. add 0, 1 or 2 unpaired classes of the stage, whatever step 2 gave;
4. choose the place of the stage where most of these classes are at home.

A paired class a with partner b is then present with probability P(a) = (n_s / n) * (1 / n_s) = 1 / n, whatever p is,
and P(b | a) = p. With m = 1 / n and

    p(rho) = m + rho * (1 - m)

the phi coefficient of the two partners over the pictures is (P(b | a) - m) / (1 - m) = rho exactly: rho = 0 makes them
independent, rho = 1 always shows them together, and no class gets more or less frequent in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from random import Random

from datamodules.errors import ConfigError
from datamodules.scenes.vocabulary import Pair, Place, Vocabulary

_EXTRA_CLASSES = ((0, 1, 2), (0.35, 0.45, 0.2))
_COUNTS = ((1, 2, 3), (0.72, 0.18, 0.1))
_MOST_OBJECTS = 6


@dataclass(frozen=True)
class Cast:
    """What one picture shows: a place, and how many objects of each class."""

    place: Place
    counts: Mapping[str, int]


@dataclass(frozen=True)
class SceneModel:
    """Draws casts whose partner classes correlate with phi = rho.

    Attributes:
        vocabulary: classes and places.
        pairs: partner classes per stage, at least two for each stage.
        extras: unpaired classes per stage.

    Example:
        >>> from datamodules.scenes.vocabulary import vocabulary
        >>> model = SceneModel.of(vocabulary(), vocabulary().classes)
        >>> model.pair_count, model.partner_probability(0.0) * model.pair_count
        (12, 1.0)
    """

    vocabulary: Vocabulary
    pairs: Mapping[str, tuple[Pair, ...]]
    extras: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, vocabulary: Vocabulary, classes: Collection[str], pairs: Sequence[Pair] | None = None) -> SceneModel:
        """Build the model for the classes that have objects.

        Args:
            vocabulary: classes, places and the usual pairs.
            classes: names of the classes that can be drawn.
            pairs: partner classes; None takes the usual ones, and where these leave a stage fewer than two, pairs up
                unpaired classes of the stage in COCO's order. A stage that still has fewer than two is left out.

        Raises:
            ConfigError: a pair cannot be drawn, or no stage has two pairs.
        """
        if pairs is None:
            staged = {stage: _usual_pairs(vocabulary, set(classes), stage) for stage in vocabulary.pairs}
        else:
            _check(pairs, vocabulary, classes)
            staged = {stage: _of_stage(vocabulary, pairs, stage) for stage in vocabulary.pairs}
            _check_stages(staged)
        staged = {stage: found for stage, found in staged.items() if len(found) >= 2}
        if not staged:
            raise ConfigError(
                f"scenes.cutouts gives {len(classes)} classes, too few for two pairs outdoors or two pairs indoors: "
                "add cut-outs of more classes."
            )
        paired = {name for found in staged.values() for pair in found for name in pair}
        unpaired = [name for name in vocabulary.classes if name in classes and name not in paired]
        extras = {stage: tuple(n for n in unpaired if vocabulary.classes[n].stage == stage) for stage in staged}
        return cls(vocabulary, staged, extras)

    @cached_property
    def pair_count(self) -> int:
        """Number of pairs n; every paired class is in 1 / n of the pictures."""
        return sum(map(len, self.pairs.values()))

    def partner_probability(self, rho: float) -> float:
        """Return P(partner present | class present) for this correlation."""
        return 1 / self.pair_count + rho * (1 - 1 / self.pair_count)

    def draw(self, rho: float, rng: Random) -> Cast:
        """Return the cast of one picture."""
        stage = rng.choices(list(self.pairs), [len(found) for found in self.pairs.values()])[0]
        if rng.random() < self.partner_probability(rho):
            names = list(rng.choice(self.pairs[stage]))
        else:
            names = [rng.choice(pair) for pair in rng.sample(self.pairs[stage], 2)]
        wanted = rng.choices(*_EXTRA_CLASSES)[0]
        names += rng.sample(self.extras[stage], min(wanted, len(self.extras[stage])))
        return Cast(self._place(stage, names, rng), self._counts(names, rng))

    def _place(self, stage: str, names: Sequence[str], rng: Random) -> Place:
        places = [place for place in self.vocabulary.places.values() if place.stage == stage]
        at_home = [len(place.welcomes.intersection(names)) for place in places]
        return rng.choice([place for place, count in zip(places, at_home, strict=True) if count == max(at_home)])

    def _counts(self, names: Sequence[str], rng: Random) -> dict[str, int]:
        counts, room = {}, _MOST_OBJECTS - len(names)
        for name in names:
            count = min(rng.choices(*_COUNTS)[0], self.vocabulary.classes[name].most, room + 1)
            counts[name], room = count, room - count + 1
        return counts


def _of_stage(vocabulary: Vocabulary, pairs: Sequence[Pair], stage: str) -> tuple[Pair, ...]:
    return tuple((one, other) for one, other in pairs if vocabulary.classes[one].stage == stage)


def _usual_pairs(vocabulary: Vocabulary, classes: Set[str], stage: str) -> tuple[Pair, ...]:
    pairs = [pair for pair in vocabulary.pairs[stage] if classes >= set(pair)]
    paired = {name for pair in pairs for name in pair}
    free = [n for n, entry in vocabulary.classes.items() if entry.stage == stage and n in classes - paired]
    return (*pairs, *list(_couples(free))[: max(0, 2 - len(pairs))])


def _couples(names: Sequence[str]) -> Iterator[Pair]:
    return ((one, other) for one, other in zip(names[::2], names[1::2], strict=False))


def _check(pairs: Sequence[Pair], vocabulary: Vocabulary, classes: Collection[str]) -> None:
    seen: set[str] = set()
    for name in (name for pair in pairs for name in pair):
        if name not in vocabulary.classes:
            raise ConfigError(f"scenes.pairs names '{name}', which is none of COCO's 80 class names: correct it.")
        if name not in classes:
            raise ConfigError(f"scenes.pairs names '{name}', but there is no cut-out of it: choose another class.")
        if name in seen:
            raise ConfigError(f"scenes.pairs names '{name}' twice, but a class has one partner: name it once.")
        seen.add(name)


def _check_stages(staged: Mapping[str, Sequence[Pair]]) -> None:
    for stage, pairs in staged.items():
        if len(pairs) == 1:
            raise ConfigError(
                f"scenes.pairs has one pair {stage}, {' and '.join(pairs[0])}, but a stage needs two or none: "
                "add one or leave it out."
            )
