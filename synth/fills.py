"""What stands where an object stood: every fill takes an image and a mask, and leaves all other pixels alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules.errors import ConfigError

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


class Fill(ABC):
    """Paints over the masked pixels of an image; all other pixels stay bit-identical.

    A fill of your own is a subclass with a `name`, a `version` and `paint`; a config takes it by its class path.

    Attributes:
        name: what the metadata of a synthetic image call the fill.
        version: to be raised whenever the same input could give other pixels.
        needs_surroundings: True where `paint` continues the pixels around the mask. Where nothing is around it, such
            a fill falls back to the mean colour.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    needs_surroundings: ClassVar[bool] = False

    def __call__(self, image: Pixels, mask: Mask) -> Pixels:
        """Return a filled copy of an image.

        Args:
            image: `[H, W, 3]` uint8 RGB.
            mask: `[H, W]` bool, True where to fill.

        Returns:
            `[H, W, 3]` uint8, equal to `image` wherever `mask` is False.

        Raises:
            TypeError: if the image is not uint8 or the mask is not bool.
            ValueError: if the shapes do not fit.
        """
        _check(image, mask)
        if not mask.any():
            return image.copy()
        alone = self.needs_surroundings and bool(mask.all())
        painted = MeanFill().paint(image, mask) if alone else self.paint(image, mask)
        return np.where(mask[..., None], painted, image)

    @abstractmethod
    def paint(self, image: Pixels, mask: Mask) -> Pixels:
        """Return an image, or one colour `[3]`, whose pixels inside the mask are to be used; the mask is not empty."""


def _check(image: NDArray[Any], mask: NDArray[Any]) -> None:
    if image.dtype != np.uint8 or mask.dtype != np.bool_:
        raise TypeError(f"a fill takes a uint8 image and a bool mask, got {image.dtype} and {mask.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or mask.shape != image.shape[:2]:
        raise ValueError(f"a fill takes [H, W, 3] and [H, W], got {list(image.shape)} and {list(mask.shape)}")


@dataclass(frozen=True)
class ZeroFill(Fill):
    """Black (paper, section 4.4, "zero").

    Example:
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
        colour: Pixels = np.rint(image[mask].mean(0)).astype(np.uint8)
        return colour


@dataclass(frozen=True)
class BlurFill(Fill):
    """The Gaussian blur of the whole image, pasted inside the mask (paper, section 4.4, "blur").

    Attributes:
        sigma: standard deviation as a fraction of the longer side of the image.
    """

    name: ClassVar[str] = "blur"
    sigma: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 1:
            raise ConfigError(
                f"`sigma` of BlurFill is {self.sigma}; give a fraction of the image size above 0 and up to 1."
            )

    def paint(self, image: Pixels, mask: Mask) -> Pixels:
        """Return the blurred image."""
        import cv2

        return np.asarray(cv2.GaussianBlur(image, (0, 0), self.sigma * max(mask.shape)), np.uint8)


@dataclass(frozen=True)
class TeleaFill(Fill):
    """Continues the surroundings inwards by fast marching (Telea 2004, in OpenCV): no weights, smooth in large holes.

    Attributes:
        radius: pixels around a point that decide its colour.
    """

    name: ClassVar[str] = "telea"
    needs_surroundings: ClassVar[bool] = True
    radius: float = 3.0

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ConfigError(f"`radius` of TeleaFill is {self.radius}; give a number of pixels above 0.")

    def paint(self, image: Pixels, mask: Mask) -> Pixels:
        """Return the inpainted image."""
        import cv2

        return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), self.radius, cv2.INPAINT_TELEA), np.uint8)


@dataclass(frozen=True)
class PatchMatchFill(Fill):
    """Copies fitting patches from elsewhere in the image (Barnes et al. 2009, package `pypatchmatch`).

    Attributes:
        patch_size: radius of the compared patches in pixels; the time grows with its square.
        seed: start of the random search; equal seeds give equal pixels.
    """

    name: ClassVar[str] = "patchmatch"
    needs_surroundings: ClassVar[bool] = True
    patch_size: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.patch_size < 1:
            raise ConfigError(f"`patch_size` of PatchMatchFill is {self.patch_size}; give a radius of 1 pixel or more.")

    def paint(self, image: Pixels, mask: Mask) -> Pixels:
        """Return the inpainted image."""
        import patchmatch

        if not patchmatch.patchmatch_available:
            raise ConfigError(
                "`fill` is PatchMatchFill, but pypatchmatch came without its compiled library on this platform; "
                "reinstall it where a C++ compiler is at hand, or choose another fill."
            )
        patchmatch.set_random_seed(self.seed)
        holes = mask.astype(np.uint8)
        return np.asarray(patchmatch.inpaint(np.ascontiguousarray(image), holes, patch_size=self.patch_size), np.uint8)
