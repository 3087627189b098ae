"""What torch, torchmetrics and their users do to a metric between its updates."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection

from metrics import ODmAP


def world():
    generator = torch.Generator().manual_seed(0)
    captions = {
        "embeddings": torch.randint(-2, 3, (30, 4), generator=generator).float(),
        "mentions": torch.rand(30, 5, generator=generator) < 0.4,
        "ids": torch.randperm(300, generator=generator)[:30],
    }
    images = {
        "embeddings": torch.randint(-2, 3, (8, 4), generator=generator).float(),
        "removed": torch.rand(8, 5, generator=generator) < 0.2,
        "kept": torch.rand(8, 5, generator=generator) < 0.4,
        "ids": torch.arange(8),
    }
    return captions, images


def some(columns, rows):
    return {name: values[rows] for name, values in columns.items()}


def half_way(**options):
    """Return a metric that has seen half of its captions and queries."""
    captions, images = world()
    metric = ODmAP(**options)
    metric.update_gallery(**some(captions, slice(15)))
    metric.update(**some(images, slice(4)))
    return metric


def finish(metric):
    captions, images = world()
    metric.update_gallery(**some(captions, slice(15, None)))
    metric.update(**some(images, slice(4, None)))
    return metric.compute()


class Parent(nn.Module):
    def __init__(self, metric):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.metric = metric


MOVES = {
    "clone": lambda metric: metric.clone(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda metric: pickle.loads(pickle.dumps(metric)),  # noqa: S301
    "to": lambda metric: metric.to("cpu"),
    "set_dtype": lambda metric: metric.set_dtype(torch.float16).set_dtype(torch.float32),
    "parent.half": lambda metric: Parent(metric).half().metric,
    "parent.double": lambda metric: Parent(metric).double().metric,
    "deepcopy of the parent": lambda metric: copy.deepcopy(Parent(metric)).metric,
    "compute": lambda metric: metric.compute() and metric,
    "empty batches": lambda metric: add_nothing(metric),
}


def add_nothing(metric):
    captions, images = world()
    metric.update_gallery(**some(captions, slice(0)))
    metric.update(**some(images, slice(0)))
    return metric


@pytest.mark.parametrize("move", MOVES)
def test_goes_on_where_it_was(move):
    metric = MOVES[move](half_way())
    expected = half_way()
    assert finish(metric) == finish(expected)
    for column, rows in expected.per_query().items():
        assert torch.equal(metric.per_query()[column], rows), column


def test_a_copy_goes_its_own_way():
    metric = half_way()
    first, twin = metric.compute(), metric.clone()
    assert finish(twin) != first
    assert metric.compute() == first


def test_stores_nothing_in_a_checkpoint():
    parent = Parent(half_way())
    assert list(parent.state_dict()) == ["layer.weight", "layer.bias"]
    assert not list(parent.metric.parameters())


def test_members_of_a_collection_keep_their_own_options():
    captions, images = world()
    options = [{"top_k": 1}, {"top_k": (2, 5)}, {"top_k": 5, "normalize": "hits"}, {"top_k": 5, "kept": "all"}]
    collection = MetricCollection({str(number): ODmAP(**given) for number, given in enumerate(options)})
    for metric in collection.values(copy_state=False):
        metric.update_gallery(**captions)
    for rows in (slice(3), slice(3, None)):  # from the second batch on, the collection updates one member for all
        collection.update(**some(images, rows))
    values = collection.compute()
    for number, given in enumerate(options):
        alone = ODmAP(**given)
        alone.update_gallery(**captions)
        alone.update(**images)
        expected = alone.compute()
        assert {name: values[f"{number}_{name}"] for name in expected} == expected
        assert torch.equal(collection[str(number)].per_query()["relevant"], alone.per_query()["relevant"])
    collection.reset()
    with pytest.raises(RuntimeError, match="compute"):
        collection["1"].per_query()


def test_forward_of_a_collection_scores_the_batch():
    captions, images = world()
    collection = MetricCollection({"k": ODmAP(top_k=5), "hits": ODmAP(top_k=5, normalize="hits")})
    for metric in collection.values(copy_state=False):
        metric.update_gallery(**captions)
    batches = [collection(**some(images, rows)) for rows in (slice(4), slice(4, None))]
    for name, value in collection.compute().items():
        assert value == pytest.approx(sum(batch[name] for batch in batches) / 2)


@pytest.mark.parametrize("empty", ["gallery", "queries"])
def test_a_table_of_no_rows_is_missing(empty):
    captions, images = world()
    metric = ODmAP()
    metric.update_gallery(**some(captions, slice(0 if empty == "gallery" else None)))
    metric.update(**some(images, slice(0 if empty == "queries" else None)))
    with pytest.raises(ValueError, match=f"^ODmAP has no {empty}: give one or more rows before"):
        metric.compute()


def test_gradients_are_not_kept():
    captions, images = world()
    expected = ODmAP()
    metric = ODmAP()
    for one in (expected, metric):
        one.update_gallery(**captions)
        one.update(**images)
        captions["embeddings"].requires_grad_()
    assert metric.compute() == expected.compute()
    assert not metric.per_query()["retrieved_scores"].requires_grad
