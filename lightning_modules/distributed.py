"""The only place of this room that talks to torch.distributed."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def gather_with_grad(rows: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, in rank order, so that gradients flow back to the rank that owns a row.

    Every rank computes the same loss on the gathered rows; the backward pass sums the gradients of all ranks, and DDP
    then averages over ranks, which gives exactly the gradient of one process on the whole batch.

    Args:
        rows: `[B_r, D]`; `B_r` may differ between ranks.

    Returns:
        `[sum of B_r, D]`; without a process group, `rows` itself.

    Example:
        >>> gather_with_grad(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    if not _grouped() or dist.get_world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


def any_rank(flag: bool) -> bool:
    """Say whether the flag is set on any rank; without a process group, return the flag.

    Example:
        >>> any_rank(True), any_rank(False)
        (True, False)
    """
    if not _grouped():
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(int(flag), device=device)
    dist.all_reduce(total)
    return bool(total)


def share_buffers(module: nn.Module) -> None:
    """Give every rank the buffers of rank zero, such as the running means of BatchNorm, which each rank trains alone.

    Without it ranks would embed their shares of an evaluated set with statistics that differ from rank to rank, and
    from the checkpoint, which holds those of rank zero. Without a process group it does nothing.
    """
    if not _grouped():
        return
    with torch.no_grad():
        for buffer in module.buffers():
            dist.broadcast(shared := buffer.contiguous(), 0)
            buffer.copy_(shared)


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        size = torch.tensor([len(rows)], device=rows.device)
        sizes = [torch.empty_like(size) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, size)
        counts = [int(count) for count in sizes]
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        ctx.start, ctx.count = sum(counts[: dist.get_rank()]), len(rows)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.count]
