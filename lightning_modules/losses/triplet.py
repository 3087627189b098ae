"""The triplet ranking loss of VSE0 and VSE++."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightning_modules.distributed import mean_over_ranks, sum_over_ranks
from lightning_modules.losses.arguments import checked_choice, checked_margin
from lightning_modules.losses.pairs import Pairs, gather_pairs, same_image

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
        ConfigError: when the margin is below 0, or `hinges` or `reduction` is neither of its two values.

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
        self.hinges: Hinges = checked_choice("hinges", hinges, Hinges)
        self.reduction = checked_choice("reduction", reduction, Reduction)
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
        """Return the costs `[B]` of the hardest negatives."""
        with torch.no_grad():
            matrices = pairs.similarities()
            positive = matrices[0].gather(1, pairs.own[:, None])[:, 0]
            costs, places = [], []
            for similarity in matrices:
                similarity[excluded] = -torch.inf
                highest, place = similarity.max(dim=1)
                costs.append(F.relu(self.margin + highest - positive))
                places.append(place)
        hinges: Tensor = _HardestHinges.apply(
            pairs.images, pairs.texts, pairs.all_images, pairs.all_texts, *places, *costs
        )
        return hinges

    def _all(self, pairs: Pairs, excluded: Places) -> Tensor:
        positive = (pairs.images * pairs.texts).sum(dim=1, keepdim=True)
        hinges = [F.relu(self.margin + similarity - positive) for similarity in pairs.similarities()]
        zero = positive.new_zeros(())
        captions, photos = (hinge.index_put(excluded, zero).sum(dim=1) for hinge in hinges)
        return captions + photos


class _HardestHinges(torch.autograd.Function):
    """Costs that are known already, with the gradient of `[m + s(i, c') - s(i, c)]_+ + [m + s(i', c) - s(i, c)]_+`.

    One negative of each kind has a gradient, so the backward pass handles `[B, D]` rows, where one through the
    similarities would twice multiply a `[B, G]` matrix that is nearly all zeros.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        texts: Tensor,
        all_images: Tensor,
        all_texts: Tensor,
        captions: Tensor,
        photos: Tensor,
        caption_costs: Tensor,
        photo_costs: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(
            images, texts, all_images, all_texts, captions, photos, caption_costs > 0, photo_costs > 0
        )
        return caption_costs + photo_costs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, texts, all_images, all_texts, captions, photos, *active = ctx.saved_tensors
        by_caption, by_photo = (torch.where(costly, grad, 0)[:, None] for costly in active)
        pull = by_caption + by_photo
        return (
            all_texts[captions].mul_(by_caption).addcmul_(texts, pull, value=-1),
            all_images[photos].mul_(by_photo).addcmul_(images, pull, value=-1),
            torch.zeros_like(all_images).index_put_((photos,), texts * by_photo, accumulate=True),
            torch.zeros_like(all_texts).index_put_((captions,), images * by_caption, accumulate=True),
            *[None] * 4,
        )
