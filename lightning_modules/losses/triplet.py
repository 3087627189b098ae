"""The triplet ranking loss of VSE0 and VSE++."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.distributed import mean_over_ranks, sum_over_ranks
from lightning_modules.losses.pairs import Pairs, checked_margin, gather_pairs, same_image

Hinges: TypeAlias = Literal["max", "sum"]
Reduction: TypeAlias = Literal["sum", "mean"]
Places: TypeAlias = tuple[Tensor, Tensor]
"""Row and column numbers, each `[N]` int64."""


class TripletLoss(nn.Module):
    """Hinges that ask each pair to be more similar than its negatives by a margin, in both directions.

    With s(i, c) the dot product of image i and caption c, a pair (i, c) costs `[m + s(i, c') - s(i, c)]_+` for negative
    captions c' and `[m + s(i', c) - s(i, c)]_+` for negative images i', where the negatives are the other pairs of all
    ranks. "sum" adds up all of them (VSE0), "max" counts the hardest of each kind alone (VSE++; Faghri et al. 2018,
    "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", section 2). Where all embeddings are equal, the
    loss of B pairs with "max" and "sum" reduction is 2 * B * margin.

    Args:
        margin: m, at least 0.
        hinges: "max" or "sum"; the attribute may be changed between batches, for instance to warm up with the sum.
        reduction: "sum" over the pairs, as published, where the gradient grows with the batch, or their "mean".
        mask_same_image: leave out negatives of the same image.

    Attributes:
        hinges: as above.

    Raises:
        ConfigError: when the margin is below 0.

    Example:
        >>> rows = torch.ones(3, 1)
        >>> TripletLoss(margin=0.25)(rows, rows)
        tensor(1.5000)
    """

    def __init__(
        self,
        margin: float = 0.2,
        hinges: Hinges = "max",
        reduction: Reduction = "sum",
        mask_same_image: bool = False,
    ) -> None:
        super().__init__()
        self.margin = checked_margin(margin, type(self).__name__)
        self.hinges: Hinges = hinges
        self.reduction = reduction
        self.mask_same_image = mask_same_image

    def forward(self, images: Tensor, texts: Tensor, image_ids: Tensor | None = None) -> Tensor:
        """Return the loss of one batch.

        Args:
            images: `[B, D]` unit rows; under DDP B may differ between ranks.
            texts: `[B, D]` unit rows; row i belongs to image i.
            image_ids: `[B]` int64, needed for `mask_same_image` alone.

        Returns:
            A scalar.

        Raises:
            ValueError: when `image_ids` are needed and missing.
        """
        pairs = gather_pairs(images, texts)
        excluded = self._excluded(pairs, image_ids)
        costs = self._hardest(pairs, excluded) if self.hinges == "max" else self._all(pairs, excluded)
        return sum_over_ranks(costs) if self.reduction == "sum" else mean_over_ranks(costs)

    def _excluded(self, pairs: Pairs, image_ids: Tensor | None) -> Places:
        if not self.mask_same_image:
            return torch.arange(len(pairs.own), device=pairs.own.device), pairs.own
        if image_ids is None:
            raise ValueError("TripletLoss(mask_same_image=True) needs the `image_ids` of the batch.")
        rows, columns = same_image(image_ids).nonzero(as_tuple=True)
        return rows, columns

    def _hardest(self, pairs: Pairs, excluded: Places) -> Tensor:
        """Return the costs `[B]` of the hardest negatives.

        Only they have a gradient, so the similarities to all others are taken without one: the backward pass handles
        `[B, D]` rows instead of two `[B, G]` by `[G, D]` products.
        """
        captions, photos = _hardest_negatives(pairs, excluded)
        positive = (pairs.images * pairs.texts).sum(dim=1)
        costs = torch.zeros_like(positive)
        for rows, others, (place, exists) in (
            (pairs.images, pairs.all_texts, captions),
            (pairs.texts, pairs.all_images, photos),
        ):
            hinge = F.relu(self.margin + (rows * others[place]).sum(dim=1) - positive)
            costs = costs + hinge.where(exists, 0)
        return costs

    def _all(self, pairs: Pairs, excluded: Places) -> Tensor:
        positive = (pairs.images * pairs.texts).sum(dim=1, keepdim=True)
        hinges = [F.relu(self.margin + similarity - positive) for similarity in pairs.similarities()]
        zero = positive.new_zeros(())
        captions, photos = (hinge.index_put(excluded, zero).sum(dim=1) for hinge in hinges)
        return captions + photos


@torch.no_grad()
def _hardest_negatives(pairs: Pairs, excluded: Places) -> list[Places]:
    """Return, for captions and for images, where the most similar negative `[B]` stands and whether there is one."""
    found = []
    for similarity in pairs.similarities():
        similarity[excluded] = -torch.inf
        highest, place = similarity.max(dim=1)
        found.append((place, highest > -torch.inf))
    return found
