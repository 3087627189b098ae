"""The momentum copy against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from datamodules.errors import ConfigError
from lightning_modules.momentum import MomentumCopy


def test_follows_as_the_formula_says() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    copy = MomentumCopy(model, momentum=0.9)
    expected = [parameter.clone() for parameter in model.parameters()]
    for _ in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        copy.follow(model)
        expected = [0.9 * old + 0.1 * new for old, new in zip(expected, model.parameters(), strict=True)]
    for parameter, right in zip(copy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), right.detach(), rtol=0, atol=1e-6)


def test_is_not_trained_but_has_the_mode_of_its_holder() -> None:
    holder = nn.ModuleList([MomentumCopy(nn.Linear(1, 1), momentum=0.5)])
    assert not any(parameter.requires_grad for parameter in holder.parameters())
    assert holder[0].model.training
    assert not holder.eval()[0].model.training


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_a_momentum_that_cannot_work_is_refused(momentum: float) -> None:
    with pytest.raises(ConfigError, match=r"`model.init_args.momentum` is -?\d.\d: give at least 0 and less than 1"):
        MomentumCopy(nn.Linear(1, 1), momentum=momentum)
