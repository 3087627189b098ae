"""LaMa, a network for large holes, from a local TorchScript file."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datamodules.errors import ConfigError, MissingPathError
from synth.fills.masks import Mask, Pixels
from synth.fills.network import NetworkFill
from synth.weights import content


@dataclass
class LamaFill(NetworkFill):
    """Large-mask inpainting (Suvorov et al. 2022) by a TorchScript export such as `big-lama.pt`.

    The file must take an image `[B, 3, H, W]` in RGB from 0 to 1 and a mask `[B, 1, H, W]`, 1 inside the hole, and
    return an image `[B, 3, H, W]` from 0 to 1 or from 0 to 255; which of both, a white image tells after loading.
    A TorchScript file is a program: loading it runs what its author wrote. Load only files that you trust.

    Attributes:
        path: the TorchScript file.
        max_side: longest side in pixels that the network gets to see.
    """

    __slots__ = ("_white",)

    name: ClassVar[str] = "lama"
    path: Path

    def __post_init__(self) -> None:
        super().__post_init__()
        if not Path(self.path).is_file():
            raise MissingPathError(f"`path` of LamaFill is {self.path}, which is no file; mend the path.")

    def identity(self) -> dict[str, Any]:
        """Return the options that decide what is painted; in place of the path, what the file holds."""
        return {**super().identity(), "path": content(self.path)}

    def load(self) -> Any:
        """Return the network in evaluation mode.

        Raises:
            ConfigError: if the file is no TorchScript, or its network does not take and return what is said above.
        """
        import torch

        try:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # TorchScript is how LaMa comes
                network = torch.jit.load(self.path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
            white = _call(network, torch.ones(1, 3, 128, 128), torch.zeros(1, 1, 128, 128))
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise ConfigError(
                f"`path` of LamaFill, {self.path}, is no TorchScript file of a network that takes an image and a mask "
                f"({reason}); fetch it anew or name another."
            ) from error
        if white.shape != (1, 3, 128, 128):
            raise ConfigError(
                f"`path` of LamaFill, {self.path}, gives {list(white.shape)} for an image [1, 3, 128, 128]; "
                "name an inpainting network."
            )
        self._white = 255.0 if white.max() > 2 else 1.0
        return network

    def paint_batch(self, images: Pixels, masks: Mask) -> Pixels:
        """Return what the network paints."""
        import torch

        network = self.network
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255
        holes = torch.from_numpy(masks).to(self.device)[:, None].float()
        painted = _call(network, pixels, holes) * (255 / self._white)
        rounded = painted.float().round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        return np.asarray(rounded.cpu().numpy(), np.uint8)


def _call(network: Any, images: Any, masks: Any) -> Any:
    """Return the network's answer; every call is the first one, since an optimised later one may round differently."""
    import torch

    with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        return network(images, masks)
