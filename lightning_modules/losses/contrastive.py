"""The contrastive loss of CLIP."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.distributed import mean_over_ranks
from lightning_modules.losses.arguments import checked_choice
from lightning_modules.losses.pairs import gather_pairs, same_image

Positives: TypeAlias = Literal["diagonal", "same_image_soft", "mask_same_image"]


class InfoNCELoss(nn.Module):
    """Symmetric cross-entropy between images and captions, over the pairs of all ranks.

    The logits are `scale * images @ texts.T`; row i's target is column i, and the loss is the mean of the image-to-text
    and the text-to-image cross-entropy (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
    Supervision", section 2.3 and figure 3).

    Args:
        positives: what another pair of the same image is. "diagonal": a negative, as in CLIP; "same_image_soft": one
            more positive, the target is split evenly over all pairs of the image (as Li et al. 2021, "Align before
            Fuse", do on top of their momentum targets); "mask_same_image": neither, it is left out of the softmax.

    Raises:
        ConfigError: when `positives` is none of the three.

    Example:
        >>> import torch
        >>> rows = torch.eye(4)
        >>> round(InfoNCELoss()(rows, rows, torch.tensor(10.0)).item(), 5)
        0.00014
    """

    def __init__(self, positives: Positives = "diagonal") -> None:
        super().__init__()
        self.positives = checked_choice("positives", positives, Positives)

    def forward(self, images: Tensor, texts: Tensor, scale: Tensor, image_ids: Tensor | None = None) -> Tensor:
        """Return the loss of one batch.

        Args:
            images: `[B, D]` unit rows; under DDP B may differ between ranks.
            texts: `[B, D]` unit rows; row i belongs to image i.
            scale: scalar, the inverse temperature.
            image_ids: `[B]` int64; not needed for "diagonal".

        Returns:
            A scalar, in nats.

        Raises:
            ValueError: when `image_ids` are needed and missing.
        """
        pairs = gather_pairs(images, texts)
        to_texts, to_images = pairs.similarities()
        same = None if self.positives == "diagonal" else same_image(_given(image_ids, self.positives))
        losses = [self._cross_entropy(scale * logits, pairs.own, same) for logits in (to_texts, to_images)]
        return mean_over_ranks((losses[0] + losses[1]) / 2)

    def _cross_entropy(self, logits: Tensor, own: Tensor, same: Tensor | None) -> Tensor:
        if same is None:
            return F.cross_entropy(logits, own, reduction="none")
        if self.positives == "same_image_soft":
            return F.cross_entropy(logits, same / same.sum(dim=1, keepdim=True, dtype=logits.dtype), reduction="none")
        others = same.scatter(1, own[:, None], value=False)
        return F.cross_entropy(logits.masked_fill(others, -float("inf")), own, reduction="none")


def _given(image_ids: Tensor | None, positives: str) -> Tensor:
    if image_ids is None:
        raise ValueError(f"InfoNCELoss(positives={positives!r}) needs the `image_ids` of the batch.")
    return image_ids
