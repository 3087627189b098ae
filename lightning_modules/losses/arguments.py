"""Checks of what a config gives a loss."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from datamodules.errors import ConfigError

Choice = TypeVar("Choice", bound=str)


def checked_margin(margin: float, owner: str) -> float:
    """Return the margin.

    Raises:
        ConfigError: when it is below 0 or not a number.

    Example:
        >>> checked_margin(0.2, "TripletLoss")
        0.2
    """
    if not margin >= 0:
        raise ConfigError(f"The margin of {owner} is {margin} in `model.init_args`: give a number of at least 0.")
    return margin


def checked_temperature(temperature: float | None, owner: str) -> float | None:
    """Return the temperature; None is none to check.

    Raises:
        ConfigError: when it is not above 0.

    Example:
        >>> checked_temperature(0.1, "ClassAffinityLoss")
        0.1
    """
    if temperature is not None and not temperature > 0:
        raise ConfigError(f"The temperature of {owner} is {temperature} in `model.init_args`: give a number above 0.")
    return temperature


def checked_choice(name: str, value: Choice, choices: Any) -> Choice:
    """Return the value of the argument.

    Args:
        name: of the argument.
        value: what it was given.
        choices: a `Literal` type.

    Raises:
        ConfigError: when the value is none of the choices.

    Example:
        >>> from typing import Literal
        >>> checked_choice("hinges", "max", Literal["max", "sum"])
        'max'
    """
    if value not in get_args(choices):
        raise ConfigError(f"`model.init_args.{name}` is {value!r}: give one of {', '.join(get_args(choices))}.")
    return value
