"""The matching loss of ALBEF and BLIP, and the sampling of its hard negatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.distributed import mean_over_ranks
from lightning_modules.losses.pairs import full_precision


class MatchingLoss(nn.Module):
    """Two-way cross-entropy of a cross-encoder that says whether an image and a caption belong together.

    The loss is the mean over the combinations of all ranks (Li et al. 2021, "Align before Fuse", section 3.2).

    Example:
        >>> round(MatchingLoss()(torch.zeros(3, 2), torch.tensor([True, False, False])).item(), 4)
        0.6931
    """

    def forward(self, logits: Tensor, matched: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            logits: `[N, 2]`, for "apart" and "together"; under DDP N may differ between ranks and be 0.
            matched: `[N]` bool or 0 and 1, whether the two belong together.

        Returns:
            A scalar, in nats.
        """
        return mean_over_ranks(F.cross_entropy(full_precision(logits), matched.long(), reduction="none"))


@torch.no_grad()
def hard_negatives(similarity: Tensor, same: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a negative for every row, with the probability that the softmax of its candidates gives.

    The candidates are the columns that do not belong to the row's image (Li et al. 2021, "Align before Fuse", section
    3.2). The draw adds Gumbel noise to the logits and takes the highest, which is the same distribution and, unlike one
    by probabilities, knows rows without a candidate and no underflow.

    Args:
        similarity: `[B, G]` logits: similarities over the temperature.
        same: `[B, G]` bool, True where the column belongs to the row's image.
        generator: draws the noise, on the device of the logits; None: torch's own.

    Returns:
        `[B]` int64, columns; -1 where a row has no candidate.

    Example:
        >>> same = torch.tensor([[True, False], [True, True]])
        >>> hard_negatives(torch.zeros(2, 2), same).tolist()
        [1, -1]
    """
    noise = torch.empty_like(similarity, dtype=torch.float32).exponential_(generator=generator).log()
    chosen = (similarity - noise).masked_fill(same, -torch.inf).argmax(dim=1)
    return chosen.masked_fill(same.all(dim=1), -1)
