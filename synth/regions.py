"""Outlines of objects in COCO's notation, and the pixels that a removal takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from datamodules.instances import TOLERANCE
from synth.fills import box_mask, dilated

if TYPE_CHECKING:
    from synth.selection import Removal

RunLengths: TypeAlias = dict[str, Any]
"""A mask as pycocotools compresses it: `size` (height, width) and `counts` (bytes)."""


def region_mask(removal: Removal, image_size: tuple[int, int], dilation: int = 0) -> NDArray[np.bool_]:
    """Return the pixels that a removal takes: its mask where it was selected by masks, else its boxes.

    Args:
        removal: what is removed.
        image_size: width W and height H.
        dilation: pixels by which the region grows on each side, and at the corners as a box does.

    Returns:
        `[H, W]` bool, True where to fill.
    """
    if removal.outline is None:
        return box_mask(removal.boxes, image_size, dilation)
    from pycocotools import mask

    return dilated(mask.decode(removal.outline).astype(bool), dilation)


def run_lengths(segmentation: str, image_size: tuple[int, int]) -> RunLengths:
    """Return the mask of an object from its outline.

    Args:
        segmentation: COCO's JSON: polygons `[[x, y, x, y, ...], ...]`, or run lengths
            `{"size": [H, W], "counts": [...]}` whose counts are numbers or pycocotools' string.
        image_size: width W and height H.

    Raises:
        ValueError: if the outline is missing or is none of this image; the text goes on after "the outline".

    Example:
        >>> from pycocotools import mask
        >>> int(mask.area(run_lengths("[[0, 0, 4, 0, 4, 2, 0, 2]]", (10, 10))))
        8
        >>> int(mask.area(run_lengths('{"size": [2, 2], "counts": [1, 3]}', (2, 2))))
        3
    """
    from pycocotools import mask

    if not segmentation:
        raise ValueError("is missing")
    outline = json.loads(segmentation)
    width, height = image_size
    if isinstance(outline, list):
        _check_polygons(outline, image_size)
        return merge(mask.frPyObjects(outline, height, width))
    _check_counts(outline, image_size)
    if isinstance(outline["counts"], list):
        return dict(mask.frPyObjects(outline, height, width))
    mask.decode(outline)  # raises ValueError where a string of counts is broken
    return merge([outline])


def merge(outlines: Sequence[RunLengths]) -> RunLengths:
    """Return the union of masks of one size."""
    from pycocotools import mask

    merged: RunLengths = mask.merge(list(outlines))
    return merged


def area(outline: RunLengths) -> int:
    """Return the number of pixels of a mask."""
    from pycocotools import mask

    return int(mask.area(outline))


def edges(outline: RunLengths) -> NDArray[np.int64]:
    """Return the pixels at which a mask begins, ends, begins, ..., counted column by column of the image.

    Example:
        >>> edges(run_lengths('{"size": [2, 2], "counts": [1, 2, 1]}', (2, 2))).tolist()
        [1, 3]
    """
    from pycocotools import mask

    flat = mask.decode(outline).ravel(order="F")
    return np.flatnonzero(np.concatenate([flat[:1] != 0, flat[1:] != flat[:-1]]))


def _check_polygons(outline: list[Any], image_size: tuple[int, int]) -> None:
    """Refuse what pycocotools would read as something else: a list of four numbers, for one, as a box."""
    if not all(isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in outline):
        raise ValueError("has a polygon that is no list of three or more x, y")
    flat = list(chain.from_iterable(outline))
    if not all(isinstance(value, (int, float)) for value in flat):
        raise ValueError("has a coordinate that is no number")
    points = np.array(flat, dtype=np.float64).reshape(-1, 2)
    if not ((points >= -TOLERANCE) & (points <= np.array(image_size) + TOLERANCE)).all():  # so is NaN refused
        raise ValueError(f"lies outside the image of {image_size[0]} x {image_size[1]} pixels")


def _check_counts(outline: Any, image_size: tuple[int, int]) -> None:
    if not isinstance(outline, dict) or not isinstance(outline.get("counts"), (list, str)):
        raise ValueError("is neither polygons nor run lengths")
    width, height = image_size
    if outline.get("size") != [height, width]:
        raise ValueError(f"has the size {outline.get('size')}, and the image has [{height}, {width}]")
    counts = outline["counts"]
    if isinstance(counts, list):
        whole = all(isinstance(count, int) and count >= 0 for count in counts)
        if not whole or sum(counts) != width * height:
            raise ValueError(f"has run lengths that do not add up to {width * height} pixels")
