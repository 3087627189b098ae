"""The counterfactual margin against its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from datamodules.errors import ConfigError
from lightning_modules.losses import CounterfactualMarginLoss


def _unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.double), dim=1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=8), st.sampled_from([0.0, 0.3, 1.0]))
def test_equals_the_definition(pairs: list[tuple[int, bool]], margin: float) -> None:
    """Originals may repeat, have several counterfactuals or none; a source may be missing."""
    images, texts = _unit(len(pairs), 0), _unit(len(pairs), 1)
    costs = []
    for i, (source, edited) in enumerate(pairs):
        for j, (caption, other_edited) in enumerate(pairs):
            if edited and not other_edited and source == caption:
                own, to_source = images[i] @ texts[i], images[i] @ texts[j]
                original, to_edited = images[j] @ texts[j], images[j] @ texts[i]
                costs.append(max(0, float(margin + to_source - own)) + max(0, float(margin + to_edited - original)))
    synthetic = torch.tensor([edited for _, edited in pairs])
    sources = torch.tensor([source for source, _ in pairs])
    ids = torch.where(synthetic, 100 + torch.arange(len(pairs)), sources)
    loss = CounterfactualMarginLoss(margin)(images, texts, ids, sources, synthetic)
    assert loss.item() == pytest.approx(sum(costs) / max(1, len(costs)), abs=1e-12)


def test_a_batch_without_couples_costs_nothing_and_trains_nothing() -> None:
    rows = _unit(3, 0).requires_grad_()
    absent = torch.full((3,), -1)
    loss = CounterfactualMarginLoss()(rows, rows, torch.arange(3), absent, torch.tensor([True, False, True]))
    loss.backward()
    assert loss.item() == 0
    assert not rows.grad.any()


def test_falls_to_zero_where_each_image_prefers_its_own_caption() -> None:
    rows, source = torch.eye(2), torch.tensor([5, 5])
    loss = CounterfactualMarginLoss(1.0)
    arguments = torch.tensor([5, 9]), source, torch.tensor([False, True])
    assert loss(rows, rows, *arguments) == 0
    assert loss(rows, rows.flip(0), *arguments) == 4


def test_refuses_a_negative_margin() -> None:
    with pytest.raises(ConfigError, match="margin of CounterfactualMarginLoss is -1"):
        CounterfactualMarginLoss(-1)
