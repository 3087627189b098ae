import csv
import math
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from metrics import GroupAccuracy

WATERBIRDS = Path(__file__).parents[2] / "../shared/data/waterbirds/metadata.csv"


def score(correct, groups, num_groups, ids=None, **options):
    metric = GroupAccuracy(num_groups, **options)
    ids = torch.arange(len(correct)) if ids is None else ids
    for rows in torch.arange(len(correct)).split(3):
        metric.update(torch.tensor(correct)[rows], torch.tensor(groups)[rows], ids[rows])
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.filterwarnings("ignore:GroupAccuracy leaves out")
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=30), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_equals_its_definition(samples, seed):
    weights = (torch.rand(4, generator=torch.Generator().manual_seed(seed)) + 0.1).tolist()
    found = score(*map(list, zip(*samples, strict=True)), 4, weights=weights)
    accuracies = {}
    for group in range(4):
        right = [correct for correct, its_group in samples if its_group == group]
        if right:
            accuracies[group] = 100 * sum(right) / len(right)
            assert found[f"group/{group}"] == pytest.approx(accuracies[group])
        else:
            assert math.isnan(found[f"group/{group}"])
    weighted = sum(weights[group] * accuracy for group, accuracy in accuracies.items())
    assert found["worst_group"] == pytest.approx(min(accuracies.values()))
    assert found["average"] == pytest.approx(100 * sum(correct for correct, _ in samples) / len(samples))
    assert found["adjusted_average"] == pytest.approx(weighted / sum(weights[group] for group in accuracies))
    assert found["empty_groups"] == 4 - len(accuracies)


def test_weights_turn_the_average_of_the_test_split_into_that_of_the_training_split():
    correct = [True] * 4 + [False] * 4
    groups = [0] * 4 + [1] * 4
    found = score(correct, groups, 2, weights=(0.9, 0.1))
    assert (found["average"], found["adjusted_average"]) == (50, pytest.approx(90))
    assert found == pytest.approx(score(correct, groups, 2, weights=(90, 10)))
    assert score(correct, groups, 2) == {name: value for name, value in found.items() if name != "adjusted_average"}


def test_an_empty_group_is_named_and_counted_and_left_out():
    with pytest.warns(UserWarning, match="leaves out 1 of 3 groups without samples: snow"):
        found = score([True, True, False], [0, 2, 2], 3, weights=(1, 7, 1), names=("sand", "snow", "sea"))
    assert math.isnan(found.pop("group/snow"))
    assert found == {
        "worst_group": 50, "average": pytest.approx(200 / 3), "adjusted_average": 75, "empty_groups": 1,
        "group/sand": 100, "group/sea": 50,
    }  # fmt: skip


def test_full_groups_cause_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score([True, False], [0, 1], 2)["empty_groups"] == 0


def test_repeated_samples_count_once_even_where_the_prediction_tips_over():
    once = score([True, False, True], [0, 1, 1], 2)
    ids = torch.tensor([5, 6, 7, 6, 5])
    assert score([True, False, True, False, True], [0, 1, 1, 1, 0], 2, ids) == once
    assert score([True, False, True, True, False], [0, 1, 1, 1, 0], 2, ids) == once
    with pytest.raises(ValueError, match="samples: id 6 was given twice with different groups"):
        score([True, False, True, False], [0, 1, 1, 0], 2, ids[:4])


