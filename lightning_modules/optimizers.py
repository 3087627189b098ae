"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from datamodules.errors import ConfigError


def optimizer_class(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Return the optimiser that `torch.optim` has by this name.

    Raises:
        ConfigError: it has none.

    Example:
        >>> optimizer_class("Adam")
        <class 'torch.optim.adam.Adam'>
    """
    known = {
        key: value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and torch.optim.Optimizer in value.__mro__[1:]
    }
    if name not in known:
        raise ConfigError(
            f"`model.init_args.optimizer` is {name!r}, but torch.optim has only: {', '.join(sorted(known))}."
        )
    return known[name]


def build_optimizer(
    kind: Callable[..., torch.optim.Optimizer], groups: list[dict[str, Any]], lr: float, arguments: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Return an optimiser over groups of parameters.

    Args:
        kind: its class.
        groups: what it steps, with settings of their own.
        lr: learning rate.
        arguments: what else the class takes.

    Raises:
        ConfigError: the class refuses its arguments.
    """
    try:
        return kind(groups, lr=lr, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The optimiser refuses `model.init_args.lr: {lr}` or `model.init_args.optimizer_args: {dict(arguments)}`: "
            f"{error}."
        ) from error
