"""Cross-entropy of images against prompts: a classifier whose weights are embeddings of words."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.distributed import mean_over_ranks
from lightning_modules.losses.pairs import products


class PromptCrossEntropyLoss(nn.Module):
    """Cross-entropy of the images of all ranks, where the logit of a class is `scale * image @ prompt`.

    With one prompt for every class it is empirical risk minimisation of CLIP's zero-shot classifier. With one prompt
    for every value of a spurious attribute ("bird on land", "bird on water") and those values as targets, it teaches
    the model to name what is spurious, so that words can keep it apart from the class: the spurious class term of
    spurious-aware fine-tuning (re-implemented from the abstract of "Mitigating Spurious Correlations in Multi-modal
    Models during Fine-tuning" and its public code).

    Example:
        >>> import torch
        >>> images, scale = torch.eye(2), torch.tensor(2.0)
        >>> round(PromptCrossEntropyLoss()(images, torch.eye(2), scale, torch.tensor([0, 1])).item(), 4)
        0.1269
    """

    def forward(self, images: Tensor, prompts: Tensor, scale: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            images: `[B, D]` unit rows; under DDP B may differ between ranks.
            prompts: `[K, D]` unit rows, the same on all ranks.
            scale: scalar, the inverse temperature.
            targets: `[B]` int64 from 0 to K - 1, the row of the prompt that is right.

        Returns:
            A scalar, in nats.
        """
        return mean_over_ranks(self.per_image(images, prompts, scale, targets))

    def per_image(self, images: Tensor, prompts: Tensor, scale: Tensor, targets: Tensor) -> Tensor:
        """Return the loss `[B]` of every image of this rank, in nats; arguments as those of `forward`."""
        return F.cross_entropy(scale * products(images, prompts), targets, reduction="none")
