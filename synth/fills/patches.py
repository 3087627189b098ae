"""A fill that copies fitting patches from elsewhere in the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datamodules.errors import ConfigError
from synth.fills.base import Fill
from synth.fills.masks import Mask, Pixels


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
