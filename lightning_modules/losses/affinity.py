"""Pull embeddings of one class together, push those of other classes away."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.distributed import gather, gather_with_grad, mean_over_ranks, rank_offset
from lightning_modules.losses.arguments import checked_temperature
from lightning_modules.losses.pairs import full_precision, products


class ClassAffinityLoss(nn.Module):
    """Asks rows of one class to be alike and rows of different classes to differ; no row is compared with itself.

    Without a temperature a row costs `mean over rows of other classes of s - mean over other rows of its class of s`,
    with s the dot product: the image term and the language term of spurious-aware fine-tuning (evident intent of the
    public code of "Mitigating Spurious Correlations in Multi-modal Models during Fine-tuning", which compares rows
    with themselves too and divides by the size of the batch). A mean over no row counts as 0.

    With a temperature t a row costs the mean over other rows of its class of `-log(exp(s / t) / sum over all other rows
    of exp(s / t))` (Khosla et al. 2020, "Supervised Contrastive Learning", equation 2); 0 where it is alone.

    The loss is the mean over the rows.

    Args:
        temperature: t, above 0; None for the plain means.
        across_ranks: whether every rank has rows of its own, as images are, and they are all compared; False where all
            ranks hold the same rows, as prompts are.

    Raises:
        ConfigError: when the temperature is not above 0.

    Example:
        >>> rows, labels = torch.eye(2)[[0, 0, 1]], torch.tensor([3, 3, 8])
        >>> round(ClassAffinityLoss()(rows, labels).item(), 4)
        -0.6667
    """

    def __init__(self, temperature: float | None = None, across_ranks: bool = True) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature, type(self).__name__)
        self.across_ranks = across_ranks

    def forward(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            rows: `[B, D]` unit rows; under DDP B may differ between ranks.
            labels: `[B]` int64, class of each row.

        Returns:
            A scalar, in units of cosine, or in nats where there is a temperature.
        """
        rows = full_precision(rows)
        own = torch.arange(len(rows), device=rows.device)
        if not self.across_ranks:
            return self._costs(rows, labels, rows, labels, own).mean()
        others, other_labels = gather_with_grad(rows), gather(labels)
        return mean_over_ranks(self._costs(rows, labels, others, other_labels, own + rank_offset(len(rows))))

    def _costs(self, rows: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, own: Tensor) -> Tensor:
        """Return the costs `[B]` of rows that stand at the places `own` among the others."""
        similarity, alike = products(rows, others), labels[:, None] == other_labels
        same = alike.scatter(1, own[:, None], value=False)
        if self.temperature is None:
            return _mean(similarity, ~alike) - _mean(similarity, same)
        lowest = torch.finfo(similarity.dtype).min  # minus infinity would make a row without any other NaN
        logits = (similarity / self.temperature).scatter(1, own[:, None], lowest)
        return -_mean(logits.log_softmax(dim=1), same)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the marked values of every row, 0 where none is marked."""
    return values.where(mask, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
