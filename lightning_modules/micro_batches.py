"""Encoding a batch in parts, so that a loss over the whole batch needs the memory of one part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from datamodules.batch import Tokens


def encode_in_parts(encode: Callable[[Any], Tensor], inputs: Tokens, size: int | None, model: nn.Module) -> Tensor:
    """Encode parts of a batch one by one and compute each of them again in the backward pass.

    Only the embeddings are kept between the passes; values and gradients are those of the undivided batch, except
    that BatchNorm in training mode takes the statistics of each part. The random numbers of a part (dropout) are the
    same both times, and the running means of BatchNorm are updated the first time only.

    Args:
        encode: maps inputs `[b, ...]` to embeddings `[b, D]`.
        inputs: `[B, ...]`, or a mapping of such tensors.
        size: rows of a part; None, or at least B: the batch is not divided.
        model: what `encode` runs.

    Returns:
        `[B, D]`.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> encode_in_parts(layer, torch.ones(5, 3), 2, layer).shape
        torch.Size([5, 2])
    """
    if size is None or _count(inputs) <= size:
        return encode(inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_at_rest(model)

    parts = [checkpoint(encode, part, use_reentrant=False, context_fn=contexts) for part in _split(inputs, size)]
    return torch.cat(parts)


@contextmanager
def _statistics_at_rest(model: nn.Module) -> Iterator[None]:
    """Keep the running statistics of BatchNorm as they are, though what it does stays the same."""
    found: list[Any] = [one for one in model.modules() if one.training and getattr(one, "track_running_stats", False)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in found]
    for norm in found:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


def _count(inputs: Tokens) -> int:
    return len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)


def _split(inputs: Tokens, size: int) -> Iterator[Tokens]:
    for start in range(0, _count(inputs), size):
        rows = slice(start, start + size)
        yield {key: value[rows] for key, value in inputs.items()} if isinstance(inputs, Mapping) else inputs[rows]
