"""The sum of the recalls of both directions, as a mean over images, which has an interval and a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def by_image(
    ways: Sequence[tuple[NDArray[np.float64], NDArray[Any]]],
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Return what every image adds to the sum of the recalls, scaled so that the mean over images is that sum.

    Args:
        ways: of each direction the recalls `[Q, M]` in per cent, and the image of each query, `[Q]`.

    Returns:
        `[N]` values, and the N images, ascending.

    Example:
        >>> shown = np.array([[0.0, 100.0], [100.0, 100.0]]), np.array([7, 8])
        >>> said = np.array([[0.0], [100.0], [100.0]]), np.array([7, 7, 8])
        >>> round(float(by_image([shown, said])[0].mean()), 1)  # 50 + 100 and 66.7
        216.7
    """
    images = np.unique(np.concatenate([owners for _, owners in ways]))
    values = np.zeros(len(images))
    for recalls, owners in ways:
        part = recalls.sum(axis=1) * len(images) / len(owners)
        values += np.bincount(np.searchsorted(images, owners), part, len(images))
    return values, images
