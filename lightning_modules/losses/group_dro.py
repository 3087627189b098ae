"""Group DRO: train for the group that fares worst."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.errors import ConfigError
from lightning_modules.distributed import gather, sum_over_ranks


class GroupDROLoss(nn.Module):
    """A weighted sum of the groups' mean losses, whose weights grow where the loss is high.

    With L_g the mean loss of a group's samples in the batches of all ranks, every training step first multiplies the
    weight q_g by exp(step_size * L_g) and divides all of them by their sum; the loss is the sum over groups of
    q_g * L_g. A group that the batch lacks counts as L_g = 0 (Sagawa et al. 2020, "Distributionally Robust Neural
    Networks for Group Shifts", algorithm 1; its step size for Waterbirds is 0.01).

    Args:
        groups: number of groups.
        step_size: at least 0.

    Attributes:
        weights: `[groups]` float32 buffer, q, which starts uniform and is part of a checkpoint.

    Raises:
        ConfigError: when the step size is below 0.

    Example:
        >>> loss = GroupDROLoss(groups=2, step_size=0.5)
        >>> round(loss(torch.tensor([1.0, 3.0]), torch.tensor([0, 1])).item(), 4)
        2.4621
        >>> loss.weights
        tensor([0.2689, 0.7311])
    """

    weights: Tensor

    def __init__(self, groups: int, step_size: float = 0.01) -> None:
        super().__init__()
        if not step_size >= 0:
            raise ConfigError(f"`model.init_args.group_dro_step` is {step_size}: give a number of at least 0.")
        self.step_size = step_size
        self.register_buffer("weights", torch.full((groups,), 1 / groups))

    def forward(self, losses: Tensor, groups: Tensor) -> Tensor:
        """Return the loss of one batch; in training mode the weights take a step first.

        Args:
            losses: `[B]` loss of every sample; under DDP B may differ between ranks.
            groups: `[B]` int64, from 0 to the number of groups - 1.

        Returns:
            A scalar.
        """
        all_losses, all_groups = gather(losses), gather(groups)
        counts = all_groups.bincount(minlength=len(self.weights)).clamp(min=1)
        if self.training:
            means = all_losses.new_zeros(len(self.weights)).index_add(0, all_groups, all_losses) / counts
            self.weights.copy_((self.weights.log() + self.step_size * means).softmax(dim=0))
        return sum_over_ranks(losses * (self.weights / counts)[groups])
