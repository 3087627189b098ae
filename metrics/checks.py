"""Checks of what callers hand in; every message names the argument."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

_CHECKED_AT_ONCE = 2**22  # numbers


def check_top_k(top_k: int | Sequence[int]) -> tuple[int, ...]:
    """Return the cuts in ascending order, each once.

    Args:
        top_k: One positive integer or several.

    Raises:
        TypeError: A cut is no integer.
        ValueError: There is no cut, or one is below 1.

    Example:
        >>> check_top_k([10, 1, 5])
        (1, 5, 10)
    """
    cuts: tuple[Any, ...] = tuple(top_k) if isinstance(top_k, Sequence) else (top_k,)
    if not all(isinstance(cut, Integral) and not isinstance(cut, bool) for cut in cuts):
        raise TypeError(f"top_k must be an integer or a sequence of integers, got {top_k!r}.")
    if not cuts or min(cuts) < 1:
        raise ValueError(f"top_k must hold positive integers, got {top_k!r}.")
    return tuple(sorted({int(cut) for cut in cuts}))


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuse an unknown option and list those that exist.

    Raises:
        ValueError: `value` is not among `choices`.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, choices))}.")


def check_count(name: str, value: int) -> None:
    """Refuse a size that is no positive integer.

    Raises:
        ValueError: `value` is no integer, or below 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")


def check_tensor(name: str, value: object) -> None:
    """Refuse what is no tensor.

    Raises:
        TypeError: `value` is something else, such as an array or a list.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}.")


def check_masks(rows: int, classes: int | None = None, **masks: Tensor) -> None:
    """Refuse class masks that are not bool `[rows, classes]`.

    Args:
        rows: Expected number of rows.
        classes: Expected number of classes; that of the first mask when None.
        **masks: The masks by argument name.

    Raises:
        TypeError: A mask is no tensor, or not bool.
        ValueError: A mask has another shape.
    """
    for name, mask in masks.items():
        check_tensor(name, mask)
        if mask.dtype != torch.bool:
            raise TypeError(f"{name} must be bool, got {mask.dtype}.")
        if mask.ndim == 2 and classes is None:
            classes = mask.shape[1]
        if tuple(mask.shape) != (rows, classes):
            raise ValueError(f"{name} must have shape [{rows}, {classes or 'C'}], got {tuple(mask.shape)}.")


def check_ids(rows: int, **ids: Tensor) -> None:
    """Refuse ids that are not integers `[rows]`.

    Raises:
        TypeError: The ids are no tensor of integers.
        ValueError: Their number is not `rows`.
    """
    for name, values in ids.items():
        check_tensor(name, values)
        if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
            raise TypeError(f"{name} must be integers, got {values.dtype}.")
        if tuple(values.shape) != (rows,):
            raise ValueError(f"{name} must have shape [{rows}], got {tuple(values.shape)}.")


def check_embeddings(embeddings: Tensor, ids: Tensor | None = None) -> None:
    """Refuse embeddings that cannot be ranked.

    A row counts as finite when its squared length is finite in float32: then so is every dot product with such rows.

    Args:
        embeddings: `[N, D]` floating point.
        ids: `[N]` integers, used to name the first bad row; its index is named when None.

    Raises:
        TypeError: The embeddings are no tensor, or not floating point.
        ValueError: They are not a matrix, or hold NaN, infinite or immense values.
    """
    check_tensor("embeddings", embeddings)
    if not embeddings.is_floating_point():
        raise TypeError(f"embeddings must be floating point, got {embeddings.dtype}.")
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings must have shape [N, D], got {tuple(embeddings.shape)}.")
    rows = max(1, _CHECKED_AT_ONCE // max(1, embeddings.shape[1]))
    bad = ~torch.cat([part.float().square().sum(dim=1).isfinite() for part in torch.split(embeddings, rows)])
    if bad.any():
        first = int(bad.nonzero()[0])
        where = f"index {first}" if ids is None else f"id {int(ids[first])}"
        raise ValueError(f"{int(bad.sum())} of {len(bad)} rows of embeddings are not finite, the first one at {where}.")
