"""Scores of activation maps against slow loops over pixels, and what an empty map or region does to them."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import MapScores
from metrics.maps import iou, mass_inside

NAN = float("nan")


def _slowly(heat: list[list[float]], region: list[list[bool]], threshold: float) -> tuple[float, float]:
    places = list(zip(chain(*heat), chain(*region), strict=True))
    total, within = sum(value for value, _ in places), sum(value for value, inside in places if inside)
    both = sum(value >= threshold and inside for value, inside in places)
    either = sum(value >= threshold or inside for value, inside in places)
    if not any(inside for _, inside in places):
        return NAN, NAN
    return within / total if total else NAN, both / either


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.25, 0.5, 1.0]))
def test_scores_equal_loops_over_pixels(seed: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, 5, (4, 3, 5), generator=generator) / 4
    maps[0], regions = 0, torch.rand(4, 3, 5, generator=generator) < 0.4
    regions[1] = False
    slow = [_slowly(heat, region, threshold) for heat, region in zip(maps.tolist(), regions.tolist(), strict=True)]
    expected = torch.tensor(slow).T
    torch.testing.assert_close(mass_inside(maps, regions), expected[0], equal_nan=True)
    torch.testing.assert_close(iou(maps, regions, threshold), expected[1], equal_nan=True)


def test_an_even_map_has_the_share_of_the_area() -> None:
    regions = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.3
    even = mass_inside(torch.full((3, 8, 8), 0.7), regions)
    torch.testing.assert_close(even, regions.float().mean(dim=(1, 2)))


def test_means_do_not_depend_on_the_batches_and_count_what_cannot_be_scored() -> None:
    generator = torch.Generator().manual_seed(1)
    maps, regions = torch.rand(6, 4, 4, generator=generator), torch.rand(6, 4, 4, generator=generator) < 0.5
    maps[1], regions[2] = 0, False
    scores = MapScores()
    for rows in (slice(0, 1), slice(1, 3), slice(3, 6)):
        scores.update(maps[rows], regions[rows])
    found = {name: value.item() for name, value in scores.compute().items()}
    share, overlap = mass_inside(maps, regions), iou(maps, regions)
    assert share.isnan().tolist() == [False, True, True, False, False, False]
    assert found["mass_inside"] == pytest.approx(100 * share.nanmean().item())
    assert found["chance"] == pytest.approx(100 * regions[[0, 3, 4, 5]].float().mean().item())
    assert found["iou"] == pytest.approx(100 * overlap.nanmean().item())
    assert overlap[1] == 0
    assert (found["maps"], found["blank"], found["no_region"]) == (6, 1, 1)


def test_a_metric_of_nothing_is_nan() -> None:
    scores = MapScores()
    scores.update(torch.zeros(2, 2, 2), torch.ones(2, 2, 2, dtype=torch.bool))
    assert scores.compute()["mass_inside"].isnan()
    assert scores.compute()["blank"] == 2


def test_maps_of_16_bits_are_summed_in_float32() -> None:
    maps = torch.ones(1, 300, 300, dtype=torch.bfloat16)
    regions = torch.zeros(1, 300, 300, dtype=torch.bool)
    regions[:, :75] = True
    torch.testing.assert_close(mass_inside(maps, regions), torch.tensor([0.25]))


@pytest.mark.parametrize(
    ("maps", "regions", "error", "said"),
    [
        (torch.zeros(1, 2, 2, dtype=torch.int64), torch.ones(1, 2, 2, dtype=torch.bool), TypeError, "floating point"),
        (torch.zeros(1, 2, 2), torch.ones(1, 2, 2), TypeError, "bool"),
        (torch.zeros(1, 2, 2), torch.ones(1, 2, 3, dtype=torch.bool), ValueError, "one shape"),
        (torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool), ValueError, "one shape"),
        (torch.full((1, 2, 2), -0.1), torch.ones(1, 2, 2, dtype=torch.bool), ValueError, "not negative"),
        (torch.full((1, 2, 2), NAN), torch.ones(1, 2, 2, dtype=torch.bool), ValueError, "finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(maps, regions, error, said) -> None:
    for score in (mass_inside, iou, MapScores().update):
        with pytest.raises(error, match=said):
            score(maps, regions)


def test_a_threshold_that_every_place_reaches_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold must be above 0"):
        MapScores(threshold=0)
    with pytest.raises(ValueError, match="threshold must be above 0"):
        iou(torch.zeros(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool), 0)
