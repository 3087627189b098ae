"""A margin between a counterfactual pair and the pair it was made from."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.distributed import gather, mean_over_ranks
from lightning_modules.losses.arguments import checked_margin
from lightning_modules.losses.pairs import gather_pairs


class CounterfactualMarginLoss(nn.Module):
    """Hinges that ask a synthetic pair and its source, wherever both are among the pairs of all ranks, to keep apart.

    For a pair (x, y) and the pair (x', y') made from it by taking an object out of both, the cost is
    `[m + s(x', y) - s(x', y')]_+ + [m + s(x, y') - s(x, y)]_+` with s the dot product: either image has to prefer its
    own caption. The loss is the mean over all such couples of pairs (a term of this project, not of a paper).

    The margin assumes that the caption y of the source names what was removed: otherwise y fits both images, and the
    first hinge asks for what is not there. The captions by noun phrases name it by construction, prompts by chance.

    Args:
        margin: m, at least 0.

    Attributes:
        couples: how many couples the batches of this rank have held so far.

    Raises:
        ConfigError: when the margin is below 0.

    Example:
        >>> import torch
        >>> rows, source = torch.ones(2, 1), torch.tensor([7, 7])
        >>> CounterfactualMarginLoss(margin=0.25)(rows, rows, torch.tensor([7, 9]), source, torch.tensor([False, True]))
        tensor(0.5000)
    """

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin, self.couples = checked_margin(margin, type(self).__name__), 0

    def forward(
        self, images: Tensor, texts: Tensor, caption_ids: Tensor, source_caption_ids: Tensor, synthetic: Tensor
    ) -> Tensor:
        """Return the loss of one batch.

        Args:
            images: `[B, D]` unit rows; under DDP B may differ between ranks.
            texts: `[B, D]` unit rows; row i belongs to image i.
            caption_ids: `[B]` int64.
            source_caption_ids: `[B]` int64, id of the caption that a synthetic caption was made from.
            synthetic: `[B]` bool.

        Returns:
            A scalar, 0 where no synthetic pair has its source in the batch.
        """
        pairs = gather_pairs(images, texts)
        made_from = synthetic[:, None] & (source_caption_ids[:, None] == gather(caption_ids))
        edited, source = made_from.nonzero(as_tuple=True)
        self.couples += len(edited)
        x, y = pairs.all_images[source], pairs.all_texts[source]
        x_edited, y_edited = pairs.images[edited], pairs.texts[edited]
        return mean_over_ranks(self._hinge(x_edited, y, y_edited) + self._hinge(x, y_edited, y))

    def _hinge(self, images: Tensor, other: Tensor, own: Tensor) -> Tensor:
        return F.relu(self.margin + (images * (other - own)).sum(dim=1))
