"""An alarm for models that have come to give everything the same embedding."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor


class CollapseAlarm:
    """Warns once when the embeddings of a batch have long been nearly one.

    With the hardest negatives a triplet loss can be brought to twice the batch size times the margin by moving all
    embeddings to one point, where it stays (Faghri et al. 2018, VSE++, has this value from margin and batch size: every
    hinge is the margin). The alarm looks at the embeddings themselves, so it needs to know neither loss nor margin. The
    images and the captions may each have a point of their own.

    Args:
        every: steps between two looks.
        looks: in so many looks in a row the embeddings must be one.
        spread: embeddings with a mean of 1 - cosine below this are one.

    Example:
        >>> import torch, warnings
        >>> alarm = CollapseAlarm(every=1, looks=2)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     for _ in range(5):
        ...         alarm.look(torch.ones(4, 1), torch.ones(4, 1))
        >>> len(caught)
        1
    """

    def __init__(self, every: int = 50, looks: int = 5, spread: float = 1e-4) -> None:
        self.every, self.looks, self.spread = every, looks, spread
        self._steps = self._collapsed = 0

    def look(self, images: Tensor, texts: Tensor) -> None:
        """Look at the unit rows `[B, D]` of a batch, if it is time to."""
        self._steps += 1
        if self._steps % self.every or self._collapsed >= self.looks or len(images) < 2:
            return
        spread = max(_spread(images), _spread(texts))
        self._collapsed = self._collapsed + 1 if spread < self.spread else 0
        if self._collapsed == self.looks:
            steps = self.every * (self.looks - 1)
            rank_zero_warn(
                f"For {steps} steps the images of a batch have had nearly one embedding, and its captions, too (1 - "
                f"cosine is {spread:.0e} on average): the model has collapsed; lower `model.init_args.lr`, freeze "
                "pretrained towers at first (`model.init_args.freeze`), or begin a triplet loss with the sum over all "
                "negatives instead of the hardest."
            )


def _spread(rows: Tensor) -> float:
    """Return the mean of 1 - cosine over all pairs of two rows, a row with itself among them."""
    return 1 - float(rows.detach().float().mean(dim=0).square().sum())
