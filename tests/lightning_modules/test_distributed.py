"""What ranks tell each other, and that one process needs no group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules.distributed import (
    any_rank,
    gather,
    gather_with_grad,
    mean_over_ranks,
    rank_offset,
    share_buffers,
    sum_over_ranks,
    world_size,
)

DTYPES = (torch.int64, torch.bool, torch.uint8, torch.bfloat16, torch.float16, torch.float32, torch.float64)


def _everything(rank: int, world: int) -> dict[str, Any]:
    """Rank r brings r rows that are r everywhere."""
    rows = torch.full((rank, 2), float(rank), requires_grad=True)
    gathered = gather_with_grad(rows)
    (gathered.T @ torch.arange(3.0) * (rank + 1)).sum().backward()
    values = torch.full((rank,), float(rank), dtype=torch.double, requires_grad=True)
    mean, total = mean_over_ranks(values), sum_over_ranks(values)
    grads = [torch.autograd.grad(scalar, values)[0].tolist() for scalar in (mean, total)]
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(rank + 1)
    norm.num_batches_tracked.fill_(rank + 5)
    share_buffers(norm)
    return {
        "gathered": gathered.tolist(),
        "row grads": rows.grad.tolist(),
        "detached": gather(rows).requires_grad,
        "dtypes": [gather(torch.full((rank, 2), rank).to(dtype)).float().tolist() for dtype in DTYPES],
        "ids": gather(torch.full((rank,), 2**40 + rank)).tolist(),
        "world": (world_size(), rank_offset(rank)),
        "means": (mean.item(), total.item()),
        "nothing": mean_over_ranks(values[:0]).item(),
        "value grads": grads,
        "any": (any_rank(rank == 1), any_rank(False)),
        "buffers": [*norm.running_mean.tolist(), norm.num_batches_tracked.item()],
    }


@pytest.mark.slow
@pytest.mark.ddp
def test_three_ranks_the_first_without_rows(run_ranks) -> None:
    for rank, found in enumerate(run_ranks(_everything, 3)):
        assert found["gathered"] == [[1, 1], [2, 2], [2, 2]]
        # row j of all has the gradient j * (1 + 2 + 3), a factor from each rank
        assert found["row grads"] == [[], [[0, 0]], [[6, 6], [12, 12]]][rank]
        assert not found["detached"]
        rows = [[1, 1], [2, 2], [2, 2]]
        ones = [[1, 1], [1, 1], [1, 1]]
        assert found["dtypes"] == [ones if dtype == torch.bool else rows for dtype in DTYPES]
        assert found["ids"] == [2**40 + 1, 2**40 + 2, 2**40 + 2]
        assert found["world"] == (3, [0, 0, 1][rank])
        assert found["means"] == (pytest.approx(5 / 3), 5)
        assert found["nothing"] == 0
        assert found["value grads"] == [[1.0] * rank, [3.0] * rank]
        assert found["any"] == (True, False)
        assert found["buffers"] == [1, 1, 5]


def test_one_process_needs_no_group() -> None:
    rows = torch.ones(2, 2, requires_grad=True)
    assert gather_with_grad(rows) is rows
    assert not gather(rows).requires_grad
    assert (world_size(), rank_offset(7)) == (1, 0)
    assert (any_rank(True), any_rank(False)) == (True, False)
    values = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    assert (mean_over_ranks(values).item(), sum_over_ranks(values).item()) == (3, 9)
    assert torch.autograd.grad(mean_over_ranks(values), values)[0].tolist() == pytest.approx([1 / 3] * 3)
    assert mean_over_ranks(values[:0]).item() == 0
    norm = nn.BatchNorm1d(2)
    share_buffers(norm)
    assert norm.running_mean.tolist() == [0, 0]
