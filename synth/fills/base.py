"""What every fill promises: it changes the mask and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import ConfigError
from synth.fills.masks import Mask, Pixels


class Fill(ABC):
    """Paints over the masked pixels of an image; all other pixels stay bit-identical.

    A fill of your own is a subclass with a `name`, a `version` and `paint`; a config takes it by its class path.

    Attributes:
        name: what the metadata of a synthetic image call the fill.
        version: to be raised whenever the same input could give other pixels.
        needs_surroundings: True where `paint` continues the pixels around the mask. Where nothing is around it, such
            a fill falls back to the mean colour.
        on_device: True where the fill gains from a GPU and from batches: a `NetworkFill`.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    needs_surroundings: ClassVar[bool] = False
    on_device: ClassVar[bool] = False

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
        return self.batch([image], [mask])[0]

    def batch(self, images: Sequence[Pixels], masks: Sequence[Mask]) -> list[Pixels]:
        """Return filled copies of images, of one size or of many.

        Args:
            images: `[H, W, 3]` uint8 RGB each.
            masks: `[H, W]` bool each, of the size of its image.

        Returns:
            For each image what `__call__` gives for it.

        Raises:
            TypeError: if an image is not uint8 or a mask is not bool.
            ValueError: if the shapes or the numbers do not fit.
            ConfigError: if what the fill paints is neither an image of this size nor one colour, or is not uint8.
        """
        pairs = list(zip(images, masks, strict=True))
        for pair in pairs:
            _check(*pair)
        paintable = [index for index, (_, mask) in enumerate(pairs) if self._can_paint(mask)]
        painted = self.paint_all([images[index] for index in paintable], [masks[index] for index in paintable])
        new = dict(zip(paintable, painted, strict=True))
        for index, found in new.items():
            self._check_painted(found, images[index])
        return [_paste(image, mask, new.get(index)) for index, (image, mask) in enumerate(pairs)]

    def _check_painted(self, painted: NDArray[Any], image: Pixels) -> None:
        if painted.dtype != np.uint8 or painted.shape not in (image.shape, (3,)):
            raise ConfigError(
                f"`fill` {type(self).__name__} painted {painted.dtype} {list(painted.shape)} for an image "
                f"{list(image.shape)}; its `paint` must return uint8 of that shape, or one colour [3]."
            )

    def _can_paint(self, mask: Mask) -> bool:
        return bool(mask.any()) and not (self.needs_surroundings and bool(mask.all()))

    def paint_all(self, images: Sequence[Pixels], masks: Sequence[Mask]) -> Sequence[Pixels]:
        """Return what `paint` gives for every image; a fill that works in batches overrides it."""
        return [self.paint(image, mask) for image, mask in zip(images, masks, strict=True)]

    def identity(self) -> dict[str, Any]:
        """Return the options that decide what is painted, for the protocol of a set."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    @abstractmethod
    def paint(self, image: Pixels, mask: Mask) -> Pixels:
        """Return an image, or one colour `[3]`, whose pixels inside the mask are to be used; the mask is not empty."""


def mean_colour(image: Pixels, mask: Mask) -> Pixels:
    """Return the mean colour `[3]` of the masked pixels, rounded; the mask is not empty."""
    colour: Pixels = np.rint(image[mask].mean(0)).astype(np.uint8)
    return colour


def _paste(image: Pixels, mask: Mask, painted: Pixels | None) -> Pixels:
    if not mask.any():
        return image.copy()
    return np.where(mask[..., None], mean_colour(image, mask) if painted is None else painted, image)


def _check(image: NDArray[Any], mask: NDArray[Any]) -> None:
    if image.dtype != np.uint8 or mask.dtype != np.bool_:
        raise TypeError(f"a fill takes a uint8 image and a bool mask, got {image.dtype} and {mask.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or mask.shape != image.shape[:2]:
        raise ValueError(f"a fill takes [H, W, 3] and [H, W], got {list(image.shape)} and {list(mask.shape)}")