def test_survives_clone_pickle_reset_forward_and_a_collection():
    correct, groups, ids = torch.tensor([True, False, True, True]), torch.tensor([0, 0, 1, 1]), torch.arange(4)
    metric = GroupAccuracy(2, weights=(3, 1))
    assert metric(correct[:3], groups[:3], ids[:3])["average"] == pytest.approx(200 / 3)
    assert metric(correct[1:], groups[1:], ids[1:])["group/0"] == 0
    expected = metric.compute()
    assert (expected["worst_group"], expected["average"]) == (50, 75)
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric)), metric.half().to("cpu")):  # noqa: S301
        assert copy.compute() == expected
    metric.reset()
    metric.update(correct[:1], groups[:1], ids[:1])
    with pytest.warns(UserWarning, match="without samples: 1"):
        assert metric.compute()["average"] == 100
    both = MetricCollection({"by_place": GroupAccuracy(2), "by_any": GroupAccuracy(3)})
    for _ in range(2):  # the second time the collection may update one member for both
        both.update(correct, groups, ids)
    with pytest.warns(UserWarning, match="without samples: 2"):
        values = both.compute()
    assert (values["by_place_empty_groups"], values["by_any_empty_groups"]) == (0, 1)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"correct": torch.ones(3)}, TypeError, "correct"),
        ({"correct": [True, True, False]}, TypeError, "correct must be a tensor, got list"),
        ({"correct": torch.ones(3, 1).bool()}, ValueError, "correct"),
        ({"groups": torch.zeros(3)}, TypeError, "groups"),
        ({"groups": torch.tensor([0, 1])}, ValueError, "groups"),
        ({"groups": torch.tensor([0, 2, 1])}, ValueError, "groups must lie between 0 and 1, id 11 has 2"),
        ({"groups": torch.tensor([0, 1, -1])}, ValueError, "groups must lie between 0 and 1, id 12 has -1"),
        ({"ids": torch.tensor([0.5, 1, 2])}, TypeError, "ids"),
    ],
)
def test_wrong_samples_are_named(change, error, words):
    samples = {"correct": torch.ones(3).bool(), "groups": torch.tensor([0, 1, 1]), "ids": torch.tensor([10, 11, 12])}
    with pytest.raises(error, match=words):
        GroupAccuracy(2).update(**(samples | change))


def test_weights_that_are_no_numbers_are_named():
    with pytest.raises(TypeError, match="weights must be numbers, got"):
        GroupAccuracy(2, weights=("a", "b"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_groups": 0}, "num_groups"),
        ({"num_groups": 2.0}, "num_groups"),
        ({"weights": (1, 2, 3)}, "weights must hold one number for each of the 2 groups, got 3"),
        ({"weights": (1, -1)}, "weights"),
        ({"weights": (1, math.nan)}, "weights"),
        ({"weights": (0, 0)}, "weights"),
        ({"names": ("a", "a")}, "names"),
        ({"names": ("a", "b", "c")}, "names"),
        ({"names": "ab"}, "names"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        GroupAccuracy(**({"num_groups": 2} | options))


def test_no_samples_are_an_error():
    metric = GroupAccuracy(2)
    metric.update(torch.ones(0).bool(), torch.ones(0).long(), torch.ones(0).long())
    with pytest.raises(ValueError, match="no samples"):
        metric.compute()


@pytest.mark.real
@pytest.mark.skipif(not WATERBIRDS.exists(), reason="needs ../shared/data/waterbirds/metadata.csv")
def test_a_model_that_sees_the_background_alone_fails_on_the_rare_groups_of_waterbirds():
    with WATERBIRDS.open() as file:
        birds = [{name: int(row[name]) for name in ("img_id", "y", "place", "split")} for row in csv.DictReader(file)]
    train, test = ([bird for bird in birds if bird["split"] == split] for split in (0, 2))
    of_train, groups = ([2 * bird["y"] + bird["place"] for bird in split] for split in (train, test))
    weights = [of_train.count(group) for group in range(4)]
    metric = GroupAccuracy(4, weights)
    correct = torch.tensor([bird["y"] == bird["place"] for bird in test])
    metric.update(correct, torch.tensor(groups), torch.tensor([bird["img_id"] for bird in test]))
    values = metric.compute()
    assert [values[f"group/{group}"] for group in range(4)] == [100, 0, 0, 100]
    assert values["worst_group"] == 0
    assert values["average"].item() == pytest.approx(100 * (2255 + 642) / 5794)
    assert values["adjusted_average"].item() == pytest.approx(95, abs=0.1)  # how often bird and place agree in training
