"""What a caption strategy is asked about a counterfactual, and what the data set reads in its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from datamodules.phrases import Phrase
from synth.captions import CaptionRequest
from synth.objects import visible
from synth.rules import Rule

if TYPE_CHECKING:
    from synth.config import SynthesisConfig
    from synth.fills import Pixels
    from synth.plan import Plan

Answers: TypeAlias = list[str | Rule]


def edits(config: SynthesisConfig, plans: Sequence[Plan]) -> Answers:
    """Return the captions of plans, written by a strategy that needs no image, and read by the data set afresh."""
    if not plans:
        return []
    rows = np.array([plan.caption for plan in plans], dtype=np.int64)
    captions = config.data.tables.texts.take(rows)
    phrases = config.data.phrases(rows) if config.caption.edits_source else [[] for _ in captions]
    asked = [request(config, *each) for each in zip(plans, captions, phrases, strict=True)]
    return checked(config, plans, config.caption.write(asked))


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


def checked(config: SynthesisConfig, plans: Sequence[Plan], answers: Sequence[str | Rule]) -> Answers:
    """Let a caption pass if the data set, reading it afresh, finds a kept class and no removed one.

    Args:
        config: the synthesis.
        plans: the counterfactuals.
        answers: the caption of each, or the rule that forbade it, which stays.

    Returns:
        The caption, or the rule against it, for each.
    """
    texts = [answer if isinstance(answer, str) else "" for answer in answers]
    sources = [plan.caption if config.caption.edits_source else -1 for plan in plans]
    named = config.data.named(texts, np.array(sources, dtype=np.int64))
    found: Answers = []
    for plan, answer, classes in zip(plans, answers, named, strict=True):
        if isinstance(answer, Rule):
            found.append(answer)
        elif classes[list(plan.removal.removed)].any():
            found.append(Rule.STILL_NAMED)
        else:
            found.append(answer if classes[list(plan.removal.kept)].any() else Rule.NO_KEPT_WORD)
    return found
