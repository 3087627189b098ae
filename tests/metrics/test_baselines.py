import itertools

import pytest
import torch

from metrics import ODmAP, ODmAPBaselines


def world(queries=6, gallery=24, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    captions = {
        "mentions": torch.rand(gallery, classes, generator=generator) < 0.4,
        "image_ids": torch.randint(0, 7, (gallery,), generator=generator),
        "ids": torch.randperm(100, generator=generator)[:gallery],
    }
    images = {
        "removed": torch.rand(queries, classes, generator=generator) < 0.2,
        "kept": torch.rand(queries, classes, generator=generator) < 0.5,
        "source_ids": torch.randint(0, 9, (queries,), generator=generator),  # 7 and 8 have no caption
        "ids": torch.arange(queries),
    }
    return captions, images


def score(captions, images, **options):
    metric = ODmAPBaselines(**options)
    metric.update_gallery(**captions)
    metric.update(**images)
    return metric.compute()


def relevant_captions(captions, images, query, rows):
    removed, kept = images["removed"][query], images["kept"][query]
    named = captions["mentions"][rows]
    return (~(named & removed).any(dim=1) & (named & kept).any(dim=1)).tolist()


def mean_over_orders(relevant, k):
    """Average AP@k, divided by k cut at the number of items, over all orders."""
    depth = min(k, len(relevant))
    total, orders = 0.0, list(itertools.permutations(relevant))
    for order in orders:
        total += sum(sum(order[: i + 1]) / (i + 1) for i in range(depth) if order[i])
    return total / len(orders) / depth if depth else 0.0


def test_own_captions_equal_the_mean_over_all_their_orders():
    captions, images = world()
    found = score(captions, images, top_k=(1, 3, 10))
    for k in (1, 3, 10):
        total = 0.0
        for query, source in enumerate(images["source_ids"].tolist()):
            own = captions["image_ids"] == source
            assert own.sum() < 8
            total += mean_over_orders(relevant_captions(captions, images, query, own), k)
        assert found[f"own_captions/ODmAP@{k}"].item() == pytest.approx(100 * total / 6, abs=1e-4)
    assert found["own_captions/ODmAP@1"] > 0


def test_random_row_equals_the_metric_over_random_rankings():
    captions, images = world()
    expected = score(captions, images, top_k=(1, 5))
    generator = torch.Generator().manual_seed(1)
    repeats = 400
    many = {name: values.repeat(repeats, *[1] * (values.ndim - 1)) for name, values in images.items()}
    metric = ODmAP(top_k=(1, 5))
    metric.update_gallery(torch.eye(24), captions["mentions"], captions["ids"])
    scores = torch.rand(6 * repeats, 24, generator=generator)
    metric.update(scores, many["removed"], many["kept"], torch.arange(6 * repeats))
    metric.compute()
    for k in (1, 5):
        values = metric.per_query()[f"ODmAP@{k}"]
        assert abs(values.mean() - expected[f"random/ODmAP@{k}"]) < 4 * values.std() / len(values) ** 0.5


def test_published_chance_level_of_independent_captions():
    mentions = torch.tensor([[False, True]] * 226 + [[False, False]] * 774).repeat(100, 1)
    one = torch.tensor([0])
    found = score(
        {"mentions": mentions, "image_ids": torch.arange(100_000), "ids": torch.arange(100_000)},
        {
            "removed": torch.tensor([[True, False]]),
            "kept": torch.tensor([[False, True]]),
            "source_ids": one,
            "ids": one,
        },
    )
    assert [found[f"random/ODmAP@{k}"].item() for k in (1, 5, 10)] == pytest.approx([22.6, 13.1, 10.2], abs=0.05)


def test_repeated_rows_count_once_and_forward_keeps_the_gallery():
    captions, images = world()
    expected = score(captions, images)
    metric = ODmAPBaselines()
    for rows in (slice(None), slice(3, 9)):
        metric.update_gallery(**{name: values[rows] for name, values in captions.items()})
    assert metric(**images) == expected
    metric.update(**{name: values[:2] for name, values in images.items()})
    assert metric.compute() == expected


def test_values_per_query_are_those_of_each_query_alone():
    captions, images = world()
    shuffled = {name: values[torch.tensor([3, 0, 5, 1, 4, 2])] for name, values in images.items()}
    metric = ODmAPBaselines(top_k=(1, 5))
    metric.update_gallery(**captions)
    metric.update(**shuffled)
    values, found = metric.compute(), metric.per_query()
    assert found["ids"].tolist() == list(range(6))
    assert torch.equal(found["source_ids"], images["source_ids"])
    for query in range(6):
        relevant = relevant_captions(captions, images, query, slice(None))
        assert found["num_relevant"][query] == sum(relevant)
        alone = score(captions, {name: column[query : query + 1] for name, column in images.items()}, top_k=(1, 5))
        assert {name: found[name][query].item() for name in values} == pytest.approx(
            {name: value.item() for name, value in alone.items()}
        )
    assert all(torch.equal(values[name], found[name].mean()) for name in values)


def test_values_per_query_begin_with_compute_and_end_with_reset():
    captions, images = world()
    metric = ODmAPBaselines()
    metric.update_gallery(**captions)
    metric.update(**images)
    with pytest.raises(RuntimeError, match="compute"):
        metric.per_query()
    metric.compute()
    assert len(metric.per_query()["ids"]) == 6
    metric.reset()
    with pytest.raises(RuntimeError, match="compute"):
        metric.per_query()


@pytest.mark.parametrize(
    ("table", "column"),
    [("gallery", "mentions"), ("gallery", "image_ids"), ("queries", "removed"), ("queries", "source_ids")],
)
def test_an_id_with_two_contents_is_refused(table, column):
    captions, images = world()
    metric = ODmAPBaselines()
    metric.update_gallery(**captions)
    metric.update(**images)
    rows = {name: values[:1].clone() for name, values in (captions if table == "gallery" else images).items()}
    rows[column] = rows[column].logical_not() if rows[column].dtype == torch.bool else rows[column] + 1
    (metric.update_gallery if table == "gallery" else metric.update)(**rows)
    with pytest.raises(ValueError, match=f"{table}: id {rows['ids'].item()} was given twice with different {column}"):
        metric.compute()


def test_a_query_without_relevant_captions_has_value_zero_under_all():
    captions, images = world(queries=1)
    images["kept"][:] = True
    images["removed"][:] = False
    captions["mentions"][:, 0] = False
    assert not any(score(captions, images, kept="all").values())


def test_wrong_arguments_are_named():
    captions, images = world()
    with pytest.raises(ValueError, match="kept"):
        ODmAPBaselines(kept="some")
    with pytest.raises(ValueError, match="source_ids"):
        score(captions, images | {"source_ids": torch.arange(5)})
    with pytest.raises(ValueError, match="classes"):
        score(captions | {"mentions": captions["mentions"][:, :2]}, images)
    with pytest.raises(TypeError, match="mentions"):
        score(captions | {"mentions": captions["mentions"].float()}, images)
    metric = ODmAPBaselines()
    metric.update_gallery(**captions)
    with pytest.raises(ValueError, match="no queries"):
        metric.compute()
