"""The halving schedule against the paper's recipes."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.schedule import halving_schedule


def _rates(every: float, steps_per_epoch: float, steps: int, factor: float = 0.5) -> list[float]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=2e-6)
    schedule = halving_schedule(optimizer, every, steps_per_epoch, factor)
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
