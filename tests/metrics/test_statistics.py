import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.statistics import bootstrap, holm, paired_test, resampled_means

PROJECT = Path(__file__).parents[2]


def skewed(queries, seed, measures=None):
    """Return per cents as ODmAP has them: mostly 0, some anywhere up to 100."""
    generator = np.random.default_rng(seed)
    shape = queries if measures is None else (queries, measures)
    return np.where(generator.random(shape) < 0.4, generator.uniform(0, 100, shape), 0)


def slow_bootstrap(values, groups, resamples, seed):
    """Return percentile ends from the definition: draw groups, join their queries, average."""
    generator = np.random.default_rng(seed)
    names = sorted(set(groups))
    means = []
    for _ in range(resamples):
        drawn = [names[i] for i in generator.integers(len(names), size=len(names))]
        means.append(np.mean([value for name in drawn for value, of in zip(values, groups, strict=True) if of == name]))
    return np.percentile(means, [2.5, 97.5])


def test_equals_scipys_percentile_interval():
    values = skewed(200, seed=1)
    ours = bootstrap(values, resamples=5_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=5_000, method="percentile", rng=np.random.default_rng(99)
    )
    error = theirs.standard_error
    assert ours.mean == pytest.approx(values.mean())
    # Monte Carlo error of a 2.5 % quantile of 5,000 normal draws: 0.04 standard errors
    np.testing.assert_allclose([ours.low, ours.high], theirs.confidence_interval, atol=0.2 * error)
    assert ours.high - ours.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_the_draws_are_those_of_the_interval_and_shared_by_all_measures():
    values, groups = skewed(60, seed=2, measures=2), np.arange(60) // 3
    draws = resampled_means(np.column_stack([values, values.sum(axis=1)]), groups, resamples=500, seed=4)
    found = bootstrap(values, groups, resamples=500, seed=4)
    np.testing.assert_allclose(np.quantile(draws[:, :2], [0.025, 0.975], axis=0), [found.low, found.high])
    np.testing.assert_allclose(draws[:, 2], draws[:, 0] + draws[:, 1])
    with pytest.raises(ValueError, match="resamples"):
        resampled_means(values, groups, resamples=0)


def test_groups_are_drawn_as_wholes():
    generator = np.random.default_rng(3)
    groups = generator.integers(12, size=40)
    values = groups * 8.0 + generator.uniform(0, 4, 40)  # a group's queries are alike, so groups matter
    ours = bootstrap(values, groups, resamples=4_000, seed=5)
    slow = slow_bootstrap(values, groups.tolist(), resamples=4_000, seed=6)
    spread = ours.high - ours.low
    assert ours.mean == pytest.approx(values.mean())
    np.testing.assert_allclose([ours.low, ours.high], slow, atol=0.06 * spread)
    alone = bootstrap(values, resamples=4_000)
    assert spread > 1.3 * (alone.high - alone.low)


def test_repeating_every_query_within_its_group_changes_nothing():
    values, others = skewed(60, seed=4), skewed(60, seed=5)
    five = np.repeat(np.arange(60), 5)
    np.testing.assert_allclose(bootstrap(values[five], five), bootstrap(values))
    np.testing.assert_allclose(paired_test(values[five], others[five], five), paired_test(values, others))


def test_groups_of_one_are_no_groups_whatever_they_are_called():
    values = skewed(30, seed=6)
    names = [f"photo {index:02d}" for index in range(30)]
    assert bootstrap(values, names) == bootstrap(values)


def test_measures_share_the_draws():
    values = skewed(50, seed=7, measures=3)
    together = bootstrap(values, resamples=500)
    apart = [bootstrap(column, resamples=500) for column in values.T]
    np.testing.assert_allclose(np.stack(together), np.transpose(apart))
    assert together.low.shape == (3,)
    others = values[:, [1, 2, 0]]
    tested = paired_test(values, others, resamples=500)
    apart = [paired_test(values[:, m], others[:, m], resamples=500) for m in range(3)]
    np.testing.assert_allclose(np.stack(tested), np.transpose(apart))


