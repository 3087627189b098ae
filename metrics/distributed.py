"""All communication between ranks: the only module of this room that calls `torch.distributed`.

Tensors travel as bytes, so that every dtype passes every backend unchanged, on the device that the backend speaks from.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Alone:
    """One process by itself: every exchange returns what it was given."""

    rank = 0
    size = 1

    def broadcast(self, rows: Tensor, source: int) -> Tensor:
        """Return the rows of rank `source`; row counts may differ, trailing shape and dtype may not."""
        return rows

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks in rank order; shapes must be equal."""
        return [tensor]

    def gather_objects(self, item: Any) -> list[Any]:
        """Return small picklable objects of all ranks in rank order."""
        return [item]

    def total(self, tensor: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""
        return tensor

    def highest(self, tensor: Tensor) -> Tensor:
        """Return the elementwise maximum over ranks."""
        return tensor


class Ranks(Alone):
    """The processes of a group; every method must be called by all of them in the same order.

    Args:
        group: A process group; None is the whole world.
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        by_gpu = "nccl" in str(dist.get_backend(group))
        self.device = torch.device("cuda", torch.cuda.current_device()) if by_gpu else torch.device("cpu")

    def broadcast(self, rows: Tensor, source: int) -> Tensor:  # noqa: D102
        origin = source if self.group is None else dist.get_global_rank(self.group, source)
        count = torch.tensor([len(rows)], device=self.device)
        dist.broadcast(count, origin, group=self.group)
        shape = (int(count), *rows.shape[1:])
        payload = _to_bytes(rows, self.device) if source == self.rank else self._buffer(shape, rows.dtype)
        dist.broadcast(payload, origin, group=self.group)
        return _from_bytes(payload, shape, rows)

    def gather(self, tensor: Tensor) -> list[Tensor]:  # noqa: D102
        payload = _to_bytes(tensor, self.device)
        received = [torch.empty_like(payload) for _ in range(self.size)]
        dist.all_gather(received, payload, group=self.group)
        return [_from_bytes(one, tuple(tensor.shape), tensor) for one in received]

    def gather_objects(self, item: Any) -> list[Any]:  # noqa: D102
        received: list[Any] = [None] * self.size
        dist.all_gather_object(received, item, group=self.group)
        return received

    def total(self, tensor: Tensor) -> Tensor:  # noqa: D102
        return self._reduced(tensor, dist.ReduceOp.SUM)

    def highest(self, tensor: Tensor) -> Tensor:  # noqa: D102
        return self._reduced(tensor, dist.ReduceOp.MAX)

    def _reduced(self, tensor: Tensor, operation: Any) -> Tensor:
        reduced = tensor.to(self.device, copy=True)
        dist.all_reduce(reduced, operation, group=self.group)
        return reduced.to(tensor.device)

    def _buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return _to_bytes(torch.empty(shape, dtype=dtype, device=self.device), self.device)


def connect(group: Any = None) -> Alone:
    """Return the ranks of `group`, or one process alone where `torch.distributed` is not in use."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(group)
    return Alone()


def _to_bytes(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device).contiguous().flatten().view(torch.uint8)


def _from_bytes(payload: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    return payload.view(like.dtype).reshape(shape).to(like.device)
