"""Decides, before any pixel is touched, which classes and words leave each image and caption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from synth.captioning import edits
from synth.config import SynthesisConfig
from synth.rules import Rule
from synth.selection import Rejection, Removal, select, unique

_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """One counterfactual to make.

    Attributes:
        row: image row of the source.
        removal: what to remove.
        caption: caption row of the source, -1 for a query.
        text: the caption; "" for a query, and until the image is there where the caption is written from it.
    """

    row: int
    removal: Removal
    caption: int = -1
    text: str = ""


Judged: TypeAlias = tuple[int, int | None, Rule]
"""A rejected candidate, the class that it would cover where there is one, and the rule."""


class Planner:
    """Draws removals and captions; each image has random numbers of its own, from the seed and its id.

    Args:
        config: the synthesis; its data must be prepared.

    Attributes:
        judged: number of candidate classes that the rules of selection judged so far.
        rejected: how many of them were rejected, by candidate, class in the way and rule.
    """

    def __init__(self, config: SynthesisConfig) -> None:
        self._config = config
        self._tables = config.data.tables
        self.judged = 0
        self.rejected: Counter[Judged] = Counter()

    def rows(self, splits: Sequence[str]) -> NDArray[np.int64]:
        """Return the image rows to look at, ascending: all of these splits, or `max_images` of them drawn by seed."""
        rows = self._tables.rows(*splits)
        most = self._config.max_images
        if most is None or most >= len(rows):
            return rows
        return np.sort(np.random.default_rng(self._config.seed).choice(rows, most, replace=False))

    def queries(self, rows: NDArray[np.int64]) -> Iterator[list[Plan] | Rule]:
        """Yield for each image one of its distinct removals, drawn, or all of them, whatever the captions say."""
        for row, found in self._removals(rows):
            if isinstance(found, Rule):
                yield found
                continue
            distinct = unique(found)
            if self._config.queries_per_image == "one":
                distinct = [distinct[self._rng(row).integers(len(distinct))]]
            yield [Plan(row, removal) for removal in distinct]

    def pairs(self, rows: NDArray[np.int64]) -> Iterator[list[Plan] | Rule]:
        """Yield for each image its pair, of the first caption in drawn order that works, or one of each that does."""
        mentions = self._config.data.mentions() if self._config.caption.edits_source else None
        stream = self._removals(rows)
        while chunk := list(islice(stream, _CHUNK)):
            attempts = [self._attempts(row, found, mentions) for row, found in chunk]
            outcomes = iter(self._first_that_works([each for group in attempts for each in group]))
            for group in attempts:
                yield _gathered([next(outcomes) for _ in group])

    def _rng(self, row: int) -> np.random.Generator:
        return np.random.default_rng((self._config.seed, int(self._tables.image_ids[row])))

    def _removals(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, list[Removal] | Rule]]:
        """Yield each image row with its valid removals, or the rule that says why it has none."""
        for row, judged in zip(rows.tolist(), select(self._tables, rows, self._config.selection), strict=True):
            self.judged += len(judged)
            rejected = (each for each in judged if isinstance(each, Rejection))
            self.rejected.update((each.candidate, each.against, each.rule) for each in rejected)
            found = [each for each in judged if isinstance(each, Removal)]
            yield row, found or (Rule.FEW_CLASSES if len(judged) < 2 else Rule.NOT_REMOVABLE)

    def _attempts(
        self, row: int, found: list[Removal] | Rule, mentions: NDArray[np.bool_] | None
    ) -> list[Iterator[Plan | Rule]]:
        """Return what can be tried for an image and the rules against what cannot: in turn, or for each caption."""
        if isinstance(found, Rule):
            return [iter([found])]
        rng, offsets = self._rng(row), self._tables.caption_offsets
        captions = np.arange(offsets[row], offsets[row + 1])
        one = self._config.captions_per_image == "one" or not len(captions)
        drawn = rng.permutation(captions) if one else captions
        plans = [[Plan(row, removal, caption) for removal in found] for caption in drawn.tolist()]
        tried = [_of_caption(some, None if mentions is None else mentions[some[0].caption], rng) for some in plans]
        groups = [tried] if one else [[each] for each in tried]
        return [chain([Rule.NOT_NAMED], *group) for group in groups]

    def _first_that_works(self, attempts: Sequence[Iterator[Plan | Rule]]) -> list[Plan | Rule]:
        """Follow many attempts side by side, so that the matcher sees many captions at once."""
        outcomes: list[Plan | Rule] = [Rule.FEW_CLASSES] * len(attempts)
        waiting = list(range(len(attempts)))
        while waiting:
            tried = {index: self._next(attempts[index], outcomes, index) for index in waiting}
            drafts = {index: plan for index, plan in tried.items() if plan is not None}
            for index, edited in zip(drafts, self._with_captions(list(drafts.values())), strict=True):
                outcomes[index] = _further(outcomes[index], edited)
            waiting = [index for index in drafts if isinstance(outcomes[index], Rule)]
        return outcomes

    def _next(self, attempts: Iterator[Plan | Rule], outcomes: list[Plan | Rule], index: int) -> Plan | None:
        for attempt in attempts:
            if isinstance(attempt, Plan):
                return attempt
            outcomes[index] = _further(outcomes[index], attempt)
        return None

    def _with_captions(self, plans: Sequence[Plan]) -> list[Plan | Rule]:
        if self._config.caption.needs_image:
            return list(plans)
        written = zip(plans, edits(self._config, plans), strict=True)
        return [text if isinstance(text, Rule) else replace(plan, text=text) for plan, text in written]


def _of_caption(
    plans: Sequence[Plan], mentioned: NDArray[np.bool_] | None, rng: np.random.Generator
) -> Iterator[Plan | Rule]:
    """Yield the plans that go with a caption in drawn order: all, where it need not name what is removed."""
    named = None if mentioned is None else frozenset(np.flatnonzero(mentioned).tolist())
    fitting = [plan for plan in plans if named is None or plan.removal.candidate in named]
    for index in rng.permutation(len(fitting)).tolist():
        good = named is None or not fitting[index].removal.kept.isdisjoint(named)
        yield fitting[index] if good else Rule.NO_KEPT_WORD


def _gathered(outcomes: Sequence[Plan | Rule]) -> list[Plan] | Rule:
    """Return the plans of an image, or the rule that the best of its attempts failed."""
    plans = [outcome for outcome in outcomes if isinstance(outcome, Plan)]
    return plans or furthest(outcome for outcome in outcomes if isinstance(outcome, Rule))


def furthest(rules: Iterable[Rule]) -> Rule:
    """Return the rule of the latest stage."""
    return max(rules, key=Rule.stage)


def _further(before: Plan | Rule, after: Plan | Rule) -> Plan | Rule:
    return furthest([before, after]) if isinstance(before, Rule) and isinstance(after, Rule) else after
