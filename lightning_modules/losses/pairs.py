"""What the losses over a batch of pairs share: the rows of all ranks, similarities, and who else shows the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.distributed import gather, gather_with_grad, rank_offset, world_size


@dataclass(frozen=True)
class Pairs:
    """The B pairs of this rank among the G pairs of all ranks, in float32 or wider.

    Attributes:
        images: `[B, D]` embeddings of this rank's images.
        texts: `[B, D]` embeddings of their captions.
        all_images: `[G, D]` embeddings of all ranks' images.
        all_texts: `[G, D]` embeddings of all ranks' captions.
        own: `[B]` int64, where this rank's pairs stand among all.
    """

    images: Tensor
    texts: Tensor
    all_images: Tensor
    all_texts: Tensor
    own: Tensor

    def similarities(self) -> tuple[Tensor, Tensor]:
        """Return dot products `[B, G]` of the images with all captions, and of the captions with all images.

        They keep the precision of the embeddings under autocast: in bfloat16 logits near 100 would lie 0.5 apart.
        Without other ranks the second one is a view of the first, so that the product is taken once.
        """
        with torch.autocast(self.images.device.type, enabled=False):
            to_texts = self.images @ self.all_texts.T
            alone = self.all_images is self.images
            return to_texts, to_texts.T if alone else self.texts @ self.all_images.T


def gather_pairs(images: Tensor, texts: Tensor) -> Pairs:
    """Return the pairs of this rank among those of all ranks; gradients flow to the rank that owns a row.

    Args:
        images: `[B, D]` embeddings; B may differ between ranks.
        texts: `[B, D]` embeddings; row i belongs to image i.

    Example:
        >>> pairs = gather_pairs(torch.eye(2), torch.eye(2))
        >>> pairs.own.tolist(), pairs.similarities()[0].tolist()
        ([0, 1], [[1.0, 0.0], [0.0, 1.0]])
    """
    images, texts = full_precision(images), full_precision(texts)
    places = torch.arange(len(images), device=images.device)
    if world_size() == 1:
        return Pairs(images, texts, images, texts, places)
    all_images, all_texts = gather_with_grad(torch.cat([images, texts], dim=1)).chunk(2, dim=1)
    return Pairs(images, texts, all_images, all_texts, places + rank_offset(len(images)))


def same_image(image_ids: Tensor) -> Tensor:
    """Say which of all ranks' pairs show the image of each of this rank's pairs, itself among them.

    Args:
        image_ids: `[B]` int64.

    Returns:
        `[B, G]` bool.

    Example:
        >>> same_image(torch.tensor([7, 8, 7])).int().tolist()
        [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    """
    return image_ids[:, None] == gather(image_ids)[None]


def full_precision(values: Tensor) -> Tensor:
    """Return floats of half precision as float32, wider ones as they are."""
    return values.float() if values.dtype.itemsize < 4 else values


def products(rows: Tensor, others: Tensor) -> Tensor:
    """Return the dot products `[B, G]` of rows `[B, D]` with others `[G, D]`, in float32 or wider under autocast too.

    Example:
        >>> products(torch.eye(2).bfloat16(), torch.ones(1, 2)).tolist()
        [[1.0], [1.0]]
    """
    with torch.autocast(rows.device.type, enabled=False):
        return full_precision(rows) @ full_precision(others).T
