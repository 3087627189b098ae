"""Keep the words of the classes apart from the words of what is spurious."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.losses.pairs import products


class OrthogonalityLoss(nn.Module):
    """The mean absolute cosine between class prompts and prompts of a spurious attribute, such as "land" and "water".

    It is 0 where every class prompt is orthogonal to every spurious one (an optional term of the public code of
    "Mitigating Spurious Correlations in Multi-modal Models during Fine-tuning"). All ranks hold the same prompts, so
    nothing is exchanged.

    Example:
        >>> import torch
        >>> OrthogonalityLoss()(torch.eye(2), torch.tensor([[0.0, -1.0]]))
        tensor(0.5000)
    """

    def forward(self, classes: Tensor, spurious: Tensor) -> Tensor:
        """Return the loss.

        Args:
            classes: `[L, D]` unit rows.
            spurious: `[A, D]` unit rows.

        Returns:
            A scalar from 0 to 1.
        """
        return products(classes, spurious).abs().mean()
