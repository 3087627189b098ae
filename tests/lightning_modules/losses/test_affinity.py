"""Pulling classes together and apart, against the definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from datamodules.errors import ConfigError
from lightning_modules.losses import ClassAffinityLoss, OrthogonalityLoss


def _rows(count: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double), dim=1)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.sampled_from([None, 0.1, 1.0]))
def test_equals_the_definition(labels: list[int], temperature: float | None) -> None:
    rows, costs = _rows(len(labels)), []
    for i, label in enumerate(labels):
        s = {j: float(rows[i] @ rows[j]) for j in range(len(labels)) if j != i}
        same, apart = ([j for j in s if (labels[j] == label) == alike] for alike in (True, False))
        if temperature is None:
            costs.append(_mean([s[j] for j in apart]) - _mean([s[j] for j in same]))
        else:
            total = sum(math.exp(value / temperature) for value in s.values())
            costs.append(_mean([math.log(total) - s[j] / temperature for j in same]))
    found = ClassAffinityLoss(temperature)(rows, torch.tensor(labels))
    assert found.item() == pytest.approx(_mean(costs), abs=1e-9)


def test_a_row_alone_has_a_finite_gradient() -> None:
    rows = _rows(1).requires_grad_()
    ClassAffinityLoss(0.1)(rows, torch.tensor([0])).backward()
    assert not rows.grad.any()


@pytest.mark.slow
@pytest.mark.ddp
def test_rows_that_all_ranks_share_are_compared_once(run_ranks) -> None:
    expected = _shared(0, 1)
    assert run_ranks(_shared, 2) == [pytest.approx(expected)] * 2


def _shared(rank: int, world: int) -> float:
    return ClassAffinityLoss(across_ranks=False)(_rows(4), torch.tensor([0, 0, 1, 1])).item()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_must_be_above_zero(temperature: float) -> None:
    with pytest.raises(ConfigError, match="give a number above 0"):
        ClassAffinityLoss(temperature)


def test_orthogonality_takes_the_size_of_every_cosine() -> None:
    classes, spurious = _rows(2), -_rows(5)[2:]
    expected = _mean([abs(float(one @ other)) for one in classes for other in spurious])
    assert OrthogonalityLoss()(classes, spurious).item() == pytest.approx(expected)
