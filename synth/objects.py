"""The objects of many images, and batches of images with as many objects and classes each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import AnnotationError
from datamodules.tables import Tables
from synth import coverage
from synth.regions import region_mask
from synth.removal import Removal


class Objects(NamedTuple):
    """O objects of I images.

    Attributes:
        corners: `[O, 4]` boxes as x1, y1, x2, y2 in pixels.
        labels: `[O]` class indices.
        images: `[O]` position of the image among the I, ascending.
        sizes: `[I, 2]` width and height of the images.
        rows: `[O]` rows of the objects in the tables they come from.
    """

    corners: NDArray[np.float64]
    labels: NDArray[np.int64]
    images: NDArray[np.int64]
    sizes: NDArray[np.float64]
    rows: NDArray[np.int64]

    @staticmethod
    def of(tables: Tables, rows: NDArray[np.int64], *, crowds: bool) -> Objects:
        """Return the objects of these image rows, with or without crowd regions.

        Raises:
            AnnotationError: if a coordinate is not finite.
        """
        first = tables.object_offsets[rows]
        counts = tables.object_offsets[rows + 1] - first
        images = np.repeat(np.arange(len(rows)), counts)
        found = np.arange(len(images)) + np.repeat(first - np.cumsum(counts) + counts, counts)
        if not crowds:
            counted = ~tables.crowds[found]
            images, found = images[counted], found[counted]
        x, y, width, height = tables.boxes[found].T
        corners = np.stack([x, y, x + width, y + height], axis=1)
        wrong = np.flatnonzero(~np.isfinite(corners).all(1))
        if len(wrong):
            file = tables.files[rows[images[wrong[0]]]]
            raise AnnotationError(
                f"Image {file} of `data` has a box {tables.boxes[found[wrong[0]]].tolist()}; mend its annotation file: "
                "x, y, width and height must be finite."
            )
        sizes = np.stack([tables.widths[rows], tables.heights[rows]], axis=1).astype(np.float64)
        return Objects(corners, tables.categories[found].astype(np.int64), images, sizes, found)

    def clipped(self) -> Objects:
        """Return the objects with their boxes cut at the borders of the images."""
        limits = np.tile(self.sizes, 2)[self.images]
        return self._replace(corners=np.clip(self.corners, 0.0, limits))

    def where(self, wanted: NDArray[np.bool_]) -> Objects:
        """Return some of the objects; `wanted` is `[O]`."""
        return Objects(self.corners[wanted], self.labels[wanted], self.images[wanted], self.sizes, self.rows[wanted])

    def solid(self) -> Objects:
        """Return the objects whose boxes have an area inside the image, clipped."""
        clipped = self.clipped()
        return clipped.where(np.all(clipped.corners[:, 2:] > clipped.corners[:, :2], axis=1))


def visible(tables: Tables, row: int, removal: Removal) -> dict[int, int]:
    """Count the objects of each kept class that are left in an image when a removal is filled.

    An object is gone if its centre is filled. A crowd region is no object that can be counted, and a kept class that
    has no other counts as one.

    Args:
        tables: images and objects.
        row: image row.
        removal: what is filled there.
    """
    objects = Objects.of(tables, np.array([row]), crowds=False).solid()
    width, height = objects.sizes[0].astype(int).tolist()
    across, down = ((objects.corners[:, :2] + objects.corners[:, 2:]) / 2).astype(int).T
    left = objects.labels[~region_mask(removal, (width, height))[down, across]]
    return {index: max(1, int(np.count_nonzero(left == index))) for index in sorted(removal.kept)}


class Batch(NamedTuple):
    """B images with n boxes of K classes each.

    Attributes:
        images: `[B]` positions of the images.
        corners: `[B, n, 4]` x1, y1, x2, y2.
        labels: `[B, K]` class indices, ascending.
        kinds: `[B, n]` class of each box, as a position among the K.
    """

    images: NDArray[np.int64]
    corners: NDArray[np.float64]
    labels: NDArray[np.int64]
    kinds: NDArray[np.int64]


def batches(objects: Objects) -> Iterator[Batch]:
    """Sort images by their numbers of boxes and classes; those without a box are in no batch.

    Nothing is padded, so the arithmetic on an image is the same in whatever company it is judged.

    Example:
        >>> corners, sizes = np.zeros((4, 4)), np.ones((4, 2))
        >>> of_image = np.array([0, 0, 1, 3])
        >>> objects = Objects(corners, np.array([7, 5, 5, 5]), of_image, sizes, np.arange(4))
        >>> [(batch.images.tolist(), batch.labels.tolist()) for batch in batches(objects)]
        [([1, 3], [[5], [5]]), ([0], [[5, 7]])]
    """
    names, codes = np.unique(objects.labels, return_inverse=True)
    present, position = np.unique(objects.images * len(names) + codes, return_inverse=True)
    owners, classes = np.divmod(present, max(len(names), 1))
    every = np.arange(len(objects.sizes) + 1)
    first_box, first_class = np.searchsorted(objects.images, every), np.searchsorted(owners, every)
    shapes = np.stack([np.diff(first_box), np.diff(first_class)], axis=1)
    for n, k in np.unique(shapes[shapes[:, 0] > 0], axis=0).tolist():
        alike = np.flatnonzero((shapes == (n, k)).all(1))
        most = max(1, coverage.NUMBERS // (k * (2 * n) ** 2))
        for start in range(0, len(alike), most):
            images = alike[start : start + most]
            boxes = first_box[images, None] + np.arange(n)
            own = first_class[images, None]
            labels = names[classes[own + np.arange(k)]]
            yield Batch(images, objects.corners[boxes], labels, position[boxes] - own)
