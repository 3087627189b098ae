"""The detector of spurious words: AUCs against loops over pairs, p-values against all permutations, planted words."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.spurious_words import word_pull
from metrics.statistics import holm


def _slowly(similarities: np.ndarray, labels: np.ndarray, called: np.ndarray) -> float:
    total = weights = 0.0
    for label in set(labels.tolist()):
        inside = similarities[(labels == label) & called], similarities[(labels == label) & ~called]
        m, n = map(len, inside)
        if m and n:
            wins = sum((a > b) + (a == b) / 2 for a in inside[0] for b in inside[1])
            weight = m * n / (m + n + 1)
            total, weights = total + weight * wins / (m * n), weights + weight
    return total / weights if weights else float("nan")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_auc_equals_loops_over_pairs(seed: int) -> None:
    generator = np.random.default_rng(seed)
    similarities = generator.integers(0, 4, (25, 3)) / 4  # with ties
    labels, predictions = generator.integers(0, 3, (2, 25))
    for target in range(3):
        pull = word_pull(similarities, labels, predictions, target, resamples=9)
        expected = [_slowly(column, labels, predictions == target) for column in similarities.T]
        np.testing.assert_allclose(pull.auc, expected)
        assert pull.errors == ((predictions == target) != (labels == target)).sum()


def test_the_p_value_is_the_share_of_all_permutations() -> None:
    similarities = np.array([0.9, 0.8, 0.3, 0.7, 0.1, 0.2, 0.5])
    called = np.array([1, 1, 0, 0, 0, 0, 1])
    found = abs(_slowly(similarities, np.zeros(7), called.astype(bool)) - 0.5)
    far = [
        abs(_slowly(similarities, np.zeros(7), np.isin(np.arange(7), chosen)) - 0.5) >= found - 1e-9
        for chosen in combinations(range(7), 3)
    ]
    pull = word_pull(similarities[:, None], np.zeros(7, dtype=int), called, 1, resamples=20_000)
    assert pull.p_value[0] == pytest.approx(np.mean(far), abs=0.015)


def _birds(strength: float, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings whose errors follow the water: columns are the words water, land, and eight of no meaning."""
    generator = np.random.default_rng(1)
    labels, water = generator.integers(0, 2, (2, count))
    evidence = 2.0 * (2 * labels - 1) + strength * (2 * water - 1) + generator.normal(0, 1.5, count)
    words = generator.normal(0, 1, (count, 10))
    words[:, 0] += 2 * water
    words[:, 1] -= 2 * water
    return words + 5 * labels[:, None], labels, (evidence > 0).astype(int)  # all words tell the class: that is no error


def test_the_planted_word_comes_first_and_its_opposite_last() -> None:
    words, labels, predictions = _birds(strength=2.0)
    toward_water, toward_land = (word_pull(words, labels, predictions, target) for target in (1, 0))
    assert toward_water.auc.argmax() == 0
    assert toward_water.auc.argmin() == 1
    assert toward_water.auc[0] > 0.75
    assert (toward_water.p_value[:2] < 0.001).all()
    assert (holm(toward_water.p_value[2:]) > 0.05).all()
    assert (toward_water.low < toward_water.auc).all()
    assert toward_water.low[0] > 0.7
    np.testing.assert_allclose(toward_land.auc, 1 - toward_water.auc)
    np.testing.assert_array_equal(toward_land.p_value, toward_water.p_value)


def test_without_a_shortcut_no_word_stands_out() -> None:
    words, labels, predictions = _birds(strength=0.0)
    pull = word_pull(words, labels, predictions, 1)
    assert (holm(pull.p_value) > 0.05).all()


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator, covered = np.random.default_rng(0), []
    for _ in range(300):
        called = np.arange(60) < 20
        words = generator.normal(0, 1, (60, 4)) + called[:, None]
        pull = word_pull(words, np.zeros(60, dtype=int), called, 1, resamples=1)
        covered.append((pull.low <= 0.7602) & (pull.high >= 0.7602))  # Phi(1 / sqrt 2)
    assert 0.91 < np.mean(covered) < 0.98


def test_a_model_without_errors_and_one_without_two_kinds_have_nothing_to_compare() -> None:
    pull = word_pull(np.random.rand(4, 2), [0, 0, 1, 1], [0, 0, 1, 1], 1)
    assert np.isnan(pull.auc).all()
    assert pull.p_value.tolist() == [1.0, 1.0]
    assert pull.errors == 0


def test_the_seed_decides_and_tensors_will_do() -> None:
    words, labels, predictions = _birds(strength=0.3, count=80)
    one, same = (word_pull(words, labels, predictions, 1, resamples=200, seed=3) for _ in range(2))
    tensors = word_pull(torch.tensor(words), torch.tensor(labels), torch.tensor(predictions), 1, resamples=200, seed=3)
    for other in (same, tensors):
        np.testing.assert_array_equal(one.p_value, other.p_value)
    assert (one.p_value != word_pull(words, labels, predictions, 1, resamples=200, seed=4).p_value).any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"similarities": np.zeros(4)}, r"shape \[N, M\]"),
        ({"similarities": np.full((4, 1), np.nan)}, "finite"),
        ({"labels": [0, 1]}, "labels must be integers"),
        ({"predictions": [0.0, 1.0, 0.0, 1.0]}, "predictions must be integers"),
        ({"resamples": 0}, "resamples"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, said) -> None:
    given = {"similarities": np.zeros((4, 1)), "labels": [0, 0, 1, 1], "predictions": [0, 1, 0, 1], "target": 1}
    with pytest.raises(ValueError, match=said):
        word_pull(**{**given, **change})
