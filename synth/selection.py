"""Which classes can be removed from an image without hiding what stays (paper, section 3.1, equations 1 to 3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synth.rules import CANDIDATE_RULES, Rule

VERSION = 1


@dataclass(frozen=True)
class Removal:
    """A valid removal: the region of some classes is filled, and the other classes of the image stay visible.

    Attributes:
        removed: class indices whose boxes are filled.
        kept: the other class indices of the image, at least one.
        boxes: `[M, 4]` float64 boxes to fill as x1, y1, x2, y2 in pixels, inside the image.
        candidate: the class that the removal arose from; the other removed classes joined it by equation 2.
    """

    removed: frozenset[int]
    kept: frozenset[int]
    boxes: NDArray[np.float64] = field(compare=False)
    candidate: int


@dataclass(frozen=True)
class Rejection:
    """A class that cannot be removed, and the first rule against it."""

    candidate: int
    rule: Rule


def removals(
    boxes: ArrayLike,
    categories: ArrayLike,
    image_size: tuple[float, float],
    alpha1: float = 0.4,
    alpha2: float = 0.8,
    alpha3: float = 0.7,
) -> list[Removal]:
    """Return the valid removals of an image, one for each class that can be removed, by ascending class.

    Two classes that cover each other give two removals with the same `removed`: each arose from its own candidate.
    `unique` leaves one of them. See `candidates` for the rules and the arguments.

    Example: a person carries a backpack beside a horse. Without the person the backpack, all covered, goes too.

        >>> boxes = [[10, 10, 50, 90], [40, 40, 90, 90], [15, 20, 45, 60]]
        >>> person, horse, backpack = 0, 17, 24
        >>> for removal in removals(boxes, [person, horse, backpack], (100, 100)):
        ...     print(removal.candidate, sorted(removal.removed), sorted(removal.kept))
        0 [0, 24] [17]
        17 [17] [0, 24]
        24 [24] [0, 17]
    """
    found = candidates(boxes, categories, image_size, alpha1, alpha2, alpha3)
    return [candidate for candidate in found if isinstance(candidate, Removal)]


def unique(found: list[Removal]) -> list[Removal]:
    """Return the removals with distinct `removed`, the one of the lowest candidate of each.

    Example:
        >>> len(removals([[0, 0, 4, 4], [0, 0, 4, 4], [6, 6, 9, 9]], [0, 1, 2], (10, 10)))
        3
        >>> len(unique(removals([[0, 0, 4, 4], [0, 0, 4, 4], [6, 6, 9, 9]], [0, 1, 2], (10, 10))))
        2
    """
    first: dict[frozenset[int], Removal] = {}
    for removal in found:
        first.setdefault(removal.removed, removal)
    return list(first.values())


def candidates(
    boxes: ArrayLike,
    categories: ArrayLike,
    image_size: tuple[float, float],
    alpha1: float = 0.4,
    alpha2: float = 0.8,
    alpha3: float = 0.7,
) -> list[Removal | Rejection]:
    """Judge every class of an image as a candidate for removal.

    With B_c the union of the boxes of class c, and candidate r: every class s with area(B_r ∩ B_s) / area(B_s) >
    alpha2 joins r, measured against B_r alone and once (equation 2). Then every kept class must be covered by less
    than alpha1 of its area by the whole removed region (equation 1), and the region must cover less than alpha3 of the
    image (equation 3). At least one class must be kept. Crowd boxes count like any other.

    Args:
        boxes: `[N, 4]` x1, y1, x2, y2 in pixels; clipped to the image, and dropped where no area is left.
        categories: `[N]` class index of each box.
        image_size: width and height in pixels.
        alpha1: largest covered share of a kept class, exclusive.
        alpha2: share from which a class joins, exclusive; 1 never lets a class join.
        alpha3: largest share of the image to remove, exclusive.

    Returns:
        A `Removal` or a `Rejection` for each class, by ascending class.

    Raises:
        ValueError: if the shapes do not fit, or a coordinate is not finite.

    Example:
        >>> candidates([[0, 0, 9, 9], [0, 0, 2, 2]], [5, 7], (10, 10))[0].rule.value
        'nothing_kept'
    """
    corners, classes, member = _by_class(boxes, categories, image_size)
    cover, cells = _coverage(corners, member)
    areas = cover @ cells
    ratio = (cover * cells) @ cover.T / areas  # [r, s]: share of B_s inside B_r
    removed: NDArray[np.bool_] = (ratio > alpha2) | np.eye(len(classes), dtype=bool)
    region = removed.astype(float) @ cover > 0
    covered = (region * cells) @ cover.T / areas
    broken = np.array(  # one row per rule, in the order of CANDIDATE_RULES
        [
            removed.all(1),
            (~removed & (ratio >= alpha1)).any(1),
            (~removed & (covered >= alpha1)).any(1),
            region @ cells / (image_size[0] * image_size[1]) >= alpha3,
        ]
    )
    found: list[Removal | Rejection] = []
    for index, candidate in enumerate(classes.tolist()):
        if broken[:, index].any():
            found.append(Rejection(candidate, CANDIDATE_RULES[int(broken[:, index].argmax())]))
            continue
        gone = removed[index]
        filled = corners[member[gone].any(0)]
        found.append(Removal(frozenset(classes[gone].tolist()), frozenset(classes[~gone].tolist()), filled, candidate))
    return found


def _by_class(
    boxes: ArrayLike, categories: ArrayLike, image_size: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return clipped boxes `[n, 4]`, the K classes they show, and which box is of which class `[K, n]`."""
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    labels = np.asarray(categories, dtype=np.int64)
    if labels.shape != corners.shape[:1]:
        raise ValueError(f"{len(corners)} boxes need as many categories, got shape {labels.shape}")
    if not np.isfinite(corners).all():
        raise ValueError("a box has a coordinate that is not finite")
    width, height = image_size
    corners = np.clip(corners, 0.0, (width, height, width, height))
    solid = (corners[:, 2:] > corners[:, :2]).all(1)
    classes, index = np.unique(labels[solid], return_inverse=True)
    return corners[solid], classes, index == np.arange(len(classes))[:, None]


def _coverage(corners: NDArray[Any], member: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cut the plane at every box edge; return which cells each class covers `[K, cells]` (0 or 1) and their areas."""
    xs, ys = np.unique(corners[:, 0::2]), np.unique(corners[:, 1::2])
    across = (corners[:, 0, None] <= xs[:-1]) & (xs[1:] <= corners[:, 2, None])
    down = (corners[:, 1, None] <= ys[:-1]) & (ys[1:] <= corners[:, 3, None])
    cells = np.outer(np.diff(ys), np.diff(xs)).ravel()
    cover = np.empty((len(member), len(cells)))
    for row, boxes in zip(cover, member, strict=True):
        row[:] = (down[boxes].T.astype(float) @ across[boxes].astype(float) > 0).ravel()
    return cover, cells
