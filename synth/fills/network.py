"""Fills by a neural network: what to show it, in which batches, and how its answer gets back into the image."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import ConfigError
from synth.fills.base import Fill, mean_colour
from synth.fills.masks import Mask, Pixels

if TYPE_CHECKING:
    import torch

_LEAST_SIDE = 64


@dataclass
class NetworkFill(Fill):
    """A fill by a network, which is loaded at its first use and moves to a GPU by `to`.

    The network sees an image whole, or, where a side exceeds `max_side`, a window of that size around the hole. A hole
    too large for that is shown with half its own size around it, scaled down. The object itself is never shown: its
    place holds the mean colour around it. Windows are padded by reflection to a multiple of `multiple`; those of equal
    size make a batch, so that no image depends on its neighbours in a batch by more than the rounding of its sums.

    A subclass has a `name`, a `version`, `load` and `paint_batch`.

    Attributes:
        max_side: longest side in pixels that the network gets to see.
    """

    __slots__ = ("_device", "_network")  # beside the options: a protocol records those, a worker loads its own network

    needs_surroundings: ClassVar[bool] = True
    on_device: ClassVar[bool] = True
    multiple: ClassVar[int] = 8
    max_side: int = field(default=1024, kw_only=True)

    def __post_init__(self) -> None:
        if self.max_side < _LEAST_SIDE:
            name = type(self).__name__
            raise ConfigError(f"`max_side` of {name} is {self.max_side}; give {_LEAST_SIDE} pixels or more.")

    def __getstate__(self) -> dict[str, Any]:
        return vars(self).copy()

    @abstractmethod
    def load(self) -> Any:
        """Return the network on the CPU; it has a method `to(device)` that returns the moved network."""

    @abstractmethod
    def paint_batch(self, images: Pixels, masks: Mask) -> Pixels:
        """Return images `[B, H, W, 3]` painted inside masks `[B, H, W]`; H and W are multiples of `multiple`."""

    @property
    def device(self) -> torch.device | str:
        """Where the network computes: the CPU unless `to` said otherwise."""
        return getattr(self, "_device", "cpu")

    @property
    def network(self) -> Any:
        """What `load` returned, on `device`."""
        if getattr(self, "_network", None) is None:
            self.to(self.device)
        return self._network

    def to(self, device: torch.device | str) -> None:
        """Move the network to a device, and load it if that is still to be done.

        Raises:
            UserError: if the network cannot be loaded.
        """
        loaded = getattr(self, "_network", None)
        self._network: Any = (self.load() if loaded is None else loaded).to(device)
        self._device = device

    def paint(self, image: Pixels, mask: Mask) -> Pixels:
        """Return the image with the network's pixels in its window."""
        return self.paint_all([image], [mask])[0]

    def paint_all(self, images: Sequence[Pixels], masks: Sequence[Mask]) -> Sequence[Pixels]:
        """Return the images with the network's pixels in their windows; equal sizes go through the network at once."""
        views = [_View(image, mask, self.max_side, self.multiple) for image, mask in zip(images, masks, strict=True)]
        alike: dict[tuple[int, ...], list[_View]] = defaultdict(list)
        for view in views:
            alike[view.mask.shape].append(view)
        for group in alike.values():
            for view, pixels in zip(group, self._painted(group), strict=True):
                view.painted = pixels
        return [view.restored() for view in views]

    def _painted(self, group: Sequence[_View]) -> Pixels:
        import torch

        images, masks = np.stack([view.pixels for view in group]), np.stack([view.mask for view in group])
        try:
            return self.paint_batch(images, masks)
        except torch.OutOfMemoryError as error:
            number, height, width = masks.shape
            raise ConfigError(
                f"`fill` is {type(self).__name__}, whose device has no memory for {number} images of {width} x "
                f"{height} at once; lower `batch_size` or the fill's `max_side`."
            ) from error


class _View:
    """What a network sees of an image, and the way back."""

    def __init__(self, image: Pixels, mask: Mask, max_side: int, multiple: int) -> None:
        self.image = image
        self.window = _window(mask, max_side)
        pixels, hole = _blanked(image[self.window], mask[self.window]), mask[self.window]
        scale = max_side / max(hole.shape)
        if scale < 1:
            pixels, hole = _shrunk(pixels, hole, scale)
        self.size = hole.shape
        self.pixels: Pixels = _padded(pixels, multiple)
        self.mask: Mask = _padded(hole, multiple)
        self.painted: Pixels = self.pixels

    def restored(self) -> Pixels:
        """Return the image with what was painted in its window."""
        import cv2

        inside = self.image[self.window]
        painted = self.painted[: self.size[0], : self.size[1]]
        if painted.shape != inside.shape:
            painted = cv2.resize(painted, inside.shape[1::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        restored = self.image.copy()
        restored[self.window] = painted
        return restored


def _window(mask: Mask, max_side: int) -> tuple[slice, slice]:
    """Return the rows and columns around the hole: `max_side` or half more than the hole, up to all there are."""
    rows, columns = (_span(np.asarray(mask.any(axis)), max_side) for axis in (1, 0))
    return rows, columns


def _span(holes: NDArray[np.bool_], max_side: int) -> slice:
    first, last = np.flatnonzero(holes)[[0, -1]].tolist()
    length = min(max(max_side, math.ceil(1.5 * (last + 1 - first))), len(holes))
    start = min(max((first + last + 1 - length) // 2, 0), len(holes) - length)
    return slice(start, start + length)


def _blanked(image: Pixels, mask: Mask) -> Pixels:
    return np.where(mask[..., None], mean_colour(image, ~mask), image)


def _shrunk(image: Pixels, mask: Mask, scale: float) -> tuple[Pixels, Mask]:
    """Scale down; every pixel that holds a part of the hole belongs to the hole."""
    import cv2

    height, width = (max(round(side * scale), 1) for side in mask.shape)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    hole = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0
    return small, np.asarray(hole, dtype=bool)


def _padded(pixels: NDArray[Any], multiple: int) -> NDArray[Any]:
    """Continue an image or a mask by its reflection below and to the right, as LaMa's own predictor does."""
    missing = [(0, -side % multiple) for side in pixels.shape[:2]]
    return np.pad(pixels, [*missing, *[(0, 0)] * (pixels.ndim - 2)], mode="symmetric")
