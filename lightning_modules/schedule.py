"""Learning-rate schedules: the halving of the paper's recipes, a cosine, and a warm-up before either."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def halving_schedule(
    optimizer: Optimizer, every: float, steps_per_epoch: float, factor: float = 0.5, warmup: int = 0
) -> LambdaLR:
    """Halve the learning rate after every `every` epochs: 1, 1/2, 1/4, ... (Kim et al. 2023, section 4.1).

    The schedule counts optimiser steps, so that half epochs (BLIP's recipe) work and accumulation is accounted for.

    Args:
        optimizer: its learning rates are the initial ones.
        every: epochs between two halvings, may be a fraction.
        steps_per_epoch: optimiser steps of one epoch.
        factor: what takes the place of a half, such as the 0.1 of Faghri et al. 2018 (VSE++), section 4.1.
        warmup: steps in which the rate rises, see `cosine_schedule`.

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
    return _schedule(optimizer, lambda step: factor ** math.floor(step / period + 1e-6), warmup)


def cosine_schedule(optimizer: Optimizer, steps: int, warmup: int = 0) -> LambdaLR:
    """Lower the learning rate by half a cosine to 0 (Loshchilov and Hutter 2017, without restarts), after a warm-up.

    Args:
        optimizer: its learning rates are the highest ones.
        steps: of the whole training, over which the rate falls; later steps have a rate of 0.
        warmup: steps among them in which the rate rises by as much with each, to the highest one in the last of them.

    Example:
        >>> import torch
        >>> sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=8.0)
        >>> schedule = cosine_schedule(sgd, steps=6, warmup=2)
        >>> rates = []
        >>> for _ in range(7):
        ...     rates.append(round(schedule.get_last_lr()[0], 6))
        ...     sgd.step()
        ...     schedule.step()
        >>> rates
        [4.0, 8.0, 8.0, 6.828427, 4.0, 1.171573, 0.0]
    """
    falling = max(1, steps - warmup)

    def share(step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0, step - warmup) / falling)))

    return _schedule(optimizer, share, warmup)


def _schedule(optimizer: Optimizer, share: Callable[[int], float], warmup: int) -> LambdaLR:
    return LambdaLR(optimizer, lambda step: share(step) * min(1.0, (step + 1) / max(1, warmup)))
