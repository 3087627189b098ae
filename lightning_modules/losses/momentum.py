"""The contrastive loss of ALBEF and BLIP: soft targets from a momentum model, and a queue of its embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import ConfigError
from lightning_modules.distributed import gather, mean_over_ranks
from lightning_modules.losses.pairs import full_precision

_NO_IMAGE = -100  # what BLIP's checkpoints have where the queue was never filled


class MomentumContrastiveLoss(nn.Module):
    """Cross-entropy between embeddings and those that a momentum model has of the batch and of batches before.

    Images are compared with the momentum captions of all ranks and of the queue, captions with the momentum images,
    both over the temperature. The target of a row is `(1 - alpha)` times an even share for every column of the same
    image plus `alpha` times the softmax that the momentum model itself has for the row; the loss is the mean of both
    directions (Li et al. 2021, "Align before Fuse", section 3.3; Li et al. 2022, "BLIP", section 3.2). Where the
    published code sees, of the batch, only its own rank's columns, this loss sees those of all ranks.

    In training mode each call then puts the momentum embeddings of all ranks into the queue, over the oldest. Its
    length need not be a multiple of the batch size. It starts, as published, with random unit rows that have no image
    id: until it is full, noise counts as negatives.

    Args:
        dim: D, width of the embeddings.
        queue_size: Q, rows that the queue holds.

    Attributes:
        image_queue: `[Q, D]` momentum embeddings of images, in a ring.
        text_queue: `[Q, D]` those of their captions.
        id_queue: `[Q]` int64, image ids, -100 where the queue was never filled.
        pointer: scalar int64, where the next row goes.

    Raises:
        ConfigError: when `queue_size` is below 1.

    Example:
        >>> loss = MomentumContrastiveLoss(dim=2, queue_size=3)
        >>> rows, ids = torch.eye(2), torch.tensor([5, 6])
        >>> value = loss(rows, rows, rows, rows, ids, temperature=0.07, alpha=0.4)
        >>> loss.id_queue.tolist(), loss.pointer.item()
        ([5, 6, -100], 2)
    """

    image_queue: Tensor
    text_queue: Tensor
    id_queue: Tensor
    pointer: Tensor

    def __init__(self, dim: int, queue_size: int) -> None:
        super().__init__()
        if queue_size < 1:
            raise ConfigError(f"`model.init_args.queue_size` is {queue_size}: give a number of at least 1.")
        self.register_buffer("image_queue", F.normalize(torch.randn(queue_size, dim), dim=1))
        self.register_buffer("text_queue", F.normalize(torch.randn(queue_size, dim), dim=1))
        self.register_buffer("id_queue", torch.full((queue_size,), _NO_IMAGE))
        self.register_buffer("pointer", torch.tensor(0))

    def forward(
        self,
        images: Tensor,
        texts: Tensor,
        momentum_images: Tensor,
        momentum_texts: Tensor,
        image_ids: Tensor,
        temperature: Tensor | float,
        alpha: float,
    ) -> Tensor:
        """Return the loss of one batch and, in training mode, put it into the queue.

        Args:
            images: `[B, D]` unit rows; under DDP B may differ between ranks.
            texts: `[B, D]` unit rows; row i belongs to image i.
            momentum_images: `[B, D]` unit rows of the momentum model; no gradient flows to them.
            momentum_texts: `[B, D]` likewise.
            image_ids: `[B]` int64.
            temperature: scalar that the similarities are divided by.
            alpha: weight of the momentum model's softmax in the targets, 0 to 1.

        Returns:
            A scalar, in nats.
        """
        photos, captions = full_precision(momentum_images.detach()), full_precision(momentum_texts.detach())
        everyone = gather(photos), gather(captions), gather(image_ids)
        same = image_ids[:, None] == torch.cat([everyone[2], self.id_queue])
        shares = same / same.sum(dim=1, keepdim=True, dtype=photos.dtype)
        costs = torch.zeros_like(shares[:, 0])
        for rows, momentum_rows, columns in (
            (images, photos, torch.cat([everyone[1], self.text_queue])),
            (texts, captions, torch.cat([everyone[0], self.image_queue])),
        ):
            with torch.autocast(rows.device.type, enabled=False):
                logits = full_precision(rows) @ columns.T / temperature
                with torch.no_grad():
                    soft = F.softmax(momentum_rows @ columns.T / temperature, dim=1)
            costs = costs + F.cross_entropy(logits, alpha * soft + (1 - alpha) * shares, reduction="none") / 2
        if self.training:
            self.enqueue(*everyone)
        return mean_over_ranks(costs)

    @torch.no_grad()
    def enqueue(self, images: Tensor, texts: Tensor, image_ids: Tensor) -> None:
        """Put rows of all ranks into the queue, over the oldest; of more than it holds the last ones stay.

        Args:
            images: `[G, D]` momentum embeddings.
            texts: `[G, D]` those of the captions.
            image_ids: `[G]` int64.
        """
        size, count = len(self.id_queue), len(image_ids)
        first = max(0, count - size)
        places = (self.pointer + torch.arange(first, count, device=self.pointer.device)) % size
        self.image_queue[places] = images[first:].to(self.image_queue.dtype)
        self.text_queue[places] = texts[first:].to(self.text_queue.dtype)
        self.id_queue[places] = image_ids[first:]
        self.pointer.add_(count).remainder_(size)
