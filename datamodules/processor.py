"""What a datamodule asks of a backbone: turn pictures and captions into tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from datamodules.batch import Tokens


@runtime_checkable
class Processor(Protocol):
    """Preprocessing of one backbone; it belongs to the model and travels with its checkpoint.

    Loader workers call it, so an implementation must pickle. Random transforms may draw from torch's, numpy's or
    Python's global generator: the dataset seeds all three for every sample.
    """

    def train_image(self, image: Image.Image, /) -> Tensor:
        """Return an RGB image of any size as `[3, H, W]` float32, augmented for training."""

    def eval_image(self, image: Image.Image, /) -> Tensor:
        """Return an RGB image of any size as `[3, H, W]` float32, the same every time."""

    def tokenize(self, captions: list[str], /) -> Tokens:
        """Return B captions as `[B, L]` int64 tokens, or as a mapping of names to such tensors."""
