"""An image that shows one of two classes that mostly come together must say which."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.distributed import mean_over_ranks
from lightning_modules.losses.pairs import products


class SpuriousPairsLoss(nn.Module):
    """Cross-entropy of images between the prompts of two spurious partners, over all images that show one alone.

    For a pair (c, p) of classes and an image i that shows c and not p, the cost is
    `-log(exp(s * i @ t_c) / (exp(s * i @ t_c) + exp(s * i @ t_p)))` with t the prompts and s the scale: what the model
    sees must be nearer to the class than to the partner that it expects beside it. An image that shows p and not c
    costs the same with c and p exchanged; images of both or of neither cost nothing. The loss is the mean over all
    such combinations of an image and a pair on all ranks.

    It is the class term and the spurious class term of spurious-aware fine-tuning at once, for a retrieval model: of
    two partners either is the class where it is shown, and the spurious attribute where it is not (a term of this
    project, not of a paper).

    Example:
        >>> import torch
        >>> pairs, shown = torch.tensor([[0, 1]]), torch.tensor([[True, False], [True, True]])
        >>> round(SpuriousPairsLoss()(torch.eye(2), torch.eye(2), torch.tensor(2.0), shown, pairs).item(), 4)
        0.1269
    """

    def forward(self, images: Tensor, prompts: Tensor, scale: Tensor, shown: Tensor, pairs: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            images: `[B, D]` unit rows; under DDP B may differ between ranks.
            prompts: `[K, D]` unit rows, a prompt for each class, the same on all ranks.
            scale: scalar, the inverse temperature.
            shown: `[B, K]` bool, the classes that each image shows.
            pairs: `[P, 2]` int64, rows of the prompts of two partners.

        Returns:
            A scalar in nats, 0 where no image shows one partner alone.
        """
        logits, (first, second) = scale * products(images, prompts), pairs.T
        ahead = logits[:, first] - logits[:, second]
        sign = shown[:, first].int() - shown[:, second].int()
        return mean_over_ranks(F.softplus(-sign * ahead)[sign != 0])
