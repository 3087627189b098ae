"""The schedules against the paper's recipes and their formulas, and what a model makes of its keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datamodules.errors import ConfigError
from lightning_modules.schedule import cosine_schedule, halving_schedule


def _rates(every: float, steps_per_epoch: float, steps: int, factor: float = 0.5, warmup: int = 0) -> list[float]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=2e-6)
    return _followed(optimizer, halving_schedule(optimizer, every, steps_per_epoch, factor, warmup), steps)


def _followed(optimizer: torch.optim.Optimizer, schedule: Any, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def test_clip_recipe_halves_every_two_of_ten_epochs() -> None:
    rates = _rates(every=2, steps_per_epoch=5, steps=50)
    assert rates == [2e-6 * 0.5 ** (step // 5 // 2) for step in range(50)]


def test_blip_recipe_halves_every_half_epoch() -> None:
    rates = _rates(every=0.5, steps_per_epoch=8, steps=16)
    assert [rate / 2e-6 for rate in rates[::4]] == [1, 0.5, 0.25, 0.125]


@pytest.mark.parametrize("steps_per_epoch", [3, 5, 7])
def test_halves_of_an_odd_number_of_steps_do_not_drift(steps_per_epoch: int) -> None:
    rates = _rates(every=0.5, steps_per_epoch=steps_per_epoch, steps=4 * steps_per_epoch)
    assert rates == [2e-6 * 0.5 ** (2 * step // steps_per_epoch) for step in range(4 * steps_per_epoch)]


@pytest.mark.parametrize("every", [0.1, 0.3, 0.7])
def test_a_fraction_that_floats_lack_is_met_to_the_step(every: float) -> None:
    rates = _rates(every=every, steps_per_epoch=30, steps=60)
    assert rates == [2e-6 * 0.5 ** (step // round(every * 30)) for step in range(60)]


def test_the_first_recipe_of_vsepp_takes_a_tenth_after_15_of_30_epochs() -> None:
    rates = _rates(every=15, steps_per_epoch=2, steps=60, factor=0.1)
    assert rates == [2e-6] * 30 + [pytest.approx(2e-7)] * 30


@pytest.mark.parametrize("steps_per_epoch", [0.4, 1])
def test_epochs_of_less_than_a_step_halve_every_step_at_most(steps_per_epoch: float) -> None:
    assert _rates(every=0.5, steps_per_epoch=steps_per_epoch, steps=3) == [2e-6, 1e-6, 5e-7]


def test_a_warm_up_rises_to_the_rate_and_leaves_the_halvings_where_they_are() -> None:
    plain, warm = (_rates(every=1, steps_per_epoch=6, steps=12, warmup=warmup) for warmup in (0, 4))
    assert warm[:4] == pytest.approx([0.5e-6, 1e-6, 1.5e-6, 2e-6])
    assert warm[4:] == plain[4:]


@pytest.mark.parametrize(("steps", "warmup"), [(50, 0), (50, 7), (1, 0), (3, 3), (2, 5)])
def test_a_cosine_falls_to_zero_after_its_warm_up(steps: int, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3.0)
    rates = _followed(optimizer, cosine_schedule(optimizer, steps, warmup), steps + 3)
    for step, rate in enumerate(rates[:steps]):
        falling = 1 if step < warmup else (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
        rising = (step + 1) / warmup if step < warmup else 1
        assert rate == pytest.approx(3 * falling * rising)
    if warmup < steps:
        assert rates[steps:] == [0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "rates"),
    [
        ({"lr_halving_epochs": 1}, [1, 1, 1, 0.5, 0.5, 0.5]),
        ({"lr_halving_epochs": None, "lr_warmup_steps": 2}, [0.5, 1, 1, 1, 1, 1]),
        ({"lr_cosine": True, "lr_warmup_steps": 2}, [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
        ({"lr_cosine": True, "lr_halving_epochs": 1}, [1, 0.933013, 0.75, 0.5, 0.25, 0.066987]),
    ],
)
def test_a_model_follows_its_keys(tiny_clip: Callable[..., Any], arguments: dict[str, Any], rates: list[float]) -> None:
    made = _configured(tiny_clip(lr=1.0, **arguments), steps=6)
    schedule = made["lr_scheduler"]["scheduler"]
    assert _followed(made["optimizer"], schedule, 6) == pytest.approx(rates, abs=1e-6)
    assert made["lr_scheduler"]["interval"] == "step"


def test_a_rate_without_a_schedule_stays(tiny_clip: Callable[..., Any]) -> None:
    assert isinstance(_configured(tiny_clip(lr_halving_epochs=None), steps=6), torch.optim.Optimizer)


def test_a_cosine_without_an_end_is_refused(tiny_clip: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"lr_cosine` is true.*`trainer.max_epochs` or `trainer.max_steps`"):
        _configured(tiny_clip(lr_cosine=True), steps=math.inf)
    with pytest.raises(ConfigError, match=r"`model.init_args.lr_warmup_steps` is -1"):
        tiny_clip(lr_warmup_steps=-1)


def _configured(model: Any, steps: float) -> Any:
    """Return what a model gives a trainer of two epochs of three batches."""
    loop = SimpleNamespace(setup_data=lambda: None)
    model._trainer = SimpleNamespace(
        fit_loop=loop, num_training_batches=3, accumulate_grad_batches=1, estimated_stepping_batches=steps
    )
    return model.configure_optimizers()
