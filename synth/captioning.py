"""What a caption strategy is asked about a counterfactual, and what the matcher says to its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from datamodules.phrases import Phrase, PhraseMatcher
from synth.captions import CaptionRequest
from synth.objects import visible
from synth.rules import Rule
from synth.selection import Removal

if TYPE_CHECKING:
    from synth.config import SynthesisConfig
    from synth.fills import Pixels
    from synth.plan import Plan

Answers: TypeAlias = list[str | Rule]


def edits(config: SynthesisConfig, plans: Sequence[Plan]) -> Answers:
    """Return the captions of plans, written by a strategy that needs no image, and read by the matcher afresh."""
    if not plans:
        return []
    matcher = config.data.matcher
    captions = config.data.tables.texts.take(np.array([plan.caption for plan in plans], dtype=np.int64))
    phrases = matcher.phrases(captions) if config.caption.edits_source else [[] for _ in captions]
    asked = [request(config, *each) for each in zip(plans, captions, phrases, strict=True)]
    return checked(matcher, [plan.removal for plan in plans], config.caption.write(asked))


def request(
    config: SynthesisConfig, plan: Plan, caption: str, phrases: Sequence[Phrase] = (), image: Pixels | None = None
) -> CaptionRequest:
    """Return what a strategy is asked about one counterfactual.

    Args:
        config: the synthesis.
        plan: the counterfactual.
        caption: text of its source caption.
        phrases: the noun phrases of that.
        image: `[H, W, 3]` uint8, the filled image where the strategy needs it.
    """
    tables, removal = config.data.tables, plan.removal
    return CaptionRequest(
        text=caption,
        phrases=phrases,
        removed=removal.removed,
        kept=removal.kept,
        class_names=tables.class_names,
        counts=visible(tables, plan.row, removal),
        seed=(config.seed, int(tables.image_ids[plan.row]), removal.candidate, int(tables.caption_ids[plan.caption])),
        image=image,
    )


def checked(matcher: PhraseMatcher, removals: Sequence[Removal], answers: Sequence[str | Rule]) -> Answers:
    """Let a caption pass if the matcher, reading it afresh, finds a kept class and no removed one.

    Args:
        matcher: finds the classes that a caption names.
        removals: what each image lost.
        answers: the caption of each, or the rule that forbade it, which stays.

    Returns:
        The caption, or the rule against it, for each.
    """
    named = matcher.mentions([answer if isinstance(answer, str) else "" for answer in answers])
    found: Answers = []
    for removal, answer, classes in zip(removals, answers, named, strict=True):
        if isinstance(answer, Rule):
            found.append(answer)
        elif classes[list(removal.removed)].any():
            found.append(Rule.STILL_NAMED)
        else:
            found.append(answer if classes[list(removal.kept)].any() else Rule.NO_KEPT_WORD)
    return found
