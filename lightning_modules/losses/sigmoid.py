"""The sigmoid loss of SigLIP."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.distributed import mean_over_ranks
from lightning_modules.losses.pairs import gather_pairs


class SigmoidLoss(nn.Module):
    """Every image and caption of all ranks are judged alone: one pair or not.

    The logits are `scale * images @ texts.T + bias`; the loss is `-log sigmoid(logit)` of the pairs and
    `-log sigmoid(-logit)` of all other combinations, summed, over the number of pairs (Zhai et al. 2023, "Sigmoid Loss
    for Language Image Pre-Training", section 3.2 and algorithm 1).

    Example:
        >>> import torch
        >>> rows = torch.eye(2)
        >>> round(SigmoidLoss()(rows, rows, torch.tensor(10.0), torch.tensor(-5.0)).item(), 4)
        0.0134
    """

    def forward(self, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            images: `[B, D]` unit rows; under DDP B may differ between ranks.
            texts: `[B, D]` unit rows; row i belongs to image i.
            scale: scalar, the inverse temperature (its learned logarithm is t' of the paper).
            bias: scalar, added to every logit.

        Returns:
            A scalar, in nats per pair.
        """
        pairs = gather_pairs(images, texts)
        logits = scale * pairs.similarities()[0] + bias
        signed = (-logits).scatter(1, pairs.own[:, None], logits.gather(1, pairs.own[:, None]))
        return mean_over_ranks(-F.logsigmoid(signed).sum(dim=1))
