"""Fills of OpenCV that continue the surroundings inwards, ring by ring: no weights, smooth in large holes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datamodules.errors import ConfigError
from synth.fills.base import Fill
from synth.fills.masks import Mask, Pixels


@dataclass(frozen=True)
class _MarchingFill(Fill):
    needs_surroundings: ClassVar[bool] = True
    method: ClassVar[str]
    radius: float = 3.0

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ConfigError(f"`radius` of {type(self).__name__} is {self.radius}; give a number of pixels above 0.")

    def paint(self, image: Pixels, mask: Mask) -> Pixels:
        """Return the image with the inpainted hole; only pixels near it count, and a huge image costs no more."""
        import cv2

        window = _around(mask, 2 * math.ceil(self.radius) + 2)
        painted = image.copy()
        holes, method = mask[window].astype(np.uint8), getattr(cv2, self.method)
        painted[window] = cv2.inpaint(np.ascontiguousarray(image[window]), holes, self.radius, method)
        return painted


def _around(mask: Mask, margin: int) -> tuple[slice, ...]:
    """Return the rows and columns of the hole with a margin."""
    ends = [np.flatnonzero(mask.any(axis))[[0, -1]].tolist() for axis in (1, 0)]
    return tuple(slice(max(first - margin, 0), last + 1 + margin) for first, last in ends)


@dataclass(frozen=True)
class TeleaFill(_MarchingFill):
    """Continues the surroundings inwards by fast marching (Telea 2004, in OpenCV).

    Attributes:
        radius: pixels around a point that decide its colour.
    """

    name: ClassVar[str] = "telea"
    method: ClassVar[str] = "INPAINT_TELEA"


@dataclass(frozen=True)
class NavierStokesFill(_MarchingFill):
    """Continues lines of equal brightness inwards as a fluid flows (Bertalmio et al. 2001, in OpenCV).

    Attributes:
        radius: pixels around a point that decide its colour.
    """

    name: ClassVar[str] = "navier_stokes"
    method: ClassVar[str] = "INPAINT_NS"
