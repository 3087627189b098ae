"""InfoNCE against its formula, and its gradients over ranks against one process."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lightning_modules.distributed import gather_with_grad, share_buffers
from lightning_modules.losses import InfoNCELoss


def _formula(images: np.ndarray, texts: np.ndarray, scale: float) -> float:
    count, total = len(images), 0.0
    for i in range(count):
        to_texts = [scale * float(images[i] @ texts[j]) for j in range(count)]
        to_images = [scale * float(images[j] @ texts[i]) for j in range(count)]
        total -= to_texts[i] - math.log(sum(map(math.exp, to_texts)))
        total -= to_images[i] - math.log(sum(map(math.exp, to_images)))
    return total / (2 * count)


def _unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.double), dim=1)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("scale", [0.5, 14.3])
def test_equals_the_formula(count: int, scale: float) -> None:
    images, texts = _unit(count, 0), _unit(count, 1)
    loss = InfoNCELoss()(images, texts, torch.tensor(scale, dtype=torch.double))
    assert loss.item() == pytest.approx(_formula(images.numpy(), texts.numpy(), scale), abs=1e-10)


def test_is_symmetric_and_falls_when_pairs_agree() -> None:
    images, texts, scale = _unit(6, 2), _unit(6, 3), torch.tensor(5.0, dtype=torch.double)
    loss = InfoNCELoss()
    assert loss(images, texts, scale).item() == pytest.approx(loss(texts, images, scale).item(), abs=1e-12)
    assert loss(images, images, scale) < loss(images, texts, scale)


def test_a_batch_of_equal_embeddings_costs_log_of_its_size() -> None:
    rows = _unit(1, 4).expand(8, -1)
    assert InfoNCELoss()(rows, rows, torch.tensor(3.0)).item() == pytest.approx(math.log(8), abs=1e-9)


def test_autocast_does_not_round_the_logits() -> None:
    images, texts = _unit(8, 5).float(), _unit(8, 6).float()
    exact = InfoNCELoss()(images, texts, torch.tensor(100.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert InfoNCELoss()(images, texts, torch.tensor(100.0)).item() == exact.item()


def _step(rank: int, world: int, sizes: list[int]) -> list[torch.Tensor]:
    """Gradients of two linear towers, averaged over ranks as DDP does."""
    towers = _towers()
    start = sum(sizes[:rank])
    images, texts = _inputs(sum(sizes))
    own = slice(start, start + sizes[rank])
    _loss(towers, images[own], texts[own]).backward()
    grads = [parameter.grad for parameter in towers.parameters()]
    for grad in grads:
        torch.distributed.all_reduce(grad)
    return [(grad / world).numpy().tolist() for grad in grads]


def _towers() -> torch.nn.ModuleList:
    torch.manual_seed(0)
    return torch.nn.ModuleList([torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)]).double()


def _inputs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(count, 4, generator=generator, dtype=torch.double) for _ in range(2))


def _loss(towers: torch.nn.ModuleList, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    rows = F.normalize(towers[0](images), dim=1), F.normalize(towers[1](texts), dim=1)
    return InfoNCELoss()(*rows, torch.tensor(7.0, dtype=torch.double))


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("sizes", [[4, 4], [5, 3], [3, 1, 4]])
def test_ranks_give_the_gradient_of_one_process(run_ranks, sizes: list[int]) -> None:
    towers = _towers()
    _loss(towers, *_inputs(sum(sizes))).backward()
    expected = [parameter.grad for parameter in towers.parameters()]
    for grads in run_ranks(_step, len(sizes), sizes):
        for grad, right in zip(grads, expected, strict=True):
            torch.testing.assert_close(torch.tensor(grad, dtype=torch.double), right, rtol=0, atol=1e-10)


def _gathered(rank: int, world: int) -> list[list[float]]:
    return gather_with_grad(torch.full((rank, 2), float(rank))).tolist()


@pytest.mark.slow
@pytest.mark.ddp
def test_gather_keeps_rank_order_and_takes_an_empty_rank(run_ranks) -> None:
    for rows in run_ranks(_gathered, 3):
        assert rows == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]


def _shared(rank: int, world: int) -> list[float]:
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.fill_(rank + 1)
    norm.num_batches_tracked.fill_(rank + 5)
    share_buffers(norm)
    return [*norm.running_mean.tolist(), norm.num_batches_tracked.item()]


@pytest.mark.slow
@pytest.mark.ddp
def test_every_rank_gets_the_buffers_of_rank_zero(run_ranks) -> None:
    assert run_ranks(_shared, 2) == [[1.0, 1.0, 5], [1.0, 1.0, 5]]


def test_without_a_group_gather_returns_its_input() -> None:
    rows = torch.ones(2, 2)
    assert gather_with_grad(rows) is rows
