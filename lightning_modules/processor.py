"""What a backbone asks of its inputs; it belongs to the backbone and travels with its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL.Image import Image
from torch import Tensor


def as_rgb(image: Image) -> Image:
    """Return an image as RGB, one that is so as it is.

    Example:
        >>> import PIL.Image
        >>> as_rgb(PIL.Image.new("L", (1, 1), 7)).getpixel((0, 0))
        (7, 7, 7)
    """
    return image if image.mode == "RGB" else image.convert("RGB")


@dataclass(frozen=True)
class Processor:
    """Image transforms and tokenizer of a backbone.

    Attributes:
        train_image: image -> `[3, H, W]` float32, with augmentation; draws from global generators alone, torch's,
            numpy's or Python's, which the data set seeds for every sample.
        eval_image: image -> `[3, H, W]` float32, deterministic.
        tokenize: B captions -> `[B, L]` int64, or a mapping of such tensors.
    """

    train_image: Callable[[Image], Tensor]
    eval_image: Callable[[Image], Tensor]
    tokenize: Callable[[list[str]], Tensor | Mapping[str, Tensor]]
