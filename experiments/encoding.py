"""Texts and images as embeddings, and pictures as a model sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from datamodules import RetrievalDataModule
from datamodules.datasets import OriginalImages, RetrievalDataset
from datamodules.errors import ConfigError, UnreadableImageError
from datamodules.group_datasets import EvaluationGroupImages
from datamodules.loaders import evaluation_loaders
from lightning_modules import ImageTextModule

if TYPE_CHECKING:
    from PIL import Image

    from experiments.options import Data

_TEXTS = 256


@torch.no_grad()
def embed_texts(model: ImageTextModule, templates: Sequence[str], names: Sequence[str]) -> Tensor:
    """Embed names in prompts; the embedding of a name is the mean over its prompts.

    Args:
        model: its text encoder.
        templates: prompts in which {} stands for the name.
        names: M names.

    Returns:
        `[M, D]` unit rows on the device of the model.

    Raises:
        ConfigError: the model gives what is not finite.
    """
    texts = [template.replace("{}", name) for name in names for template in templates]
    rows = [_encode_texts(model, texts[start : start + _TEXTS]) for start in range(0, len(texts), _TEXTS)]
    means = torch.cat(rows).reshape(len(names), len(templates), -1).mean(dim=1)
    return F.normalize(finite(means, model, "texts"), dim=-1)


def finite(values: Tensor, model: ImageTextModule, of: str) -> Tensor:
    """Return what a model makes of images or texts.

    Raises:
        ConfigError: some of it is not finite.
    """
    if not values.isfinite().all():
        raise ConfigError(
            f"{type(model).__name__} makes of {of} what is not finite, as a model does whose training diverged: give "
            "`--ckpt` another checkpoint."
        )
    return values


def _encode_texts(model: ImageTextModule, texts: list[str]) -> Tensor:
    tokens = model.processor.tokenize(texts)
    if isinstance(tokens, Mapping):
        return model.encode_texts({name: tensor.to(model.device) for name, tensor in tokens.items()}).float()
    return model.encode_texts(tokens.to(model.device)).float()


@torch.no_grad()
def embed_images(model: ImageTextModule, data: Data, rows: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
    """Embed images of a data set.

    Args:
        model: its image encoder.
        data: prepared.
        rows: `[N]` image rows.

    Returns:
        `[R, D]` unit rows on the CPU, and `[R]` their image rows: those of `rows` that can be read.

    Raises:
        UnreadableImageError: too many cannot be read, or none can.
        ConfigError: the model gives what is not finite.
    """
    dataset: RetrievalDataset
    if isinstance(data, RetrievalDataModule):
        dataset = OriginalImages(data.tables, data.image_root, rows, model.processor, data.reader)
    else:
        dataset = EvaluationGroupImages(data.table, data.image_root, rows, model.processor, data.reader)
    loader = evaluation_loaders([dataset], None, data.num_workers, data.seed, data.eval_batch_size)[0]
    ids, embeddings = [], []
    for batch in loader:
        if batch.pixel_values is not None:
            ids.append(batch.image_ids)
            embeddings.append(model.encode_images(batch.pixel_values.to(model.device)).float().cpu())
    if not ids:
        raise UnreadableImageError(f"None of the {len(rows)} images that are asked for can be read: replace the files.")
    order = np.argsort(dataset.image_ids)
    places = np.searchsorted(dataset.image_ids, torch.cat(ids).numpy(), sorter=order)
    return finite(torch.cat(embeddings), model, "images"), rows[order[places]]


class Frame:
    """How a model's preprocessing brings pictures of one size before the model.

    Preprocessing scales, crops or pads, and then maps every channel by a linear function. What it makes of a black and
    of a white picture tells that function, so that nothing need be known of the processor.

    Args:
        eval_image: RGB picture -> `[3, H, W]` float32.
        size: width and height of the pictures.

    Example:
        >>> import PIL.Image
        >>> def halves(picture):
        ...     return torch.tensor(np.asarray(picture)[:, ::2] / 100 - 1).permute(2, 0, 1)
        >>> frame = Frame(halves, (4, 1))
        >>> mask = PIL.Image.fromarray(np.array([[0, 255, 255, 0]], dtype=np.uint8))
        >>> frame.region(mask).tolist()
        [[False, True]]
    """

    def __init__(self, eval_image: Callable[[Image.Image], Tensor], size: tuple[int, int]) -> None:
        from PIL import Image

        self._eval_image = eval_image
        self._black, white = (eval_image(Image.new("RGB", size, shade)) for shade in ("black", "white"))
        self._span = white - self._black

    def region(self, mask: Image.Image) -> Tensor:
        """Return what the model sees of a region, `[H, W]` bool, from its mask in the pixels of the picture."""
        return self._levels(self._eval_image(mask.convert("RGB"))).mean(dim=0) > 0.5

    def shown(self, pixel_values: Tensor) -> NDArray[np.uint8]:
        """Return the picture that the model sees, `[H, W, 3]`, from its `[3, H, W]` pixel values."""
        return (255 * self._levels(pixel_values)).round().byte().permute(1, 2, 0).numpy()

    def _levels(self, pixel_values: Tensor) -> Tensor:
        """Return values from 0 to 1; what was padded is 0."""
        return ((pixel_values - self._black) / self._span).nan_to_num(0, 0, 0).clamp(0, 1)