def test_the_size_of_a_batch_is_no_part_of_the_result(monkeypatch):
    values, others = skewed(41, seed=8), skewed(41, seed=9)
    found = bootstrap(values, resamples=999), paired_test(values, others, resamples=999)
    few = paired_test(values[:8], others[:8])
    monkeypatch.setattr("metrics.statistics._CELLS", 64)
    np.testing.assert_allclose(bootstrap(values, resamples=999), found[0])
    np.testing.assert_allclose(paired_test(values, others, resamples=999), found[1])
    np.testing.assert_allclose(paired_test(values[:8], others[:8]), few)


def test_same_seed_same_result():
    values, others = skewed(40, seed=10), skewed(40, seed=11)
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)
    assert paired_test(values, others, seed=1) == paired_test(values, others, seed=1)
    assert paired_test(values, others, seed=1).p_value != paired_test(values, others, seed=2).p_value


def test_the_number_of_threads_is_no_part_of_the_result():
    code = (
        "import numpy as np; from metrics.statistics import bootstrap\n"
        "values = np.random.default_rng(0).uniform(size=(2_500, 12))\n"
        "print(b''.join(end.tobytes() for end in bootstrap(values, resamples=500)).hex())"
    )
    printed = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=PROJECT, env=environment, check=True, capture_output=True)
        printed.add(done.stdout)
    assert len(printed) == 1


def test_takes_tensors_lists_and_bools():
    hits = [True, False, True, True]
    wanted = bootstrap(np.array(hits, dtype=float))
    assert bootstrap(hits) == wanted
    assert bootstrap(torch.tensor(hits)) == wanted
    assert bootstrap(torch.tensor(hits, dtype=torch.bfloat16), torch.arange(4)) == wanted


def test_95_per_cent_intervals_cover_about_95_per_cent():
    runs = [bootstrap(skewed(80, seed=100 + run), resamples=400, seed=run) for run in range(400)]
    covered = np.mean([run.low <= 0.4 * 50 <= run.high for run in runs])
    assert 0.91 <= covered <= 0.98


