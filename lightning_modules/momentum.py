"""A copy of a model that follows it slowly."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from datamodules.errors import ConfigError


class MomentumCopy(nn.Module):
    """A model whose weights are the exponential moving average of those of another one.

    Each `follow` sets `w_copy = momentum * w_copy + (1 - momentum) * w` (He et al. 2020, "Momentum Contrast", equation
    2). The copy has no gradients, but it is trained and evaluated in the mode of the module that holds it, so that
    dropout acts on it as on the original.

    Args:
        model: what is copied.
        momentum: share of the old weights that every step keeps, at least 0 and below 1.

    Attributes:
        model: the copy.

    Raises:
        ConfigError: when `momentum` is out of its range.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> copy = MomentumCopy(layer, momentum=0.75)
        >>> before = layer.weight.item()
        >>> with torch.no_grad():
        ...     layer.weight += 4
        >>> copy.follow(layer)
        >>> round(copy.model.weight.item() - before, 5)
        1.0
    """

    def __init__(self, model: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ConfigError(f"`model.init_args.momentum` is {momentum}: give at least 0 and less than 1.")
        self.model = deepcopy(model).requires_grad_(False)
        self._average = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Take a step towards the weights of the model that was copied."""
        self._average(list(self.model.parameters()), list(model.parameters()), None)
