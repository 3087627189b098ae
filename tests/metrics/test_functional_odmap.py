import importlib
import itertools
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.functional import average_precision, expected_average_precision, object_decorrelation_map, relevance


def slow_average_precision(relevant, k, normalize="k", num_relevant=None):
    hits, total = 0, 0.0
    for rank, is_relevant in enumerate(relevant[:k], start=1):
        if is_relevant:
            hits += 1
            total += hits / rank
    divisor = {
        "k": k,
        "hits": hits,
        "min(k,R)": min(k, num_relevant) if num_relevant is not None else None,
        "all": num_relevant,
    }[normalize]
    return total / divisor if hits else 0.0


def slow_relevance(mentions, removed, kept, rule):
    names = {c for c, mentioned in enumerate(mentions) if mentioned}
    gone = {c for c, is_removed in enumerate(removed) if is_removed}
    left = {c for c, is_kept in enumerate(kept) if is_kept}
    enough = bool(names & left) if rule == "any" else bool(left) and left <= names
    return not names & gone and enough


def bools(*values):
    return torch.tensor([[bool(value) for value in values]])


LISTS = [
    # relevance, R, and the values at k = 1, 3, 5 by every normaliser
    ((1, 0, 1, 0, 0), 2, "k", (1, 0.5556, 0.3333)),
    ((1, 0, 1, 0, 0), 2, "hits", (1, 0.8333, 0.8333)),
    ((1, 0, 1, 0, 0), 2, "min(k,R)", (1, 0.8333, 0.8333)),
    ((1, 0, 1, 0, 0), 100, "all", (0.01, 0.0167, 0.0167)),
    ((0, 1, 1, 1, 1), 100, "k", (0, 0.3889, 0.5433)),
    ((0, 1, 1, 1, 1), 100, "hits", (0, 0.5833, 0.6792)),
    ((0, 1, 1, 1, 1), 100, "min(k,R)", (0, 0.3889, 0.5433)),
    ((0, 1, 1, 1, 1), 100, "all", (0, 0.0117, 0.0272)),
    ((1, 0, 0, 0, 0), 2, "k", (1, 0.3333, 0.2)),
    ((1, 0, 0, 0, 0), 2, "hits", (1, 1, 1)),
    ((1, 0, 0, 0, 0), 2, "min(k,R)", (1, 0.5, 0.5)),
    ((1, 0, 0, 0, 0), 100, "all", (0.01, 0.01, 0.01)),
    ((0, 0, 0, 0, 0), 0, "k", (0, 0, 0)),
    ((0, 0, 0, 0, 0), 0, "hits", (0, 0, 0)),
    ((0, 0, 0, 0, 0), 0, "min(k,R)", (0, 0, 0)),
    ((0, 0, 0, 0, 0), 0, "all", (0, 0, 0)),
]


@pytest.mark.parametrize(("relevant", "num_relevant", "normalize", "expected"), LISTS)
def test_published_values_of_every_normalizer(relevant, num_relevant, normalize, expected):
    values = [
        average_precision(bools(*relevant), k, normalize, num_relevant=torch.tensor([num_relevant])) for k in (1, 3, 5)
    ]
    assert torch.cat(values).tolist() == pytest.approx(expected, abs=5e-5)


def test_three_meanings_of_ap_at_three():
    ranking, total = bools(1, 0, 1, 0, 1, 1), torch.tensor([4])
    found = {name: average_precision(ranking, 3, name, total).item() for name in ("hits", "all", "min(k,R)")}
    assert found == pytest.approx({"hits": 0.8333, "all": 0.4167, "min(k,R)": 0.5556}, abs=5e-5)


