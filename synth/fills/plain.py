"""Fills that hide the object and invent nothing: black, the mean colour, a blur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datamodules.errors import ConfigError
from synth.fills.base import Fill, mean_colour
from synth.fills.masks import Mask, Pixels

_SIGMA = 8.0


@dataclass(frozen=True)
class ZeroFill(Fill):
    """Black (paper, section 4.4, "zero").

    Example:
        >>> import numpy as np
        >>> ZeroFill()(np.full((1, 2, 3), 9, np.uint8), np.array([[True, False]])).tolist()
        [[[0, 0, 0], [9, 9, 9]]]
    """

    name: ClassVar[str] = "zero"

    def paint(self, image: Pixels, mask: Mask) -> Pixels:
        """Return black."""
        return np.zeros(3, np.uint8)


@dataclass(frozen=True)
class MeanFill(Fill):
    """The mean colour of the masked pixels, rounded (paper, section 4.4, "mean")."""

    name: ClassVar[str] = "mean"

    def paint(self, image: Pixels, mask: Mask) -> Pixels:
        """Return the mean colour."""
        return mean_colour(image, mask)


@dataclass(frozen=True)
class BlurFill(Fill):
    """The Gaussian blur of the whole image, pasted inside the mask (paper, section 4.4, "blur").

    A wide blur leaves no details, so it is computed on a scaled copy where `sigma` is 8 pixels: within 2 levels of the
    full computation, at a fraction of its time and memory.

    Attributes:
        sigma: standard deviation as a fraction of the longer side of the image.
    """

    name: ClassVar[str] = "blur"
    version: ClassVar[int] = 2
    sigma: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 1:
            raise ConfigError(
                f"`sigma` of BlurFill is {self.sigma}; give a fraction of the image size above 0 and up to 1."
            )

    def paint(self, image: Pixels, mask: Mask) -> Pixels:
        """Return the blurred image."""
        import cv2

        height, width = mask.shape
        sigma = self.sigma * max(height, width)
        scale = min(_SIGMA / sigma, 1)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        blurred = cv2.GaussianBlur(small, (0, 0), sigma * scale)
        return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
