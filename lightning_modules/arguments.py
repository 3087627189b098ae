"""Checks of what a config gives a model."""

from __future__ import annotations

import math

from datamodules.errors import ConfigError


def check_range(low: float, high: float = math.inf, **numbers: float | None) -> None:
    """Check that arguments of a model lie from `low` to `high`; None is no number to check.

    Raises:
        ConfigError: one does not, or is not a number.

    Example:
        >>> check_range(1, embed_dim=512, hidden_dim=None)
        >>> check_range(0, 1, alpha=2.0)
        Traceback (most recent call last):
        datamodules.errors.ConfigError: `model.init_args.alpha` is 2.0: give a number from 0 to 1.
    """
    for key, value in numbers.items():
        if value is not None and not low <= value <= high:
            bounds = f"of {low} or more" if high == math.inf else f"from {low} to {high}"
            raise ConfigError(f"`model.init_args.{key}` is {value}: give a number {bounds}.")


def check_positive(**numbers: float | None) -> None:
    """Check that arguments of a model lie above 0; None is no number to check.

    Raises:
        ConfigError: one does not, or is not a number.

    Example:
        >>> check_positive(lr_decay=0.0)
        Traceback (most recent call last):
        datamodules.errors.ConfigError: `model.init_args.lr_decay` is 0.0: give a number above 0.
    """
    for key, value in numbers.items():
        if value is not None and not value > 0:
            raise ConfigError(f"`model.init_args.{key}` is {value}: give a number above 0.")


def check_crop(crop_scale: tuple[float, float]) -> None:
    """Check the range of the area that random crops take of an image.

    Raises:
        ConfigError: it is no range within (0, 1].

    Example:
        >>> check_crop((0.5, 1.0))
    """
    if not 0 < crop_scale[0] <= crop_scale[1] <= 1:
        raise ConfigError(f"`model.init_args.crop_scale` is {list(crop_scale)}: give two ascending shares of the area.")
