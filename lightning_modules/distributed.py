"""The only place of this room where ranks talk to each other; without a process group every function acts for one.

A function here is called by all ranks in the same order, each with its own rows, whose number may differ from rank to
rank. Losses built on it give, under DDP, the gradient of one process on the whole batch: DDP averages the gradients of
the ranks, so a rank returns its share of the loss times the number of ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metrics.distributed import connect


def world_size() -> int:
    """Return the number of ranks, 1 without a process group.

    Example:
        >>> world_size()
        1
    """
    return connect().size


def rank_offset(count: int) -> int:
    """Return the number of rows that the ranks before this one hold, where this one holds `count`.

    Example:
        >>> rank_offset(8)
        0
    """
    return sum(_counts(count)[: connect().rank])


def gather(rows: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, in rank order, without a gradient.

    Args:
        rows: `[B_r, ...]` of any dtype; `B_r` may differ between ranks.

    Returns:
        `[sum of B_r, ...]`; without a process group, `rows` detached.

    Example:
        >>> gather(torch.tensor([3, 5])).tolist()
        [3, 5]
    """
    rows = rows.detach()
    return rows if world_size() == 1 else _concatenated(rows, _counts(len(rows)))


def gather_with_grad(rows: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, in rank order, so that gradients flow back to the rank that owns a row.

    The backward pass adds up the gradients that all ranks have for a row.

    Args:
        rows: `[B_r, D]`; `B_r` may differ between ranks.

    Returns:
        `[sum of B_r, D]`; without a process group, `rows` itself.

    Example:
        >>> gather_with_grad(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of the values of all ranks.

    The result is the same on every rank; its gradient is that of this rank's values alone, times the number of ranks,
    so that DDP's average of the gradients is the gradient of the mean.

    Args:
        values: `[B_r]` floats; `B_r` may differ between ranks and be 0.

    Returns:
        A scalar, 0 where no rank has a value.

    Example:
        >>> mean_over_ranks(torch.tensor([1.0, 3.0]))
        tensor(2.)
    """
    ranks, own = connect(), values.sum()
    total, count = ranks.total(torch.stack([own.detach(), own.new_full((), len(values))]))
    count = count.clamp(min=1)
    return _valued(total / count, own * ranks.size / count)


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of the values of all ranks, with a gradient as `mean_over_ranks` has it.

    Args:
        values: `[B_r]` floats; `B_r` may differ between ranks and be 0.

    Returns:
        A scalar.

    Example:
        >>> sum_over_ranks(torch.tensor([1.0, 3.0]))
        tensor(4.)
    """
    ranks, own = connect(), values.sum()
    return _valued(ranks.total(own.detach()), own * ranks.size)


def any_rank(flag: bool) -> bool:
    """Say whether the flag is set on any rank.

    Example:
        >>> any_rank(True), any_rank(False)
        (True, False)
    """
    return bool(connect().total(torch.tensor(int(flag))))


def share_buffers(module: nn.Module) -> None:
    """Give every rank the buffers of rank zero, such as the running means of BatchNorm, which each rank trains alone.

    Without it ranks would embed their shares of an evaluated set with statistics that differ from rank to rank, and
    from the checkpoint, which holds those of rank zero.
    """
    ranks = connect()
    if ranks.size == 1:
        return
    with torch.no_grad():
        for buffer in module.buffers():
            buffer.copy_(ranks.broadcast(buffer.reshape(-1), 0).view_as(buffer))


def _counts(count: int) -> list[int]:
    return [int(one) for one in connect().gather(torch.tensor(count))]


def _concatenated(rows: Tensor, counts: list[int]) -> Tensor:
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    return torch.cat([part[:count] for part, count in zip(connect().gather(padded), counts, strict=True)])


def _valued(value: Tensor, share: Tensor) -> Tensor:
    """Return the value with the gradient of the share."""
    return value + (share - share.detach())


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        counts = _counts(len(rows))
        ctx.start, ctx.count = sum(counts[: connect().rank]), len(rows)
        return _concatenated(rows, counts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = connect().total(grads[0].contiguous())
        return total[ctx.start : ctx.start + ctx.count]
