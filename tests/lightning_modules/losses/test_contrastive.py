"""InfoNCE against its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from datamodules.errors import ConfigError
from lightning_modules.losses import InfoNCELoss


def _formula(images: np.ndarray, texts: np.ndarray, scale: float, ids: list[int], positives: str) -> float:
    """Return the mean over both directions of -sum_j target_ij log softmax_ij."""
    count, total = len(images), 0.0
    for left, right in ((images, texts), (texts, images)):
        for i in range(count):
            same = [j for j in range(count) if ids[j] == ids[i]]
            targets = {j: 1 / len(same) for j in same} if positives == "same_image_soft" else {i: 1.0}
            left_out = set(same) - {i} if positives == "mask_same_image" else set()
            powers = [math.exp(scale * float(left[i] @ right[j])) for j in range(count) if j not in left_out]
            for j, share in targets.items():
                total -= share * (scale * float(left[i] @ right[j]) - math.log(sum(powers)))
    return total / (2 * count)


def _unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.double), dim=1)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["diagonal", "same_image_soft", "mask_same_image"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=7),
    st.floats(0, 20),
)
def test_equals_the_formula(positives: str, ids: list[int], scale: float) -> None:
    images, texts = _unit(len(ids), 0), _unit(len(ids), 1)
    loss = InfoNCELoss(positives)(images, texts, torch.tensor(scale, dtype=torch.double), torch.tensor(ids))
    expected = _formula(images.numpy(), texts.numpy(), scale, ids, positives)
    assert loss.item() == pytest.approx(expected, abs=1e-10)


def test_is_symmetric_and_falls_when_pairs_agree() -> None:
    images, texts, scale = _unit(6, 2), _unit(6, 3), torch.tensor(5.0, dtype=torch.double)
    loss = InfoNCELoss()
    assert loss(images, texts, scale).item() == pytest.approx(loss(texts, images, scale).item(), abs=1e-12)
    assert loss(images, images, scale) < loss(images, texts, scale)


def test_a_batch_of_equal_embeddings_costs_log_of_its_size() -> None:
    rows = _unit(1, 4).expand(8, -1)
    assert InfoNCELoss()(rows, rows, torch.tensor(3.0)).item() == pytest.approx(math.log(8), abs=1e-9)


@pytest.mark.parametrize(("positives", "value"), [("same_image_soft", math.log(4)), ("mask_same_image", 0)])
def test_a_batch_of_one_image_that_looks_alike(positives: str, value: float) -> None:
    rows = _unit(1, 4).repeat(4, 1).requires_grad_()
    loss = InfoNCELoss(positives)(rows, rows, torch.tensor(3.0), torch.full((4,), 7))
    loss.backward()
    assert loss.item() == pytest.approx(value, abs=1e-9)
    assert rows.grad.abs().max() < 1e-9  # no pair can be told from another


def test_without_repeated_images_the_three_agree() -> None:
    images, texts, ids = _unit(5, 6), _unit(5, 7), torch.arange(5)
    values = {
        InfoNCELoss(positives)(images, texts, torch.tensor(9.0), ids).item()
        for positives in ("diagonal", "same_image_soft", "mask_same_image")
    }
    assert max(values) - min(values) < 1e-12


def test_refuses_other_positives_and_missing_ids() -> None:
    with pytest.raises(ConfigError, match="'soft': give one of diagonal, same_image_soft, mask_same_image"):
        InfoNCELoss("soft")
    with pytest.raises(ValueError, match="needs the `image_ids`"):
        InfoNCELoss("same_image_soft")(_unit(2, 0), _unit(2, 1), torch.tensor(1.0))
