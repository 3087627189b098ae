"""Freezing, learning rates and weight decay by patterns of names."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from datamodules.errors import ConfigError
from lightning_modules.parameter_groups import freeze, parameter_groups


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))


def _names(net: nn.Module, group: dict[str, Any]) -> list[str]:
    return [name for name, own in net.named_parameters() if any(own is one for one in group["params"])]


def test_frozen_parameters_are_those_of_the_patterns() -> None:
    net = _net()
    modules = freeze(net, ["0.*", "2.1.bias", "?.bias"])
    trained = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    assert trained == ["1.weight", "2.0.weight", "2.0.bias", "2.1.weight"]
    assert modules == [net[0]]


def test_a_module_is_frozen_whole_only_when_all_below_it_is() -> None:
    net = _net()
    assert freeze(net, ["2.0.*", "2.1.weight"]) == [net[2][0]]
    assert freeze(net, ["2.*"]) == [net[2], net[2][0], net[2][1]]


def test_what_was_not_trained_before_stays_so() -> None:
    net = _net()
    net[0].weight.requires_grad_(False)
    freeze(net, ["1.*"])
    assert not net[0].weight.requires_grad


def test_every_trained_parameter_is_in_one_group() -> None:
    net = _net()
    freeze(net, ["1.weight"])
    groups = parameter_groups(net, 2.0, {"2.0.*": 0.5, "2.*": 0.1, "0.*": 0.5}, decay_vectors=False)
    assert {(group["lr"], group.get("weight_decay")): _names(net, group) for group in groups} == {
        (1.0, None): ["0.weight", "2.0.weight"],
        (1.0, 0.0): ["0.bias", "2.0.bias"],
        (2.0, 0.0): ["1.bias"],
        (0.2, 0.0): ["2.1.weight", "2.1.bias"],
    }


def test_without_wishes_there_is_one_group() -> None:
    (group,) = parameter_groups(_net(), 0.5)
    assert set(group) == {"params", "lr"}
    assert len(group["params"]) == 8


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (
            ["2.1.wieght"],
            r"`model.init_args.freeze` holds '2.1.wieght', which matches no parameter; did you mean 2.1.we",
        ),
        (["visual.*"], r"'visual.\*', which matches no parameter; names look like 0.weight, 0.bias"),
        (["*"], r"leaves nothing to train"),
    ],
)
def test_freezing_nothing_or_everything_is_refused(patterns: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        freeze(_net(), patterns)


def test_slips_in_factors_are_explained() -> None:
    with pytest.raises(ConfigError, match=r"`model.init_args.lr_scales` holds '2.2.\*'.*did you mean"):
        parameter_groups(_net(), 1.0, {"2.2.*": 0.1})
    with pytest.raises(ConfigError, match=r"`model.init_args.lr_scales` holds {'0.\*': -1}"):
        parameter_groups(_net(), 1.0, {"0.*": -1})
