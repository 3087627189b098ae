"""The learning-rate schedule of the paper's recipes."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def halving_schedule(optimizer: Optimizer, every: float, steps_per_epoch: float, factor: float = 0.5) -> LambdaLR:
    """Halve the learning rate after every `every` epochs: 1, 1/2, 1/4, ... (Kim et al. 2023, section 4.1).

    The schedule counts optimiser steps, so that half epochs (BLIP's recipe) work and accumulation is accounted for.

    Args:
        optimizer: its learning rates are the initial ones.
        every: epochs between two halvings, may be a fraction.
        steps_per_epoch: optimiser steps of one epoch.
        factor: what takes the place of a half, such as the 0.1 of Faghri et al. 2018 (VSE++), section 4.1.

    Example:
        >>> import torch
        >>> sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=8.0)
        >>> schedule = halving_schedule(sgd, every=0.5, steps_per_epoch=4)
        >>> rates = []
        >>> for _ in range(6):
        ...     rates.append(schedule.get_last_lr()[0])
        ...     sgd.step()
        ...     schedule.step()
        >>> rates
        [8.0, 8.0, 4.0, 4.0, 2.0, 2.0]
    """
    period = max(1.0, every * steps_per_epoch)  # not rounded: what half a step is short would add up
    return LambdaLR(optimizer, lambda step: factor ** math.floor(step / period + 1e-6))
