"""Decides, before any pixel is touched, which classes and words leave each image and caption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.captions import remove_phrases
from synth.config import SynthesisConfig
from synth.rules import Rule
from synth.selection import Rejection, Removal, candidates, unique

_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """One counterfactual to make.

    Attributes:
        row: image row of the source.
        removal: what to remove.
        caption: caption row of the source, -1 for a query.
        text: the edited caption, "" for a query.
    """

    row: int
    removal: Removal
    caption: int = -1
    text: str = ""


class Planner:
    """Draws removals and captions; each image has random numbers of its own, from the seed and its id.

    Args:
        config: the synthesis; its data must be prepared.

    Attributes:
        judged: number of candidate classes that the rules of selection judged so far.
        rejected: how many of them each rule rejected.
    """

    def __init__(self, config: SynthesisConfig) -> None:
        self._config = config
        self._tables = config.data.tables
        self._matcher = config.data.matcher
        self.judged = 0
        self.rejected: Counter[Rule] = Counter()

    def rows(self, splits: Sequence[str]) -> NDArray[np.int64]:
        """Return the image rows to look at, ascending: all of these splits, or `max_images` of them drawn by seed."""
        rows = self._tables.rows(*splits)
        most = self._config.max_images
        if most is None or most >= len(rows):
            return rows
        return np.sort(np.random.default_rng(self._config.seed).choice(rows, most, replace=False))

    def queries(self, rows: NDArray[np.int64]) -> Iterator[Plan | Rule]:
        """Yield one removal per image, drawn among its distinct ones whatever the captions say."""
        for row in rows.tolist():
            found = self._removals(row)
            if isinstance(found, Rule):
                yield found
                continue
            distinct = unique(found)
            yield Plan(row, distinct[self._rng(row).integers(len(distinct))])

    def pairs(self, rows: NDArray[np.int64]) -> Iterator[Plan | Rule]:
        """Yield one pair per image: of its captions in drawn order, the first that loses a class and keeps another."""
        mentions = self._config.data.mentions()
        for start in range(0, len(rows), _CHUNK):
            attempts = [self._attempts(row, mentions) for row in rows[start : start + _CHUNK].tolist()]
            yield from self._first_that_works(attempts)

    def _rng(self, row: int) -> np.random.Generator:
        return np.random.default_rng((self._config.seed, int(self._tables.image_ids[row])))

    def _removals(self, row: int) -> list[Removal] | Rule:
        tables, config = self._tables, self._config
        objects = slice(tables.object_offsets[row], tables.object_offsets[row + 1])
        x, y, width, height = tables.boxes[objects].T
        corners = np.stack([x, y, x + width, y + height], axis=1)
        size = (float(tables.widths[row]), float(tables.heights[row]))
        judged = candidates(corners, tables.categories[objects], size, config.alpha1, config.alpha2, config.alpha3)
        self.judged += len(judged)
        self.rejected.update(found.rule for found in judged if isinstance(found, Rejection))
        if len(judged) < 2:
            return Rule.FEW_CLASSES
        return [found for found in judged if isinstance(found, Removal)] or Rule.NOT_REMOVABLE

    def _attempts(self, row: int, mentions: NDArray[np.bool_]) -> Iterator[Plan | Rule]:
        """Yield what can be tried for an image, and the rule against each caption that cannot."""
        found = self._removals(row)
        if isinstance(found, Rule):
            yield found
            return
        yield Rule.NOT_NAMED
        rng, offsets = self._rng(row), self._tables.caption_offsets
        for caption in rng.permutation(np.arange(offsets[row], offsets[row + 1])).tolist():
            named = frozenset(np.flatnonzero(mentions[caption]).tolist())
            fitting = [removal for removal in found if removal.candidate in named]
            for index in rng.permutation(len(fitting)).tolist():
                good = not fitting[index].kept.isdisjoint(named)
                yield Plan(row, fitting[index], caption) if good else Rule.NO_KEPT_WORD

    def _first_that_works(self, attempts: Sequence[Iterator[Plan | Rule]]) -> list[Plan | Rule]:
        """Try the attempts of many images side by side, so that the matcher sees many captions at once."""
        outcomes: list[Plan | Rule] = [Rule.FEW_CLASSES] * len(attempts)
        waiting = list(range(len(attempts)))
        while waiting:
            tried = {index: self._next(attempts[index], outcomes, index) for index in waiting}
            drafts = {index: plan for index, plan in tried.items() if plan is not None}
            for index, edited in zip(drafts, self._edit(list(drafts.values())), strict=True):
                outcomes[index] = _further(outcomes[index], edited)
            waiting = [index for index in drafts if isinstance(outcomes[index], Rule)]
        return outcomes

    def _next(self, attempts: Iterator[Plan | Rule], outcomes: list[Plan | Rule], index: int) -> Plan | None:
        for attempt in attempts:
            if isinstance(attempt, Plan):
                return attempt
            outcomes[index] = _further(outcomes[index], attempt)
        return None

    def _edit(self, plans: Sequence[Plan]) -> list[Plan | Rule]:
        if not plans:
            return []
        captions = self._tables.texts.take(np.array([plan.caption for plan in plans], dtype=np.int64))
        edits = [
            remove_phrases(caption, phrases, plan.removal.removed, plan.removal.kept)
            for plan, caption, phrases in zip(plans, captions, self._matcher.phrases(captions), strict=True)
        ]
        named = self._matcher.mentions([edit if isinstance(edit, str) else "" for edit in edits])
        return [_recheck(*found) for found in zip(plans, edits, named, strict=True)]


def _recheck(plan: Plan, edit: str | Rule, named: NDArray[Any]) -> Plan | Rule:
    """Let an edited caption pass if the matcher, reading it afresh, finds a kept class and no removed one."""
    if isinstance(edit, Rule):
        return edit
    if named[list(plan.removal.removed)].any():
        return Rule.STILL_NAMED
    return replace(plan, text=edit) if named[list(plan.removal.kept)].any() else Rule.NO_KEPT_WORD


def _further(before: Plan | Rule, after: Plan | Rule) -> Plan | Rule:
    if isinstance(before, Rule) and isinstance(after, Rule):
        return max(before, after, key=Rule.stage)
    return after
