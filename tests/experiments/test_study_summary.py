"""Means, differences and shares of a gap, against slow references and what must hold of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.study.results import Block, Scores
from experiments.study.summary import corrected, differences, estimates, recovered

MEASURE = "ODmAP@1"


def _scores(values: np.ndarray, seeds: tuple[int, ...] | None = None, groups: np.ndarray | None = None) -> Scores:
    """Return a row of one measure from `[S, Q]`."""
    seeds = tuple(range(len(values))) if seeds is None else seeds
    groups = np.arange(values.shape[1]) // 2 if groups is None else groups
    return Scores(seeds, (Block((MEASURE,), values[..., None], groups),), {"distinct": values[:, 0]})


def _random(seed: int, mean: float = 50.0, shape: tuple[int, int] = (3, 40)) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 10, shape)


def test_an_estimate_is_the_mean_over_queries_and_seeds_and_knows_the_spread_over_seeds() -> None:
    values = _random(0)
    found = estimates(_scores(values))[MEASURE]
    by_seed = [sum(row) / len(row) for row in values.tolist()]
    mean = sum(by_seed) / 3
    assert found.mean == pytest.approx(mean)
    assert found.seed_sd == pytest.approx((sum((one - mean) ** 2 for one in by_seed) / 2) ** 0.5)
    assert found.low < found.mean < found.high
    assert found.seeds == 3
    assert estimates(_scores(values[:1]))[MEASURE].seed_sd is None


def test_the_interval_is_of_query_groups_drawn_with_all_their_seeds() -> None:
    values = np.repeat(_random(1, shape=(2, 30)), 2, axis=1)  # both queries of a group are alike
    found = estimates(_scores(values))[MEASURE]
    generator, means = np.random.default_rng(9), []
    groups = values.mean(axis=0).reshape(30, 2)
    for _ in range(4000):
        drawn = [groups[one] for one in generator.integers(30, size=30)]
        means.append(np.mean(drawn))
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.35)
    apart = estimates(_scores(values, groups=np.arange(60)))[MEASURE]
    assert apart.high - apart.low < 0.85 * (found.high - found.low)


def test_queries_of_one_group_have_means_alone() -> None:
    rows = [_scores(_random(seed, mean, (2, 4)), groups=np.zeros(4)) for seed, mean in ((2, 40), (3, 60), (4, 80))]
    found = estimates(rows[0])[MEASURE]
    assert found.mean == pytest.approx(rows[0][MEASURE].mean())
    assert (found.low, found.high) == (None, None)
    assert differences(rows[1], rows[0]) == {}
    assert recovered(rows[1], rows[0], rows[2]) is None


def test_a_score_without_values_per_query_has_no_interval() -> None:
    found = estimates(_scores(_random(2)))["distinct"]
    assert (found.low, found.high) == (None, None)
    assert found.seed_sd > 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_identical_rows_differ_by_nothing(seed: int, seeds: int) -> None:
    row = _scores(_random(seed, shape=(seeds, 8)))
    found = differences(row, row)[MEASURE]
    assert found[:3] == (0, 0, 0)
    assert found.p_value == 1
    assert found.relative == 0
    assert found.verdict == "not told apart"


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_the_oracle_recovers_the_whole_gap_and_the_control_nothing(seed: int) -> None:
    control, oracle = _scores(_random(seed, 40)), _scores(_random(seed + 1, 80))
    assert recovered(oracle, control, oracle) == pytest.approx((100, 100, 100))
    assert recovered(control, control, oracle) == (0, 0, 0)


def test_a_difference_is_paired_over_queries_and_seeds() -> None:
    control = _random(3)
    gain = np.random.default_rng(4).normal(2, 1, control.shape)
    found = differences(_scores(control + gain), _scores(control))[MEASURE]
    assert found.difference == pytest.approx(gain.mean())
    assert 1.5 < found.low < found.high < 2.5  # far narrower than the queries are spread
    assert found.p_value < 0.001
    assert found.relative == pytest.approx(100 * gain.mean() / control.mean())
    assert found.seed_sd == pytest.approx(np.std(gain.mean(axis=1), ddof=1))
    assert found.verdict == "helps"
    assert found._replace(p_holm=0.05).verdict == "not told apart"
    assert differences(_scores(control - gain), _scores(control))[MEASURE].verdict == "hurts"


def test_rows_are_compared_on_the_seeds_that_both_have() -> None:
    control, row = _random(5), _random(6)
    found = differences(_scores(row[:2], (4, 2)), _scores(control, (0, 2, 4)))[MEASURE]
    assert found.seeds == (2, 4)
    assert found.difference == pytest.approx((row[:2] - control[[2, 1]]).mean())
    assert differences(_scores(row, (0, 1, 2)), _scores(control, (3, 4, 5))) == {}


def test_the_share_of_a_gap_is_that_of_a_slow_bootstrap_of_groups() -> None:
    control, oracle, noise = (
        np.repeat(_random(seed, mean, (3, 20)), 2, axis=1) for seed, mean in ((7, 40), (8, 70), (9, 0))
    )
    row = control + 0.6 * (oracle - control) + noise
    found = recovered(_scores(row), _scores(control), _scores(oracle))
    start, mine, end = (values.mean(axis=0) for values in (control, row, oracle))
    assert found.share == pytest.approx(100 * (mine - start).mean() / (end - start).mean())
    generator, shares = np.random.default_rng(1), []
    for _ in range(4000):
        drawn = [query for group in generator.integers(20, size=20) for query in (2 * group, 2 * group + 1)]
        shares.append(100 * sum(mine[drawn] - start[drawn]) / sum(end[drawn] - start[drawn]))
    assert [found.low, found.high] == pytest.approx(
        np.quantile(shares, [0.025, 0.975]), abs=0.05 * (max(shares) - min(shares))
    )
    alone = np.arange(40)
    apart = recovered(_scores(row, groups=alone), _scores(control, groups=alone), _scores(oracle, groups=alone))
    assert apart.high - apart.low < 0.85 * (found.high - found.low)


def test_no_share_is_given_of_a_gap_that_is_not_clearly_there() -> None:
    control, row = _random(10), _random(11, 60)
    assert recovered(_scores(row), _scores(control), _scores(control + _random(12, 0.5))) is None
    assert recovered(_scores(row), _scores(control), _scores(_random(13, 20))) is None
    assert recovered(_scores(row, (0, 1, 2)), _scores(control, (0, 1, 2)), _scores(row, (3, 4, 5))) is None


def test_p_values_are_corrected_per_measure_over_the_rows_that_have_it() -> None:
    base = differences(_scores(_random(14)), _scores(_random(15)))[MEASURE]
    rows = [{MEASURE: base._replace(p_value=p)} for p in (0.01, 0.5, 0.02)]
    found = corrected([*rows, {}, {"other": base._replace(p_value=0.04)}])
    assert [row[MEASURE].p_holm for row in found[:3]] == pytest.approx([0.03, 0.5, 0.04])
    assert found[3] == {}
    assert found[4]["other"].p_holm == 0.04
    assert rows[0][MEASURE].p_holm == base.p_value
