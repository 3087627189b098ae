"""Which parameters are trained, at what learning rate, and which of them decay: chosen by shell patterns of names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from datamodules.errors import ConfigError
from lightning_modules.messages import near


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Stop training the parameters that match, and return the modules of which nothing is trained any more.

    Args:
        model: its parameters that match get `requires_grad = False`.
        patterns: shell patterns of parameter names, such as `model.visual.*`.

    Raises:
        ConfigError: a pattern matches no parameter, or together they match all of them.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
        >>> freeze(net, ["0.*", "1.*"])
        [Linear(in_features=2, out_features=2, bias=True), BatchNorm1d(2, ...)]
        >>> [name for name, parameter in net.named_parameters() if parameter.requires_grad]
        ['2.weight', '2.bias']
    """
    if not patterns:
        return []
    _check_patterns(model, patterns, "freeze")
    frozen = {name for name, _ in model.named_parameters() if any(fnmatchcase(name, pattern) for pattern in patterns)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"`model.init_args.freeze: {list(patterns)}` leaves nothing to train; freeze less.")
    return [module for prefix, module in model.named_modules() if _is_frozen(prefix, module, frozen)]


def all_but(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the parameters that do not match, which `freeze` can be given.

    Args:
        model: whose parameters.
        patterns: shell patterns of parameter names.

    Raises:
        ConfigError: there is no pattern, or one matches no parameter.

    Example:
        >>> all_but(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), ["1.*"])
        ('0.weight', '0.bias')
    """
    if not patterns:
        raise ConfigError("`model.init_args.trained` is empty: name parameters to train.")
    _check_patterns(model, patterns, "trained")
    names = (name for name, _ in model.named_parameters())
    return tuple(name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns))


def parameter_groups(
    model: nn.Module, lr: float, lr_scales: Mapping[str, float] | None = None, decay_vectors: bool = True
) -> list[dict[str, Any]]:
    """Return the trained parameters as groups for an optimiser.

    Args:
        model: its parameters that require gradients are grouped.
        lr: learning rate.
        lr_scales: shell pattern of parameter names -> factor on the learning rate; the first pattern that matches wins.
        decay_vectors: False takes weight decay from parameters of fewer than 2 dimensions (biases, norms, scales).

    Raises:
        ConfigError: a pattern matches no parameter, or a factor is negative.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> for group in parameter_groups(net, 1.0, {"0.*": 0.1}, decay_vectors=False):
        ...     print(len(group["params"]), group["lr"], group.get("weight_decay", "as given"))
        1 0.1 as given
        1 0.1 0.0
        1 1.0 as given
        1 1.0 0.0
    """
    scales = dict(lr_scales or {})
    _check_patterns(model, list(scales), "lr_scales")
    if negative := {pattern: factor for pattern, factor in scales.items() if factor < 0}:
        raise ConfigError(f"`model.init_args.lr_scales` holds {negative}: a factor must be 0 or more.")
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = next((factor for pattern, factor in scales.items() if fnmatchcase(name, pattern)), 1.0)
        spared = not decay_vectors and parameter.ndim < 2
        settings = {"lr": lr * scale, **({"weight_decay": 0.0} if spared else {})}
        groups.setdefault((scale, spared), {"params": [], **settings})["params"].append(parameter)
    return list(groups.values())


def _is_frozen(prefix: str, module: nn.Module, frozen: set[str]) -> bool:
    names = [f"{prefix}.{name}" if prefix else name for name, _ in module.named_parameters()]
    return bool(names) and frozen.issuperset(names)


def _check_patterns(model: nn.Module, patterns: Sequence[str], key: str) -> None:
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if any(fnmatchcase(name, pattern) for name in names):
            continue
        parts = {
            f"{name}.*" for name, module in model.named_modules() if name and any(True for _ in module.parameters())
        }
        hint = near(pattern, [*sorted(parts), *names], f"; names look like {', '.join(names[:3])}.")
        raise ConfigError(f"`model.init_args.{key}` holds {pattern!r}, which matches no parameter{hint}")
