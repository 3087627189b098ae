"""Group DRO against its algorithm, and the classifier of prompts that it weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import ConfigError
from lightning_modules.losses import GroupDROLoss, PromptCrossEntropyLoss

BATCHES = [
    ([0.5, 2.0, 1.0, 4.0], [0, 2, 0, 2]),  # group 1 has no sample
    ([3.0, 1.0], [1, 1]),
    ([0.0, 0.0, 9.0], [0, 1, 2]),
]


def test_equals_the_algorithm() -> None:
    loss, q = GroupDROLoss(3, step_size=0.2), [1 / 3] * 3
    for losses, groups in BATCHES:
        means = [0.0] * 3
        for group in set(groups):
            own = [value for value, place in zip(losses, groups, strict=True) if place == group]
            means[group] = sum(own) / len(own)
        q = [weight * math.exp(0.2 * mean) for weight, mean in zip(q, means, strict=True)]
        q = [weight / sum(q) for weight in q]
        found = loss(torch.tensor(losses), torch.tensor(groups))
        assert found.item() == pytest.approx(sum(weight * mean for weight, mean in zip(q, means, strict=True)))
        assert loss.weights.tolist() == pytest.approx(q)


def test_evaluation_leaves_the_weights_alone() -> None:
    loss = GroupDROLoss(2, step_size=1.0).eval()
    assert loss(torch.tensor([1.0, 3.0]), torch.tensor([0, 1])).item() == pytest.approx(2.0)
    assert loss.weights.tolist() == [0.5, 0.5]


def test_huge_losses_do_not_overflow() -> None:
    loss = GroupDROLoss(2, step_size=1.0)
    loss(torch.tensor([1e4, 2e4]), torch.tensor([0, 1]))
    assert loss.weights.tolist() == [0.0, 1.0]


def test_the_weights_are_part_of_a_checkpoint() -> None:
    loss, other = GroupDROLoss(2, step_size=1.0), GroupDROLoss(2)
    loss(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]))
    other.load_state_dict(loss.state_dict())
    assert other.weights.equal(loss.weights)


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="group_dro_step"):
        GroupDROLoss(2, step_size=-0.1)


def test_prompts_are_a_classifier() -> None:
    generator = torch.Generator().manual_seed(0)
    images, prompts = torch.randn(5, 4, generator=generator), torch.randn(3, 4, generator=generator)
    targets = torch.tensor([0, 2, 1, 1, 0])
    expected = [
        -F.log_softmax(7 * prompts @ image, dim=0)[target] for image, target in zip(images, targets, strict=True)
    ]
    loss = PromptCrossEntropyLoss()
    torch.testing.assert_close(loss.per_image(images, prompts, torch.tensor(7.0), targets), torch.stack(expected))
    torch.testing.assert_close(loss(images, prompts, torch.tensor(7.0), targets), torch.stack(expected).mean())
