"""The contrastive loss of CLIP."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.distributed import gather_with_grad


class InfoNCELoss(nn.Module):
    """Symmetric cross-entropy between images and captions, over the pairs of all ranks.

    The logits are `scale * images @ texts.T`; row i's target is column i, and the loss is the mean of the image-to-text
    and the text-to-image cross-entropy (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
    Supervision", section 2.3 and figure 3). Under DDP the embeddings of all ranks are gathered with their gradients.
    The logits keep the precision of the embeddings under autocast: in bfloat16 those near 100 would lie 0.5 apart.

    Example:
        >>> rows = torch.eye(4)
        >>> round(InfoNCELoss()(rows, rows, torch.tensor(10.0)).item(), 5)
        0.00014
    """

    def forward(self, image_embeddings: Tensor, text_embeddings: Tensor, scale: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            image_embeddings: `[B, D]` unit rows.
            text_embeddings: `[B, D]` unit rows; row i belongs to image i.
            scale: scalar, the inverse temperature.

        Returns:
            A scalar, in nats.
        """
        images, texts = gather_with_grad(image_embeddings), gather_with_grad(text_embeddings)
        with torch.autocast(images.device.type, enabled=False):
            logits = scale * images @ texts.T
        targets = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
