"""The triplet loss against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from datamodules.errors import ConfigError
from lightning_modules.losses import TripletLoss


def _unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.double), dim=1)


def _formula(
    images: np.ndarray, texts: np.ndarray, ids: list[int], margin: float, hinges: str, reduction: str, mask: bool
) -> float:
    count, total = len(images), 0.0
    for i in range(count):
        pair = float(images[i] @ texts[i])
        negatives = [j for j in range(count) if j != i and not (mask and ids[j] == ids[i])]
        captions = [max(0.0, margin + float(images[i] @ texts[j]) - pair) for j in negatives]
        photos = [max(0.0, margin + float(images[j] @ texts[i]) - pair) for j in negatives]
        total += sum(max(costs, default=0.0) if hinges == "max" else sum(costs) for costs in (captions, photos))
    return total if reduction == "sum" else total / count


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=7),
    st.sampled_from([0.0, 0.2, 1.5]),
    st.sampled_from(["max", "sum"]),
    st.sampled_from(["sum", "mean"]),
    st.booleans(),
)
def test_equals_the_formula(ids: list[int], margin: float, hinges: str, reduction: str, mask: bool) -> None:
    images, texts = _unit(len(ids), 0), _unit(len(ids), 1)
    loss = TripletLoss(margin, hinges, reduction, mask)(images, texts, torch.tensor(ids))
    expected = _formula(images.numpy(), texts.numpy(), ids, margin, hinges, reduction, mask)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("hinges", ["max", "sum"])
def test_gradient_is_that_of_the_full_matrix(hinges: str) -> None:
    images, texts = _unit(9, 2).requires_grad_(), _unit(9, 3).requires_grad_()
    scores = images @ texts.T
    apart = ~torch.eye(9, dtype=torch.bool)
    expected = 0
    for matrix in (scores, scores.T):
        costs = (0.2 + matrix - scores.diag()[:, None]).clamp(min=0) * apart
        expected = expected + (costs.amax(dim=1) if hinges == "max" else costs).sum()
    right = torch.autograd.grad(expected, (images, texts))
    found = torch.autograd.grad(TripletLoss(hinges=hinges)(images, texts), (images, texts))
    torch.testing.assert_close(found, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("hinges", "reduction", "value"), [("max", "sum", 2 * 128 * 0.2), ("max", "mean", 0.4), ("sum", "mean", 0.4 * 127)]
)
def test_collapsed_embeddings_cost_the_margin_for_every_negative(hinges: str, reduction: str, value: float) -> None:
    rows = _unit(1, 0).expand(128, -1)
    assert TripletLoss(0.2, hinges, reduction)(rows, rows).item() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("hinges", ["max", "sum"])
@pytest.mark.parametrize(("count", "mask"), [(1, False), (1, True), (5, True)])
def test_pairs_without_a_negative_cost_nothing_and_train_nothing(hinges: str, count: int, mask: bool) -> None:
    images, texts = _unit(count, 0).requires_grad_(), _unit(count, 1).requires_grad_()
    loss = TripletLoss(hinges=hinges, mask_same_image=mask)(images, texts, torch.full((count,), 7))
    loss.backward()
    assert loss.item() == 0
    assert not images.grad.any()
    assert not texts.grad.any()


@pytest.mark.parametrize("hinges", ["max", "sum"])
def test_a_broken_embedding_shows_in_the_loss(hinges: str) -> None:
    images = _unit(4, 0)
    images[2, 1] = torch.nan
    assert TripletLoss(hinges=hinges)(images, _unit(4, 1)).isnan()


def test_hinges_may_change_between_batches() -> None:
    images, texts, loss = _unit(6, 0), _unit(6, 1), TripletLoss(hinges="sum")
    before = loss(images, texts)
    loss.hinges = "max"
    assert loss(images, texts) == TripletLoss()(images, texts) < before


def test_leaves_its_input_alone() -> None:
    images, texts = _unit(4, 0), _unit(4, 1)
    copies = images.clone(), texts.clone()
    TripletLoss()(images, texts)
    assert torch.equal(images, copies[0])
    assert torch.equal(texts, copies[1])


@pytest.mark.parametrize("margin", [-0.1, float("nan")])
def test_refuses_a_negative_margin(margin: float) -> None:
    with pytest.raises(ConfigError, match=r"margin of TripletLoss is (-0\.1|nan)"):
        TripletLoss(margin)


def test_refuses_other_hinges_and_reductions() -> None:
    with pytest.raises(ConfigError, match="hinges` is 'hardest': give one of max, sum"):
        TripletLoss(hinges="hardest")
    with pytest.raises(ConfigError, match="reduction` is 'none': give one of sum, mean"):
        TripletLoss(reduction="none")


def test_refuses_to_mask_without_ids() -> None:
    with pytest.raises(ValueError, match="needs the `image_ids`"):
        TripletLoss(mask_same_image=True)(_unit(2, 0), _unit(2, 1))
