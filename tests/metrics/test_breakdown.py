import itertools
import math

import pytest
import torch

from metrics import ODmAP
from metrics.breakdown import by_pair, by_removed_class

CUTS = (1, 3, 6)


def searched(queries=40, gallery=30, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    metric = ODmAP(top_k=CUTS)
    metric.update_gallery(
        torch.randn(gallery, 4, generator=generator),
        torch.rand(gallery, classes, generator=generator) < 0.4,
        torch.arange(gallery),
    )
    removed, kept = (torch.rand(2, queries, classes, generator=generator) < 0.2).unbind()
    removed[:, -1] = False  # a class that is never removed, and may be kept
    metric.update(torch.randn(queries, 4, generator=generator), removed, kept & ~removed, torch.arange(queries))
    metric.compute()
    return metric.per_query()


def slow_means(per_query, rows, k, gone):
    """Mean ODmAP@k of these queries, and the share of their first k captions that mention the class `gone`."""
    values = [per_query[f"ODmAP@{k}"][row].item() for row in rows]
    shares = []
    for row in rows:
        captions = [
            caption[gone].item()
            for caption, identity in zip(
                per_query["retrieved_mentions"][row][:k], per_query["retrieved_ids"][row][:k], strict=True
            )
            if identity != -1
        ]
        shares.append(100 * sum(captions) / len(captions))
    return [sum(numbers) / len(rows) if rows else math.nan for numbers in (values, shares)]


def rows_with(per_query, gone, left=None):
    return [
        row
        for row in range(len(per_query["ids"]))
        if per_query["removed"][row, gone] and (left is None or per_query["kept"][row, left])
    ]


@pytest.mark.parametrize("gallery", [30, 4])
def test_classes_equal_plain_loops(gallery):
    per_query = searched(gallery=gallery)
    found = by_removed_class(per_query, CUTS)
    for gone, k in itertools.product(range(5), CUTS):
        rows = rows_with(per_query, gone)
        assert found.queries[gone] == len(rows)
        measured = [found.odmap[k][gone].item(), found.hallucinated[k][gone].item()]
        assert measured == pytest.approx(slow_means(per_query, rows, k, gone), nan_ok=True, rel=1e-6)
    assert found.queries[4] == 0
    assert (found.hallucinated[6] > 0).sum() >= 3


@pytest.mark.parametrize("gallery", [30, 4])
def test_pairs_equal_plain_loops(gallery):
    per_query = searched(gallery=gallery)
    found = by_pair(per_query, CUTS)
    for gone, left, k in itertools.product(range(5), range(5), CUTS):
        rows = rows_with(per_query, gone, left)
        assert found.queries[gone, left] == len(rows)
        measured = [found.odmap[k][gone, left].item(), found.hallucinated[k][gone, left].item()]
        assert measured == pytest.approx(slow_means(per_query, rows, k, gone), nan_ok=True, rel=1e-6)
    assert torch.equal(found.queries == 0, found.odmap[1].isnan())
    assert 0 < (found.queries == 0).sum() < 25


def test_one_removed_class_everywhere_gives_the_value_of_the_metric():
    per_query = searched()
    per_query["removed"] = torch.eye(5).bool()[[2] * 40]
    found = by_removed_class(per_query, 3)
    assert found.odmap[3][2].item() == pytest.approx(per_query["ODmAP@3"].mean().item())
    assert found.queries.tolist() == [0, 0, 40, 0, 0]


def test_only_the_removed_class_of_the_row_counts_as_hallucinated():
    dog, frisbee, person = torch.eye(3).bool()
    metric = ODmAP(top_k=2)
    metric.update_gallery(torch.eye(2), torch.stack([dog | person, frisbee]), torch.arange(2))
    metric.update(torch.eye(2)[:1], (dog | frisbee)[None], person[None], torch.tensor([0]))
    metric.update(torch.eye(2)[:1], dog[None], person[None], torch.tensor([1]))
    metric.compute()
    found = by_pair(metric.per_query(), 2)
    assert found.queries.tolist() == [[0, 0, 2], [0, 0, 1], [0, 0, 0]]
    assert found.hallucinated[2][:2, 2].tolist() == [50, 50]


def test_rows_name_the_most_hallucinated_first():
    per_query = searched()
    names = ["ape", "bus", "cat", "dog", "eel"]
    found = by_pair(per_query, CUTS)
    rows = found.rows(names)
    assert len(rows) == (found.queries > 0).sum()
    assert [row["hallucinated@6"] for row in rows] == sorted((row["hallucinated@6"] for row in rows), reverse=True)
    for row in rows:
        place = names.index(row["removed"]), names.index(row["kept"])
        assert row["queries"] == found.queries[place]
        assert all(row[f"ODmAP@{k}"] == found.odmap[k][place] for k in CUTS)
        assert all(row[f"hallucinated@{k}"] == found.hallucinated[k][place] for k in CUTS)
    by_index = by_removed_class(per_query, CUTS).rows()
    assert sorted(row["removed"] for row in by_index) == [0, 1, 2, 3]
    assert list(by_index[0]) == [
        "removed",
        "queries",
        *(f"{name}@{k}" for name in ("ODmAP", "hallucinated") for k in CUTS),
    ]


def test_equal_shares_are_listed_by_queries_and_then_by_class():
    per_query = searched()
    per_query["removed"] = torch.eye(5).bool()[[0] * 10 + [1] * 20 + [3] * 10]
    per_query["retrieved_mentions"] = torch.zeros_like(per_query["retrieved_mentions"])
    assert [row["removed"] for row in by_removed_class(per_query, 1).rows()] == [1, 0, 3]


def test_queries_that_keep_nothing_are_in_no_pair():
    per_query = searched()
    per_query["kept"] = torch.zeros_like(per_query["kept"])
    assert by_pair(per_query, 1).rows() == []


def test_wrong_arguments_are_named():
    per_query = searched()
    with pytest.raises(ValueError, match="top_k: per_query has no ODmAP@2"):
        by_pair(per_query, (1, 2))
    with pytest.raises(ValueError, match="top_k"):
        by_removed_class(per_query, 0)
    with pytest.raises(ValueError, match="class_names must hold 5 names, got 1"):
        by_removed_class(per_query, 1).rows(["dog"])
