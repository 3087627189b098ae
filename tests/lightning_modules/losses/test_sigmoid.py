"""The sigmoid loss against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lightning_modules.losses import SigmoidLoss


def _unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.double), dim=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.floats(0, 30), st.floats(-12, 12))
def test_equals_the_formula(count: int, scale: float, bias: float) -> None:
    images, texts = _unit(count, 0), _unit(count, 1)
    total = 0.0
    for i in range(count):
        for j in range(count):
            logit = scale * float(images[i] @ texts[j]) + bias
            total += math.log1p(math.exp(-logit if i == j else logit))
    scalars = (torch.tensor(value, dtype=torch.double) for value in (scale, bias))
    assert SigmoidLoss()(images, texts, *scalars).item() == pytest.approx(total / count, abs=1e-10)


def test_stays_finite_where_a_logit_is_far_off() -> None:
    rows = _unit(3, 0).float()
    assert SigmoidLoss()(rows, -rows, torch.tensor(1000.0), torch.tensor(-10.0)).item() > 1000
