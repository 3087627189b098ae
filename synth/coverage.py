"""Exact areas of unions and overlaps: the plane is cut into cells that a class covers wholly or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUMBERS = 2**20
"""Size of the largest arrays of cells; what is larger is looked at part by part, so that memory stays bounded."""

_DIGITS = 10
_STEPS = np.array([[1.0, -1.0], [-1.0, 1.0]])


def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `part / whole` to ten digits.

    The last bits of a sum of areas depend on its order, and a share that equals a limit shall equal it everywhere.

    Example:
        >>> float(share(np.array(0.1 + 0.2), np.array(0.75)))
        0.4
    """
    return np.round(part / whole, _DIGITS)


class Cells(NamedTuple):
    """Some cells of B images with K classes each.

    Attributes:
        cover: `[B, K, cells]` float64, 1 where a class covers a cell, else 0.
        areas: `[B, cells]` float64 in square pixels.
    """

    cover: NDArray[np.float64]
    areas: NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """The cells of B images with K classes each, in parts that are made anew whenever they are looked at.

    Attributes:
        parts: where each part begins.
        part: makes the part that begins there.
    """

    parts: range
    part: Callable[[int], Cells]

    def unions(self, members: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what unions of classes cover.

        Args:
            members: `[B, R, K]`, row r True for the classes of union r.

        Returns:
            The areas `[B, R]` of the unions, and `[B, R, K]`: the share of each class that lies inside each union.

        Example: class 0 covers two cells, class 1 the second, which is a third of the area.

            >>> cells = Cells(np.array([[[1.0, 1], [0, 1]]]), np.array([[2.0, 1]]))
            >>> areas, shares = Coverage(range(1), lambda start: cells).unions(np.eye(2, dtype=bool)[None])
            >>> areas.tolist(), shares.round(2).tolist()
            ([[3.0, 1.0]], [[[1.0, 1.0], [0.33, 1.0]]])
        """
        sets = members.astype(np.float64)
        own, areas = np.zeros((len(sets), sets.shape[2])), np.zeros(sets.shape[:2])
        inside = np.zeros(sets.shape)
        for cover, cells in map(self.part, self.parts):
            union = np.matmul(sets, cover)
            np.minimum(union, 1.0, out=union)
            union *= cells[:, None]
            areas += union.sum(2)
            inside += np.matmul(union, cover.swapaxes(1, 2))
            own += np.matmul(cover, cells[..., None])[..., 0]
        return areas, share(inside, own[:, None])


def of_boxes(corners: NDArray[np.float64], kinds: NDArray[np.int64], classes: int) -> Coverage:
    """Cut images at every edge of their boxes.

    Args:
        corners: `[B, n, 4]` x1, y1, x2, y2.
        kinds: `[B, n]` class of each box, from 0 to K - 1.
        classes: K.

    Example: two boxes of one class that overlap.

        >>> boxes = np.array([[[0.0, 0, 40, 40], [20, 0, 60, 40]]])
        >>> of_boxes(boxes, np.array([[0, 0]]), 1).unions(np.array([[[True]]]))[0]
        array([[2400.]])
    """
    columns, widths = _spans(corners[..., 0::2])
    rows, heights = _spans(corners[..., 1::2])
    images, cuts = heights.shape
    layers = (np.arange(images)[:, None] * classes + kinds)[..., None, None]
    high = max(1, NUMBERS // (classes * cuts))

    def part(start: int) -> Cells:
        some = heights[:, start : start + high]
        count = some.shape[1]
        within = np.clip(rows - start, 0, count)
        corner = (layers * (count + 1) + within[..., None]) * cuts + columns[..., None, :]
        shape = images, classes, count + 1, cuts
        # steps of 1 at the corners of a box, up or down, add up to the number of boxes on each cell
        steps = np.bincount(corner.ravel(), np.broadcast_to(_STEPS, corner.shape).ravel(), int(np.prod(shape)))
        boxes = steps.reshape(shape).cumsum(2)[:, :, :count].cumsum(3)
        areas = some[:, :, None] * widths[:, None]
        return Cells((boxes > 0).reshape(images, classes, -1).astype(np.float64), areas.reshape(images, -1))

    return Coverage(range(0, cuts, high), lru_cache(maxsize=1)(part))


def _spans(ends: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cut an axis at the ends `[B, n, 2]`; return the span `[B, n, 2]` that each end begins, and the lengths."""
    flat = ends.reshape(len(ends), -1)
    order = np.argsort(flat, axis=1, kind="stable")
    cuts = np.take_along_axis(flat, order, axis=1)
    return np.argsort(order, axis=1).reshape(ends.shape), np.diff(cuts, axis=1, append=cuts[:, -1:])


def of_masks(edges: Sequence[NDArray[np.int64]], pixels: int) -> Coverage:
    """Cut one image wherever a mask begins or ends; the cells are runs of pixels.

    Args:
        edges: for each of K classes the pixels, ascending, at which its mask begins, ends, begins, ...; the pixels are
            in any order that keeps neighbours together.
        pixels: how many the image has.

    Example: the first class is on pixels 0 to 2 of 5, the second on pixels 2 and 3.

        >>> of_masks([np.array([0, 3]), np.array([2, 4])], 5).unions(np.eye(2, dtype=bool)[None])[0]
        array([[3., 2.]])
    """
    starts = np.unique(np.concatenate([[0], *edges]))
    lengths = np.diff(starts, append=pixels).astype(np.float64)
    most = max(1, NUMBERS // len(edges))

    def part(start: int) -> Cells:
        some = slice(start, start + most)
        cover = np.array([np.searchsorted(edge, starts[some], side="right") % 2 for edge in edges], dtype=np.float64)
        return Cells(cover[None], lengths[None, some])

    return Coverage(range(0, len(starts), most), lru_cache(maxsize=1)(part))
