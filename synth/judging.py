"""Equations 1 to 3 of the paper (section 3.1) for every class of many images at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synth.coverage import Coverage, share
from synth.removal import SelectionConfig
from synth.rules import CANDIDATE_RULES, Rule

VALID = len(CANDIDATE_RULES)
_GAP, _REGION = CANDIDATE_RULES.index(Rule.GAP), CANDIDATE_RULES.index(Rule.REGION)


class Verdicts(NamedTuple):
    """The verdict on each of K classes of B images; classes are positions from 0 to K - 1.

    Attributes:
        removed: `[B, K, K]`, row r True for the classes that go with candidate r, itself among them.
        kept: `[B, K, K]`, row r True for the classes that stay and count as kept.
        rules: `[B, K]` index into `CANDIDATE_RULES` of the first rule against a candidate, `VALID` if there is none.
        against: `[B, K]` the class that would be covered, -1 where the rule is not about one.
    """

    removed: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    rules: NDArray[np.int64]
    against: NDArray[np.int64]


def judge(coverage: Coverage, classes: int, image_areas: NDArray[np.float64], config: SelectionConfig) -> Verdicts:
    """Judge every class as a candidate for removal.

    Classes join the candidate by equation 2 against B_r alone, once. Then every class that stays must satisfy
    equation 1 against B_r and, with `recheck`, against the whole removed region; at least one must count as kept, and
    the region must satisfy equation 3.

    Args:
        coverage: cells of B images with K classes.
        classes: K.
        image_areas: `[B]` areas of the images.
        config: limits and options.
    """
    itself = np.broadcast_to(np.eye(classes, dtype=bool), (len(image_areas), classes, classes))
    areas, alone = coverage.unions(itself)  # alone[b, r, s]: share of B_s inside B_r
    removed = itself | (config.multi & (alone > config.alpha2))
    sizes, whole = coverage.unions(removed)
    large = share(areas, image_areas[:, None]) >= config.min_kept_area
    kept = ~removed & large[:, None]
    covered = ~removed & _hidden(alone, config), ~removed & _hidden(whole, config) & config.recheck
    too_large = share(sizes, image_areas[:, None]) >= config.alpha3
    broken = [~kept.any(2), covered[0].any(2), covered[1].any(2), too_large, np.full_like(too_large, True)]
    rules = np.argmax(broken, axis=0)
    most = [np.where(removed, -1.0, shares).argmax(2) for shares in (alone, whole)]
    against = np.select([rules == _GAP, rules == _REGION], most, -1)
    return Verdicts(removed, kept, rules, against)


def _hidden(shares: NDArray[np.float64], config: SelectionConfig) -> NDArray[np.bool_]:
    """Whether a class that stays is covered too much: from alpha1 on, or where the gap is kept, beyond alpha2."""
    beyond = shares >= config.alpha1
    return beyond & (shares > config.alpha2) if config.gap == "keep" else beyond
