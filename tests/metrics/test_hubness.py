import warnings
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import skew

from metrics.functional import hubness


def slow_skewness(retrieved, gallery_size, k):
    """Skewness of the count of every gallery item, those that were never retrieved included."""
    counts = Counter(item for row in retrieved for item in row[:k] if item != -1)
    values = [*counts.values()] + [0] * (gallery_size - len(counts))
    return float(skew(values)) if len(set(values)) > 1 else 0.0


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 6), st.integers(1, 8), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_equals_scipy_on_the_counts_of_all_items(queries, gallery, places, k, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randperm(1000, generator=generator)[:gallery] - 500
    ids[ids == -1] = 777
    filled = min(places, gallery)
    rows = [ids[torch.randperm(gallery, generator=generator)[:filled]].tolist() for _ in range(queries)]
    retrieved = torch.tensor([row + [-1] * (places - filled) for row in rows])
    found = hubness(retrieved, gallery, k)
    assert found.skewness[k] == pytest.approx(slow_skewness(retrieved.tolist(), gallery, k), abs=1e-9)
    assert found.distinct_top1 == len({row[0] for row in rows}) / queries


def test_a_gallery_much_larger_than_what_was_retrieved():
    retrieved = torch.randint(0, 300, (500, 10), generator=torch.Generator().manual_seed(0)) ** 2
    found = hubness(retrieved, 600_000, (1, 5, 10))
    for k in (1, 5, 10):
        assert found.skewness[k] == pytest.approx(slow_skewness(retrieved.tolist(), 600_000, k), rel=1e-9)


def test_one_caption_for_every_query_is_the_worst_hub():
    queries, gallery = 50, 100
    hub = hubness(torch.zeros(queries, 1).long(), gallery, 1)
    spread = hubness(torch.arange(queries)[:, None], gallery, 1)
    assert (hub.distinct_top1, spread.distinct_top1) == (1 / queries, 1)
    # One item of G with all occurrences: skewness (G - 2) / sqrt(G - 1). Half of the items once: symmetric.
    assert hub.skewness[1] == pytest.approx(98 / 99**0.5)
    assert spread.skewness[1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("gallery", [1, 3])
def test_equal_occurrences_have_no_skewness(gallery):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hubness(torch.arange(gallery).expand(7, -1), gallery, (1, gallery)).skewness[gallery] == 0


def test_places_without_a_caption_do_not_count():
    found = hubness(torch.tensor([[4, -1], [4, -1]]), 1, (1, 2))
    assert found == (0.5, {1: 0, 2: 0})
    assert hubness(torch.full((2, 3), -1), 0, 3) == (0, {3: 0})


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"retrieved_ids": torch.ones(3).long()}, ValueError, "retrieved_ids"),
        ({"retrieved_ids": torch.ones(0, 3).long()}, ValueError, "retrieved_ids"),
        ({"retrieved_ids": torch.ones(2, 3)}, TypeError, "retrieved_ids"),
        ({"gallery_size": 2}, ValueError, "gallery_size=2"),
        ({"gallery_size": -1}, ValueError, "gallery_size=-1"),
        ({"top_k": 0}, ValueError, "top_k"),
    ],
)
def test_wrong_arguments_are_named(change, error, words):
    arguments = {"retrieved_ids": torch.tensor([[1, 2], [3, -1]]), "gallery_size": 3, "top_k": 2}
    with pytest.raises(error, match=words):
        hubness(**(arguments | change))