@given(
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5),
    st.integers(1, 9),
    st.sampled_from(["k", "hits", "min(k,R)", "all"]),
    st.integers(0, 4),
)
@settings(max_examples=60, deadline=None)
def test_average_precision_equals_its_definition(relevant, k, normalize, unseen):
    totals = [sum(row) + unseen for row in relevant]
    found = average_precision(torch.tensor(relevant), k, normalize, torch.tensor(totals))
    expected = [slow_average_precision(row, k, normalize, total) for row, total in zip(relevant, totals, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert ((found >= 0) & (found <= 1 + 1e-6)).all()


@pytest.mark.parametrize("rule", ["any", "all"])
def test_relevance_equals_its_definition(rule):
    generator = torch.Generator().manual_seed(0)
    mentions = torch.rand(40, 7, 5, generator=generator) < 0.4
    removed, kept = (torch.rand(2, 40, 5, generator=generator) < 0.3).unbind()
    found = relevance(mentions, removed, kept, rule)
    for query, rank in itertools.product(range(40), range(7)):
        assert found[query, rank] == slow_relevance(
            mentions[query, rank].tolist(), removed[query].tolist(), kept[query].tolist(), rule
        )
    assert found.any()


def test_every_one_of_several_removed_classes_forbids_a_caption():
    mentions = torch.tensor([[[1, 0, 1], [0, 1, 1], [0, 0, 1]]]).bool()
    assert relevance(mentions, bools(1, 1, 0), bools(0, 0, 1)).tolist() == [[False, False, True]]


@pytest.mark.parametrize("rule", ["any", "all"])
def test_a_query_that_keeps_nothing_has_no_relevant_caption(rule):
    assert not relevance(torch.ones(1, 3, 2).bool(), bools(0, 0), bools(0, 0), rule).any()


def test_map_is_the_mean_over_queries_for_every_cut():
    generator = torch.Generator().manual_seed(1)
    mentions = torch.rand(9, 4, 3, generator=generator) < 0.5
    removed, kept = (torch.rand(2, 9, 3, generator=generator) < 0.4).unbind()
    found = object_decorrelation_map(mentions, removed, kept, [7, 2])
    relevant = relevance(mentions, removed, kept).tolist()
    assert {k: value.item() for k, value in found.items()} == pytest.approx(
        {k: sum(slow_average_precision(row, k) for row in relevant) / 9 for k in (2, 7)}
    )


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(1, 10))
@settings(max_examples=40, deadline=None)
def test_an_irrelevant_tail_never_raises_the_value(relevant, k):
    longer = average_precision(torch.tensor([[*relevant, False]]), k)
    assert longer <= average_precision(torch.tensor([relevant]), k) + 1e-7


@pytest.mark.parametrize("normalize", ["k", "hits", "min(k,R)", "all"])
def test_a_perfect_ranking_has_value_one(normalize):
    assert average_precision(torch.ones(1, 5).bool(), 5, normalize, torch.tensor([5])).item() == 1.0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: average_precision(bools(1), 0), ValueError, "top_k"),
        (lambda: average_precision(bools(1), 2.5), TypeError, "top_k"),
        (lambda: average_precision(bools(1), True), TypeError, "top_k"),
        (lambda: average_precision(bools(1).float(), 1), TypeError, "relevance"),
        (lambda: average_precision(bools(1), 1, "max"), ValueError, "'min\\(k,R\\)'"),
        (lambda: average_precision(bools(1), 1, "all"), ValueError, "num_relevant"),
        (lambda: average_precision(bools(1), 1, "min(k,R)"), ValueError, "num_relevant"),
        (lambda: average_precision(bools(1), 1, "all", torch.tensor([0])), ValueError, "smaller"),
        (lambda: average_precision(bools(1), 1, "all", torch.tensor([1, 1])), ValueError, "shape"),
        (lambda: object_decorrelation_map(bools(1)[None], bools(0), bools(1), ()), ValueError, "top_k"),
        (lambda: object_decorrelation_map(bools(1)[None], bools(0, 0), bools(1), 1), ValueError, "removed"),
        (lambda: object_decorrelation_map(bools(1)[None], bools(0), bools(1).int(), 1), TypeError, "kept"),
        (lambda: object_decorrelation_map(bools(1), bools(0), bools(1), 1), ValueError, "Q, K, C"),
        (lambda: object_decorrelation_map(bools(1)[None], bools(0), bools(1), 1, "some"), ValueError, "'any', 'all'"),
        (lambda: object_decorrelation_map(bools(1)[None][:0], bools(0)[:0], bools(1)[:0], 1), ValueError, "query"),
        (lambda: expected_average_precision(torch.tensor([3]), 2, 1), ValueError, "num_relevant"),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_expectation_equals_the_mean_over_all_permutations(size):
    for relevant, k in itertools.product(range(size + 1), (1, 2, 3, 7)):
        items = [index < relevant for index in range(size)]
        orders = list(itertools.permutations(items))
        expected = sum(slow_average_precision(order, k) for order in orders) / len(orders)
        assert expected_average_precision(torch.tensor([relevant]), size, k).item() == pytest.approx(expected, abs=1e-6)


def test_expectation_equals_a_simulation():
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(20_000, 50, generator=generator).argsort(dim=1)
    simulated = average_precision(order < 11, 10)
    error = simulated.std() / len(simulated) ** 0.5
    assert abs(simulated.mean() - expected_average_precision(torch.tensor(11)[None], 50, 10)) < 4 * error


def test_expectation_takes_one_gallery_size_per_query_and_empty_galleries():
    found = expected_average_precision(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 5]), 2)
    one_by_one = [0.0] + [expected_average_precision(torch.tensor([r]), g, 2).item() for r, g in ((1, 1), (2, 5))]
    assert found.tolist() == pytest.approx(one_by_one)


def test_functional_needs_torch_alone(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "metrics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    assert importlib.import_module("metrics.functional").relevance is not relevance
    with pytest.raises(ImportError):
        importlib.import_module("metrics.odmap")
