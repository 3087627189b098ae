"""Exact areas of unions and overlaps: the plane is cut into cells that a class covers wholly or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIGITS = 10


def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `part / whole` to ten digits.

    The last bits of a sum of areas depend on its order, and a share that equals a limit shall equal it everywhere.

    Example:
        >>> float(share(np.array(0.1 + 0.2), np.array(0.75)))
        0.4
    """
    return np.round(part / whole, _DIGITS)


@dataclass(frozen=True)
class Coverage:
    """Which cells each class covers, for B images with K classes each.

    Attributes:
        cover: `[B, K, cells]` float64, 1 where a class covers a cell, else 0.
        cells: `[B, cells]` float64 areas in square pixels.

    Example: class 0 covers both cells, class 1 the second, which is a third of the area.

        >>> coverage = Coverage(np.array([[[1.0, 1], [0, 1]]]), np.array([[2.0, 1]]))
        >>> coverage.shares(coverage.cover).round(2).tolist()  # row: which class covers; column: the covered one
        [[[1.0, 1.0], [0.33, 1.0]]]
    """

    cover: NDArray[np.float64]
    cells: NDArray[np.float64]

    @cached_property
    def areas(self) -> NDArray[np.float64]:
        """`[B, K]` areas of the classes."""
        return self.sizes(self.cover)

    def sizes(self, regions: NDArray[Any]) -> NDArray[np.float64]:
        """Return the areas `[B, R]` of regions `[B, R, cells]`."""
        areas: NDArray[np.float64] = np.matmul(regions, self.cells[..., None])[..., 0]
        return areas

    def union(self, members: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the regions `[B, R, cells]` of sets of classes `[B, R, K]`."""
        times: NDArray[np.float64] = np.matmul(members.astype(np.float64), self.cover)
        return np.minimum(times, 1.0)

    def shares(self, regions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `[B, R, K]`: the share of each class that lies inside each region `[B, R, cells]`."""
        inside = np.matmul(regions * self.cells[:, None], self.cover.swapaxes(1, 2))
        return share(inside, self.areas[:, None])


def of_boxes(corners: NDArray[np.float64], members: NDArray[np.bool_]) -> Coverage:
    """Cut images at every edge of their boxes.

    Args:
        corners: `[B, n, 4]` x1, y1, x2, y2.
        members: `[B, K, n]`, True where a box shows a class.

    Example: two boxes of one class that overlap.

        >>> of_boxes(np.array([[[0.0, 0, 40, 40], [20, 0, 60, 40]]]), np.array([[[True, True]]])).areas
        array([[2400.]])
    """
    across, widths = _spans(corners[..., 0::2])
    down, heights = _spans(corners[..., 1::2])
    rows = (members[..., None] * down[:, None]).swapaxes(2, 3)  # [B, K, heights, n]
    cover = (np.matmul(rows, across[:, None]) > 0).astype(np.float64)
    cells = heights[:, :, None] * widths[:, None]
    return Coverage(cover.reshape(*cover.shape[:2], -1), cells.reshape(len(cells), -1))


def _spans(ends: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cut an axis at the ends `[B, n, 2]`; return which box has which span `[B, n, 2n - 1]` and the lengths."""
    cuts = np.sort(ends.reshape(len(ends), -1), axis=1)
    start, stop = cuts[:, None, :-1], cuts[:, None, 1:]
    inside = (ends[..., :1] <= start) & (stop <= ends[..., 1:])
    return inside.astype(np.float64), np.diff(cuts, axis=1)


def of_masks(masks: NDArray[np.uint8]) -> Coverage:
    """Cut an image wherever a mask begins or ends; the cells are runs of pixels.

    Args:
        masks: `[K, pixels]`, 1 where a class is, pixels in any order that keeps neighbours together.

    Example:
        >>> coverage = of_masks(np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 0]], np.uint8))
        >>> coverage.cells.tolist(), coverage.areas.tolist()
        ([[2.0, 1.0, 1.0, 1.0]], [[3.0, 2.0]])
    """
    changes = (masks[:, 1:] != masks[:, :-1]).any(0)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    cells = np.diff(starts, append=masks.shape[1])
    return Coverage(masks[None, :, starts].astype(np.float64), cells[None].astype(np.float64))
