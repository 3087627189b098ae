"""Which classes can be removed from an image without hiding what stays (paper, section 3.1, equations 1 to 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules.errors import AnnotationError
from datamodules.tables import Tables
from synth.coverage import of_boxes, of_masks
from synth.judging import VALID, Verdicts, judge
from synth.objects import Objects, batches
from synth.regions import RunLengths, area, edges, merge, run_lengths
from synth.removal import Rejection, Removal, SelectionConfig
from synth.rules import CANDIDATE_RULES

__all__ = ["Rejection", "Removal", "SelectionConfig", "candidates", "removals", "select", "unique"]

VERSION = 2
"""Changes whenever the same objects could give other removals."""

_IMAGES = 8192
"""Images that are looked at together; many of them have as many boxes and classes each."""


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
    """Judge every class of an image as a candidate for removal, by its boxes and the defaults of `SelectionConfig`.

    Args:
        boxes: `[N, 4]` x1, y1, x2, y2 in pixels; clipped to the image, and dropped where no area is left.
        categories: `[N]` class index of each box.
        image_size: width and height in pixels.
        alpha1: largest covered share of a class that stays, exclusive.
        alpha2: share from which a class joins, exclusive; 1 never lets a class join.
        alpha3: largest share of the image to remove, exclusive.

    Returns:
        A `Removal` or a `Rejection` for each class, by ascending class.

    Raises:
        ValueError: if the shapes do not fit, or a coordinate is not finite.
        ConfigError: if a limit is not above 0 and up to 1.

    Example:
        >>> candidates([[0, 0, 9, 9], [0, 0, 2, 2]], [5, 7], (10, 10))[0].rule.value
        'nothing_kept'
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    labels = np.asarray(categories, dtype=np.int64)
    if labels.shape != corners.shape[:1]:
        raise ValueError(f"{len(corners)} boxes need as many categories, got shape {labels.shape}")
    if not np.isfinite(corners).all():
        raise ValueError("a box has a coordinate that is not finite")
    nowhere = np.zeros_like(labels)
    objects = Objects(corners, labels, nowhere, np.array([image_size], dtype=np.float64), nowhere)
    return _by_boxes(objects, SelectionConfig(alpha1, alpha2, alpha3))[0]


def select(tables: Tables, rows: NDArray[np.integer], config: SelectionConfig) -> Iterator[list[Removal | Rejection]]:
    """Judge every class of many images as a candidate for removal, many images at once.

    An image's outcome does not depend on the images that it is judged with.

    Args:
        tables: images and objects.
        rows: image rows, in any order.
        config: limits and options.

    Yields:
        For each row, in the given order, a `Removal` or a `Rejection` for each class in the image, ascending.

    Raises:
        AnnotationError: if a box is not finite, or an outline that `region: masks` needs is missing or broken.
    """
    for start in range(0, len(rows), _IMAGES):
        some = np.asarray(rows[start : start + _IMAGES], dtype=np.int64)
        if config.region == "masks":
            yield from (_by_masks(tables, row, config) for row in some)
        else:
            yield from _by_boxes(Objects.of(tables, some, crowds=config.crowds == "count"), config)


def _by_boxes(objects: Objects, config: SelectionConfig) -> list[list[Removal | Rejection]]:
    """Return the outcomes of each image, those of one shape judged together."""
    outcomes: list[list[Removal | Rejection]] = [[] for _ in objects.sizes]
    for batch in batches(objects.solid()):
        classes = batch.labels.shape[1]
        cells = of_boxes(batch.corners, batch.kinds, classes)
        verdicts = judge(cells, classes, objects.sizes[batch.images].prod(1), config)
        filled = np.take_along_axis(verdicts.removed, batch.kinds[:, None], axis=2)
        for b, image in enumerate(batch.images.tolist()):
            regions = [(batch.corners[b, boxes], None) for boxes in filled[b]]
            outcomes[image] = _outcomes(verdicts, b, batch.labels[b].tolist(), regions)
    return outcomes


def _by_masks(tables: Tables, row: np.int64, config: SelectionConfig) -> list[Removal | Rejection]:
    """Return the outcomes of one image."""
    objects = Objects.of(tables, np.array([row]), crowds=config.crowds == "count").clipped()
    outlines = _outlines(tables, row, objects.rows)
    solid = np.array([area(outline) > 0 for outline in outlines], dtype=bool)
    labels, positions = np.unique(objects.labels[solid], return_inverse=True)
    if not len(labels):
        return []
    classes: list[list[RunLengths]] = [[] for _ in labels]
    for position, outline in zip(positions, compress(outlines, solid), strict=True):
        classes[position].append(outline)
    masks = [merge(of_class) for of_class in classes]
    pixels = objects.sizes.prod(1)
    cells = of_masks([edges(mask) for mask in masks], int(pixels[0]))
    verdicts = judge(cells, len(labels), pixels, config)
    corners = objects.corners[solid]
    regions = [(corners[gone[positions]], merge(list(compress(masks, gone)))) for gone in verdicts.removed[0]]
    return _outcomes(verdicts, 0, labels.tolist(), regions)


def _outlines(tables: Tables, row: np.int64, objects: NDArray[np.int64]) -> list[RunLengths]:
    size = (int(tables.widths[row]), int(tables.heights[row]))
    outlines = []
    for number, segmentation in zip(objects.tolist(), tables.segmentations.take(objects), strict=True):
        try:
            outlines.append(run_lengths(segmentation, size))
        except ValueError as error:
            name, box = tables.class_names[tables.categories[number]], tables.boxes[number].tolist()
            raise AnnotationError(
                f"Image {tables.files[int(row)]} of `data` has an object ({name}, box {box}) whose outline {error}; "
                "mend its annotation file, or set `selection.region` to boxes."
            ) from error
    return outlines


def _outcomes(
    verdicts: Verdicts, b: int, labels: list[int], regions: Sequence[tuple[NDArray[np.float64], RunLengths | None]]
) -> list[Removal | Rejection]:
    """Return the outcome of each class of image b; `regions` has the boxes and the mask that go with each."""
    removed, kept = verdicts.removed[b].tolist(), verdicts.kept[b].tolist()
    rules, against = verdicts.rules[b].tolist(), verdicts.against[b].tolist()
    found: list[Removal | Rejection] = []
    for k, candidate in enumerate(labels):
        if rules[k] == VALID:
            boxes, outline = regions[k]
            gone, stays = frozenset(compress(labels, removed[k])), frozenset(compress(labels, kept[k]))
            found.append(Removal(gone, stays, boxes, candidate, outline))
        else:
            other = labels[against[k]] if against[k] >= 0 else None
            found.append(Rejection(candidate, CANDIDATE_RULES[rules[k]], other))
    return found