def test_a_wider_confidence_is_a_wider_interval():
    values = skewed(80, seed=12)
    narrow, wide = bootstrap(values, confidence=0.5), bootstrap(values, confidence=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_confidence_is_what_lies_between_the_two_tails():
    """Means of two draws from 0 and 100 are 0, 50 and 100, in a quarter, a half and a quarter of the cases."""
    assert bootstrap([0, 100], confidence=0.45) == (50, 50, 50)
    assert bootstrap([0, 100], confidence=0.55) == (50, 0, 100)


def test_rounding_never_hides_the_pattern_that_was_found():
    """Where all differences are above 0, two patterns are as far from 0: the one found, and all signs turned."""
    for seed in range(50):
        differences = np.random.default_rng(seed).uniform(0.1, 1, 11)
        assert paired_test(np.zeros(11), differences).p_value == 2 / 2**11


def test_p_is_the_share_of_all_sign_patterns_where_they_are_few():
    differences = np.random.default_rng(13).normal(0.4, 1, 9)
    patterns = np.array(list(itertools.product((-1, 1), repeat=9)))
    as_far = np.abs(patterns @ differences) >= abs(differences.sum()) - 1e-9
    found = paired_test(np.zeros(9), differences)
    assert found.p_value == as_far.mean()
    theirs = scipy.stats.permutation_test((differences,), np.sum, permutation_type="samples")
    assert found.p_value == pytest.approx(theirs.pvalue)


def test_random_sign_patterns_come_close_to_all_of_them():
    differences = np.random.default_rng(14).normal(0.5, 1, 12)
    every = paired_test(np.zeros(12), differences, resamples=2**12).p_value
    some = paired_test(np.zeros(12), differences, resamples=2**12 - 1).p_value
    assert some != every
    assert some == pytest.approx(every, abs=4 * np.sqrt(every * (1 - every) / 2**12))


def test_p_of_groups_flips_whole_groups():
    differences, groups = np.array([1.0, 1, 1, 1, 1, 1]), [0, 0, 0, 1, 1, 2]
    assert paired_test(np.zeros(6), differences, groups).p_value == 2 / 2**3
    assert paired_test(np.zeros(6), differences).p_value == 2 / 2**6


@pytest.mark.parametrize("queries", [5, 500])
def test_identical_runs_have_p_1_and_no_width(queries):
    values = skewed(queries, seed=15)
    assert paired_test(values, values) == (0, 0, 0, 1)


def test_a_clear_difference_has_a_small_p_of_no_less_than_one_in_all():
    values = skewed(300, seed=16)
    found = paired_test(values, values + np.random.default_rng(0).normal(5, 10, 300), resamples=999)
    assert found.p_value == 1 / 1000
    assert 0 < found.low < found.difference < found.high
    turned = paired_test(values + 5, values, resamples=999)
    assert turned.difference == pytest.approx(-5)


def test_p_is_uniform_where_there_is_no_difference():
    generator = np.random.default_rng(17)
    runs = [paired_test(*generator.normal(size=(2, 40)), resamples=199, seed=run).p_value for run in range(400)]
    assert scipy.stats.kstest(runs, "uniform").pvalue > 0.01


def test_the_intervals_of_a_difference_are_those_of_the_differences():
    values, others = skewed(50, seed=18), skewed(50, seed=19)
    assert paired_test(values, others, seed=3)[:3] == bootstrap(others - values, seed=3)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=12), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_mean_and_interval_lie_within_the_values(values, seed):
    found = bootstrap(values, resamples=50, seed=seed)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found.mean == pytest.approx(np.mean(values))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_of_its_definition(p_values):
    corrected = holm(p_values)
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for place, index in enumerate(ranked):
        wanted = max(min(1.0, (len(p_values) - j) * p_values[ranked[j]]) for j in range(place + 1))
        assert corrected[index] == pytest.approx(wanted)


@pytest.mark.parametrize("p_values", [[0.1, np.nan], [-0.1], [1.1], [[0.5]]])
def test_holm_refuses_what_are_no_p_values(p_values):
    with pytest.raises(ValueError, match="p_values must be"):
        holm(p_values)


@pytest.mark.parametrize(
    ("values", "groups", "options", "message"),
    [
        ([1.0, np.nan], None, {}, "1 of 2 rows of values are not finite, the first is 1"),
        ([[1.0, np.inf], [0, 0]], None, {}, "values are not finite, the first is 0"),
        ([1.0], None, {}, "values must hold 2 queries or more, got 1"),
        ([], None, {}, "values must hold 2 queries or more, got 0"),
        (["a", "b"], None, {}, "values must be numbers"),
        (np.zeros((2, 2, 2)), None, {}, "values must be numbers of shape"),
        ([1.0, 2.0], [1, 2, 3], {}, r"groups must have shape \[2\], got \(3,\)"),
        ([1.0, 2.0], [7, 7], {}, "groups must hold 2 distinct values or more"),
        ([1.0, 2.0], None, {"resamples": 0}, "resamples must be a positive integer"),
        ([1.0, 2.0], None, {"confidence": 95}, "confidence must lie between 0 and 1"),
        ([1.0, 2.0], None, {"seed": -1}, "seed must be an integer from 0"),
    ],
)
def test_bootstrap_names_the_argument_that_is_wrong(values, groups, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(values, groups, **options)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], r"second must have the shape of first, \(2,\), got \(3,\)"),
        ([1.0, 2.0], [[1.0], [2.0]], "second must have the shape of first"),
        ([1.0, np.nan], [1.0, 2.0], "1 of 2 rows of first are not finite"),
        ([1.0, 2.0], [1.0, -np.inf], "1 of 2 rows of second are not finite"),
    ],
)
def test_paired_test_names_the_argument_that_is_wrong(first, second, message):
    with pytest.raises(ValueError, match=message):
        paired_test(first, second)
