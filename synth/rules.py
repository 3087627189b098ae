"""Why a candidate class or a whole image gives no counterfactual: one list of rules for counters and tables."""

from __future__ import annotations

from enum import Enum


class Rule(Enum):
    """A reason to reject, in the order in which the stages of the synthesis meet it.

    Where an image fails in several ways, the latest rule says how far it came.

    Attributes:
        value: key in `protocol.json`.
        text: what the closing table says.

    Example:
        >>> Rule.SIZE.value, Rule.SIZE.text
        ('size', 'too large (eq. 3)')
        >>> max(Rule.FEW_CLASSES, Rule.STILL_NAMED, key=Rule.stage).value
        'still_named'
    """

    text: str

    def __new__(cls, value: str, text: str) -> Rule:  # noqa: D102
        rule = object.__new__(cls)
        rule._value_ = value
        rule.text = text
        return rule

    NOTHING_KEPT = "nothing_kept", "would keep no class"
    GAP = "gap", "covers a kept class (eq. 1)"
    REGION = "region", "covers one with what joined (eq. 1)"
    SIZE = "size", "too large (eq. 3)"

    FEW_CLASSES = "few_classes", "fewer than two classes"
    NOT_REMOVABLE = "not_removable", "no removable class"
    NOT_NAMED = "not_named", "captions name no removable class"
    NO_WORDS = "no_words", "no word left in the caption"
    NO_KEPT_WORD = "no_kept_word", "captions name no kept class"
    STILL_NAMED = "still_named", "edit still names a removed class"
    UNREADABLE = "unreadable", "unreadable image"

    def stage(self) -> int:
        """Return the place of the rule in the order of the stages."""
        return list(type(self)).index(self)


CANDIDATE_RULES = (Rule.NOTHING_KEPT, Rule.GAP, Rule.REGION, Rule.SIZE)
IMAGE_RULES = tuple(rule for rule in Rule if rule not in CANDIDATE_RULES)
