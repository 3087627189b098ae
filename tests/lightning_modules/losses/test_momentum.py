"""The contrastive loss with momentum targets and queue, against its formula and a plain list as queue."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from datamodules.errors import ConfigError
from lightning_modules.losses import MomentumContrastiveLoss


def _unit(rows: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.double), dim=1)


def _softmax(row: Tensor, columns: list[Tensor], temperature: float) -> list[float]:
    powers = [math.exp(float(row @ column) / temperature) for column in columns]
    return [power / sum(powers) for power in powers]


def _formula(
    rows: tuple[Tensor, Tensor, Tensor, Tensor], ids: list[int], loss: MomentumContrastiveLoss, t: float, alpha: float
) -> float:
    images, texts, photos, captions = rows
    known, total = ids + loss.id_queue.tolist(), 0.0
    for online, momentum, columns in (
        (images, photos, [*captions, *loss.text_queue]),
        (texts, captions, [*photos, *loss.image_queue]),
    ):
        for i, own in enumerate(ids):
            teacher, student = (_softmax(row, columns, t) for row in (momentum[i], online[i]))
            for j, other in enumerate(known):
                target = alpha * teacher[j] + (1 - alpha) * (own == other) / known.count(own)
                total -= target * math.log(student[j])
    return total / (2 * len(ids))


def _queued(seed: int = 0, queue_size: int = 5) -> MomentumContrastiveLoss:
    torch.manual_seed(seed)
    return MomentumContrastiveLoss(3, queue_size).double()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.floats(0, 1), st.sampled_from([0.07, 0.5]))
def test_equals_the_formula(ids: list[int], alpha: float, temperature: float) -> None:
    loss = _queued()
    loss.enqueue(_unit(3, 10), _unit(3, 11), torch.tensor([0, 9, 2]))
    rows = tuple(_unit(len(ids), seed) for seed in range(4))
    expected = _formula(rows, ids, loss, temperature, alpha)
    assert loss(*rows, torch.tensor(ids), temperature, alpha).item() == pytest.approx(expected, abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.lists(st.integers(1, 9), max_size=6))
def test_the_queue_holds_the_latest_rows(queue_size: int, batches: list[int]) -> None:
    loss = _queued(queue_size=queue_size)
    pushed = [-100] * queue_size
    for number, count in enumerate(batches):
        ids = torch.arange(count) + 10 * number
        rows = ids[:, None].expand(-1, 3).double()
        loss(rows, rows, rows, 2 * rows, ids, 100.0, 0.4)
        pushed += ids.tolist()
    oldest_first = torch.arange(queue_size).add(int(loss.pointer)).remainder(queue_size)
    assert loss.id_queue[oldest_first].tolist() == pushed[-queue_size:]
    filled = loss.id_queue >= 0
    assert torch.equal(loss.image_queue[filled][:, 0], loss.id_queue[filled].double())
    assert torch.equal(loss.text_queue[filled][:, 0], 2 * loss.id_queue[filled].double())


def test_starts_with_unit_noise_that_belongs_to_no_image() -> None:
    loss = _queued(queue_size=50)
    for queue in (loss.image_queue, loss.text_queue):
        torch.testing.assert_close(queue.norm(dim=1), torch.ones(50).double(), rtol=0, atol=1e-6)
    assert not torch.equal(loss.image_queue, loss.text_queue)
    assert loss.id_queue.tolist() == [-100] * 50
    assert torch.equal(loss.image_queue, _queued(queue_size=50).image_queue)
    assert not torch.equal(loss.image_queue, _queued(1, 50).image_queue)


def test_evaluation_leaves_the_queue_alone() -> None:
    loss = _queued().eval()
    before = {name: buffer.clone() for name, buffer in loss.state_dict().items()}
    loss(*[_unit(2, seed) for seed in range(4)], torch.tensor([1, 2]), 0.07, 0.4)
    assert all(torch.equal(buffer, before[name]) for name, buffer in loss.state_dict().items())


def test_a_checkpoint_holds_the_queue() -> None:
    loss, other = _queued(0), _queued(1)
    loss(*[_unit(3, seed) for seed in range(4)], torch.tensor([1, 2, 3]), 0.07, 0.4)
    other.load_state_dict(loss.state_dict())
    rows = [_unit(2, seed) for seed in range(4, 8)]
    assert other(*rows, torch.tensor([1, 2]), 0.07, 0.4) == loss(*rows, torch.tensor([1, 2]), 0.07, 0.4)
    assert torch.equal(other.id_queue, loss.id_queue)


def test_no_gradient_reaches_the_momentum_model_or_the_targets() -> None:
    """The backward pass comes after the queue has changed, so the loss must not look into it again."""
    loss = _queued()
    rows = [_unit(4, seed).requires_grad_() for seed in range(4)]
    temperature = torch.tensor(0.2, dtype=torch.double, requires_grad=True)
    loss(*rows, torch.arange(4), temperature, 1.0).backward()
    assert rows[0].grad.any()
    assert rows[1].grad.any()
    assert rows[2].grad is rows[3].grad is None
    step = 1e-6
    fresh = [_queued()(*rows, torch.arange(4), 0.2 + shift, 0.0).item() for shift in (step, -step)]
    loss, temperature.grad = _queued(), None
    loss(*rows, torch.arange(4), temperature, 0.0).backward()
    assert temperature.grad.item() == pytest.approx((fresh[0] - fresh[1]) / (2 * step), rel=1e-5)


def test_refuses_an_empty_queue() -> None:
    with pytest.raises(ConfigError, match=r"`model\.init_args\.queue_size` is 0"):
        MomentumContrastiveLoss(3, 0)
