"""What may be removed from an image, and what is found when its classes are judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import ConfigError
from synth.regions import RunLengths
from synth.rules import Rule

Region = Literal["boxes", "masks"]
Crowds = Literal["count", "ignore"]
Gap = Literal["reject", "keep"]


@dataclass(frozen=True)
class SelectionConfig:
    """What may be removed; the defaults are the paper's numbers and, where it is silent, the choices said here.

    B_c is the union of the boxes (or masks) of class c, r the candidate, s any other class of the image, and its
    covered share is area(B_r ∩ B_s) / area(B_s).

    Attributes:
        alpha1: largest covered share of a class that stays, exclusive (equation 1).
        alpha2: covered share from which a class is removed as well, exclusive, whatever alpha1 says (equation 2).
        alpha3: largest share of the image to remove, exclusive (equation 3).
        region: what B_c is made of and what is filled: the paper's boxes, or the outlines of the objects.
        crowds: `count` treats a crowd region like any other object, so that nothing of a class is left when it is
            removed; `ignore` passes over it, and it stays visible.
        gap: a class covered from alpha1 up to alpha2 is neither clear of the candidate nor removed with it: `reject`
            the candidate, or `keep` the class although it is covered in part.
        recheck: test the classes that stay against the whole removed region too, not against B_r alone.
        multi: let classes join the candidate (equation 2); without it one class is removed at a time.
        min_kept_area: share of the image that a class must have to count as kept. A smaller one that stays must
            still not be covered, but it is nothing to retrieve the image by.
    """

    alpha1: float = 0.4
    alpha2: float = 0.8
    alpha3: float = 0.7
    region: Region = "boxes"
    crowds: Crowds = "count"
    gap: Gap = "reject"
    recheck: bool = True
    multi: bool = True
    min_kept_area: float = 0.0

    def __post_init__(self) -> None:
        for key in ("alpha1", "alpha2", "alpha3"):
            if not 0 < getattr(self, key) <= 1:
                raise ConfigError(
                    f"`selection.{key}` is {getattr(self, key)}; give a share of an area above 0 and up to 1."
                )
        if not 0 <= self.min_kept_area < 1:
            raise ConfigError(
                f"`selection.min_kept_area` is {self.min_kept_area}; give a share of the image from 0 to below 1."
            )
        for key, known in (("region", Region), ("crowds", Crowds), ("gap", Gap)):
            if getattr(self, key) not in get_args(known):
                words = " or ".join(get_args(known))
                raise ConfigError(f"`selection.{key}` is {getattr(self, key)!r}; give {words}.")


@dataclass(frozen=True)
class Removal:
    """A valid removal: the region of some classes is filled, and the other classes of the image stay visible.

    Attributes:
        removed: class indices whose objects are filled.
        kept: class indices that stay and count as kept, at least one.
        boxes: `[M, 4]` float64 boxes of what is removed as x1, y1, x2, y2 in pixels, inside the image.
        candidate: the class that the removal arose from; the other removed classes joined it by equation 2.
        outline: run lengths of the removed pixels where they were selected by masks; see `regions.region_mask`.
    """

    removed: frozenset[int]
    kept: frozenset[int]
    boxes: NDArray[np.float64] = field(compare=False)
    candidate: int
    outline: RunLengths | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Rejection:
    """A class that cannot be removed.

    Attributes:
        candidate: class index.
        rule: the first rule against it.
        against: the class that would be covered, of several the most covered one; None for rules on the whole image.
    """

    candidate: int
    rule: Rule
    against: int | None = None
