"""Masks of what is to be filled: drawn from boxes, grown, and softened at their border."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Pixels: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]


def box_mask(boxes: ArrayLike, image_size: tuple[int, int], dilation: int = 0) -> Mask:
    """Return the mask of the pixels that boxes touch, even in part.

    Args:
        boxes: `[M, 4]` x1, y1, x2, y2 in pixels.
        image_size: width W and height H.
        dilation: pixels by which every box grows on each side.

    Returns:
        `[H, W]` bool, True inside a box.

    Example:
        >>> box_mask([[0.5, 0, 2.1, 1]], (4, 2)).astype(int)
        array([[1, 1, 1, 0],
               [0, 0, 0, 0]])
    """
    width, height = image_size
    mask = np.zeros((height, width), dtype=bool)
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    low = np.maximum(np.floor(corners[:, :2]).astype(int) - dilation, 0)
    high = np.maximum(np.ceil(corners[:, 2:]).astype(int) + dilation, 0)
    for (left, top), (right, bottom) in zip(low, high, strict=True):
        mask[top:bottom, left:right] = True
    return mask


def dilated(mask: Mask, dilation: int) -> Mask:
    """Return a mask grown on all sides, as `box_mask` grows its boxes.

    Args:
        mask: `[H, W]` bool.
        dilation: pixels to grow to the left, right, top, bottom and into the corners.

    Returns:
        `[H, W]` bool, True wherever the square of side `2 * dilation + 1` around a pixel meets the mask.

    Example:
        >>> dilated(np.array([[True, False, False, False]]), 2).tolist()
        [[True, True, True, False]]
    """
    import cv2

    if not dilation or not mask.any():
        return mask.copy()
    square = np.ones((2 * dilation + 1,) * 2, np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), square), dtype=bool)


def feathered(image: Pixels, filled: Pixels, mask: Mask, feather: int) -> Pixels:
    """Blend the border of a fill into the image, inside the mask alone.

    The share of the fill rises linearly with the distance to the next pixel outside the mask, up to all of it beyond
    `feather` pixels. What the mask hides shines through in this band, so grow the mask by a `dilation` of at least
    `feather`. The border of the image is no border of the mask.

    Args:
        image: `[H, W, 3]` uint8, the source.
        filled: `[H, W, 3]` uint8, equal to `image` outside the mask.
        mask: `[H, W]` bool, True where `filled` was painted.
        feather: width of the band in pixels; 0 returns `filled` as it is.

    Returns:
        `[H, W, 3]` uint8, equal to `image` wherever `mask` is False.

    Example:
        >>> black, white = np.zeros((1, 5, 3), np.uint8), np.full((1, 5, 3), 240, np.uint8)
        >>> mask = np.array([[False, True, True, True, True]])
        >>> feathered(black, np.where(mask[..., None], white, black), mask, 2)[0, :, 0].tolist()
        [0, 80, 160, 240, 240]
    """
    import cv2

    if not feather or mask.all():
        return filled
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    band = mask & (distance < feather + 1)
    share = (distance[band] / (feather + 1))[:, None]
    blended = filled.copy()
    blended[band] = np.rint(share * filled[band] + (1 - share) * image[band]).astype(np.uint8)
    return blended
