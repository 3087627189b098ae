"""What every detector promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import ConfigError

if TYPE_CHECKING:
    from synth.fills import Pixels


class Detections(NamedTuple):
    """The N objects found in one image.

    Attributes:
        boxes: `[N, 4]` float32, x1, y1, x2, y2 in pixels; they may stick out of the image.
        classes: `[N]` int64, position in the detector's `labels`.
        scores: `[N]` float32, from 0 to 1.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]


class Detector(ABC):
    """Finds objects in images.

    A detector of your own is a subclass with `labels` and `detect`; a config takes it by its class path.

    Attributes:
        version: to be raised whenever the same image could give other boxes.
    """

    version: ClassVar[int] = 1

    @property
    @abstractmethod
    def labels(self) -> Sequence[str]:
        """Names of the detector's classes; those that the data set has not are dropped by whoever calls it."""

    @abstractmethod
    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return the objects of each image, whatever stands beside it.

        Args:
            images: `[H, W, 3]` uint8 RGB each, of one size or of many.
        """

    def load(self) -> None:  # noqa: B027 (not every detector has something to load)
        """Load what computes, if that is still to be done: called before the first image, so that mistakes show early.

        Raises:
            ConfigError: it cannot be loaded.
        """

    def identity(self) -> dict[str, Any]:
        """Return the options that decide what is found, with the content of model files in place of their paths."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}


def check_share(detector: Detector, *keys: str) -> None:
    """Make sure that options of a detector lie between 0 and 1.

    Raises:
        ConfigError: one of them does not.
    """
    for key in keys:
        value = getattr(detector, key)
        if not 0 <= value <= 1:
            raise ConfigError(f"`{key}` of {type(detector).__name__} is {value}; give a number from 0 to 1.")
