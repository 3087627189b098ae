import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from metrics import AnnotatedRetrieval
from metrics.sharded import rounds


def world(images=9, captions=25, seed=0, spread=2):
    """Return rows whose scores are whole numbers and often tie, and ids in no order."""
    generator = torch.Generator().manual_seed(seed)
    image_ids = torch.randperm(3 * images, generator=generator)[:images]
    return {
        "image_embeddings": torch.randint(-spread, spread + 1, (images, 3), generator=generator).float(),
        "image_ids": image_ids,
        "caption_embeddings": torch.randint(-spread, spread + 1, (captions, 3), generator=generator).float(),
        "caption_image_ids": image_ids[torch.randint(0, images, (captions,), generator=generator)],
        "caption_ids": 100 + torch.randperm(3 * captions, generator=generator)[:captions],
    }


def positives(data, seed=0, strangers=True):
    """Return matches of some images and captions; with strangers also ids that the data has not."""
    generator = torch.Generator().manual_seed(seed)
    more = torch.tensor([900, 2**63 - 1]) if strangers else torch.tensor([], dtype=torch.long)
    images, captions = torch.cat([data["image_ids"], more]), torch.cat([data["caption_ids"], more])

    def some(of, least):
        count = int(torch.randint(least, len(of) + 1, (1,), generator=generator))
        return of[torch.randperm(len(of), generator=generator)[:count]].tolist()

    first = data["image_ids"][0].item(), data["caption_ids"][0].item()
    i2t = {image: some(captions, 1) for image in {first[0], *some(images, 1)}}
    return i2t, {caption: some(images, 1) for caption in {first[1], *some(captions, 1)}}


def score(data, matches, **options):
    metric = AnnotatedRetrieval(*matches, **options)
    metric.update(**data)
    return {name: value.item() for name, value in metric.compute().items()}


def slow_direction(matches, queries, query_ids, gallery, gallery_ids, cuts):
    """Rank the whole gallery for one annotated query after another, ties by ascending id."""
    rows = dict(zip(query_ids.tolist(), queries.tolist(), strict=True))
    values = {name: [] for name in (*(f"R@{k}" for k in cuts), "mAP@R", "R-Precision")}
    for query in matches:
        if query not in rows:
            continue
        scores = [sum(a * b for a, b in zip(rows[query], row, strict=True)) for row in gallery.tolist()]
        ranked = [i for _, i in sorted(zip([-s for s in scores], gallery_ids.tolist(), strict=True))]
        wanted = set(matches[query])
        for k in cuts:
            values[f"R@{k}"].append(bool(wanted & set(ranked[:k])))
        total = len(wanted)
        hits = [item in wanted for item in ranked[:total]]
        values["mAP@R"].append(sum(sum(hits[: i + 1]) / (i + 1) for i in range(len(hits)) if hits[i]) / total)
        values["R-Precision"].append(sum(hits) / total)
    return {name: 100 * sum(column) / len(column) for name, column in values.items()}


def slow_values(data, matches, cuts):
    images = data["image_embeddings"], data["image_ids"]
    captions = data["caption_embeddings"], data["caption_ids"]
    found = {"i2t": slow_direction(matches[0], *images, *captions, cuts)}
    found["t2i"] = slow_direction(matches[1], *captions, *images, cuts)
    return {f"{side}/{name}": value for side, column in found.items() for name, value in column.items()}


@given(st.integers(1, 9), st.integers(1, 25), st.integers(0, 10_000), st.integers(1, 30), st.booleans())
@settings(max_examples=50, deadline=None)
def test_equals_a_plain_loop(images, captions, seed, chunk_size, strangers):
    data = world(images, captions, seed, spread=1)
    matches = positives(data, seed, strangers)
    found = score(data, matches, top_k=(1, 2, 5), chunk_size=chunk_size)
    assert found == pytest.approx(slow_values(data, matches, (1, 2, 5)), abs=1e-4)


def test_the_order_of_rows_does_not_matter():
    data, seed = world(), torch.Generator().manual_seed(1)
    images, captions = torch.randperm(9, generator=seed), torch.randperm(25, generator=seed)
    moved = {name: rows[images if name.startswith("image") else captions] for name, rows in data.items()}
    assert score(moved, positives(data)) == score(data, positives(data))


def test_a_perfect_ranking_has_everything_and_an_inverted_one_nothing():
    data = {
        "image_embeddings": torch.eye(4),
        "image_ids": torch.arange(4),
        "caption_embeddings": torch.eye(4).repeat_interleave(2, dim=0),
        "caption_image_ids": torch.arange(4).repeat_interleave(2),
        "caption_ids": torch.arange(8),
    }
    matches = {i: [2 * i, 2 * i + 1] for i in range(4)}, {c: [c // 2] for c in range(8)}
    assert set(score(data, matches, top_k=(1, 2)).values()) == {100}
    inverted = score(data | {"image_embeddings": -torch.eye(4)}, matches, top_k=(1, 2))
    assert set(inverted.values()) == {0}


def test_precision_counts_only_the_first_r_ranks():
    """Four captions in the order of their ids; R = 3, and rank 4, a match too, lies behind the cut."""
    data = {
        "image_embeddings": torch.ones(1, 1),
        "image_ids": torch.tensor([5]),
        "caption_embeddings": torch.tensor([[4.0], [3], [2], [1]]),
        "caption_image_ids": torch.full((4,), 5),
        "caption_ids": torch.tensor([10, 11, 12, 13]),
    }
    found = score(data, ({5: [11, 12, 13, 13]}, {10: [5]}), top_k=(1, 2))
    assert found["i2t/R@1"] == 0
    assert found["i2t/R@2"] == 100
    assert found["i2t/mAP@R"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 3)
    assert found["i2t/R-Precision"] == pytest.approx(100 * 2 / 3)


def test_only_the_embeddings_of_annotated_queries_are_exchanged(monkeypatch):
    data, sent = world(), []

    def watched(ranks, columns, keep):
        sent.append(columns)
        return rounds(ranks, columns, keep)

    monkeypatch.setattr("metrics.annotated.rounds", watched)
    images, captions = data["image_ids"], data["caption_ids"]
    score(data, ({images[4].item(): [1], images[7].item(): [2]}, {captions[20].item(): [3]}))
    assert [columns["ids"].tolist() for columns in sent] == [images[[4, 7]].tolist(), captions[[20]].tolist()]
    assert torch.equal(sent[0]["embeddings"], data["image_embeddings"][[4, 7]])


def test_what_is_absent_is_counted():
    data = world()
    image, caption = data["image_ids"][0].item(), data["caption_ids"][0].item()
    metric = AnnotatedRetrieval({image: [caption, 900, 901], 902: [caption, 903]}, {caption: [image]})
    assert metric.summary() == {}
    metric.update(**data)
    metric.compute()
    assert metric.summary() == {
        "i2t/queries": 1, "i2t/absent_queries": 1, "i2t/absent_positives": 2,
        "t2i/queries": 1, "t2i/absent_queries": 0, "t2i/absent_positives": 0,
    }  # fmt: skip
    assert metric.per_query()["i2t"]["num_positives"].tolist() == [3]


@pytest.mark.parametrize("side", ["i2t", "t2i"])
def test_nothing_annotated_was_given(side):
    data = world()
    matches = dict(zip(("i2t", "t2i"), positives(data), strict=True)) | {side: {900: [1], 901: [2]}}
    with pytest.raises(ValueError, match=f"None of the 2 queries that {side} names"):
        score(data, (matches["i2t"], matches["t2i"]))


def test_values_per_query_are_in_the_order_of_ids_and_average_to_the_result():
    data = world()
    metric = AnnotatedRetrieval(*positives(data), top_k=(1, 3))
    with pytest.raises(RuntimeError, match="compute"):
        metric.per_query()
    metric.update(**data)
    found = metric.compute()
    for side, columns in metric.per_query().items():
        assert all(one < other for one, other in pairwise(columns["query_ids"].tolist()))
        assert columns.keys() == {"query_ids", "num_positives", "R@1", "R@3", "mAP@R", "R-Precision"}
        for name in ("R@1", "R@3", "mAP@R", "R-Precision"):
            assert columns[name].mean() == found[f"{side}/{name}"]


def test_repeated_rows_count_once_and_must_agree():
    data = world()
    image_rows, caption_rows = torch.tensor([*range(9), 0, 3]), torch.tensor([*range(25), 24, 24, 1])
    again = {name: rows[image_rows if name.startswith("image") else caption_rows] for name, rows in data.items()}
    assert score(again, positives(data)) == score(data, positives(data))
    again["image_embeddings"][-1] += 5
    with pytest.raises(ValueError, match=f"images: id {data['image_ids'][3]} was given twice"):
        score(again, positives(data))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_storage_dtypes_that_hold_the_numbers_change_nothing(dtype):
    data = world()
    cast = {name: rows.to(dtype) if rows.is_floating_point() else rows for name, rows in data.items()}
    assert score(cast, positives(data)) == score(data, positives(data))


def test_forward_clone_pickle_and_reset():
    data, more = world(seed=1), world(seed=2)
    more = {name: rows + 500 * name.endswith("ids") for name, rows in more.items()}
    both = {name: torch.cat([data[name], more[name]]) for name in data}
    matches = [first | second for first, second in zip(positives(data), positives(more), strict=True)]
    metric = AnnotatedRetrieval(*matches)
    for batch in (data, more):
        assert {name: value.item() for name, value in metric(**batch).items()} == score(batch, matches)
    for copy in (metric, metric.clone(), pickle.loads(pickle.dumps(metric))):  # noqa: S301
        assert {name: value.item() for name, value in copy.compute().items()} == score(both, matches)
    metric.reset()
    assert metric.summary() == {}
    metric.update(**data)
    assert {name: value.item() for name, value in metric.compute().items()} == score(data, matches)


def test_two_sets_of_positives_in_one_collection():
    """torchmetrics lets metrics of equal rows share them; each keeps its own positives."""
    data = world()
    matches = {"one": positives(data, 1), "other": positives(data, 2)}
    both = MetricCollection({name: AnnotatedRetrieval(*pair) for name, pair in matches.items()})
    both.update(**data)
    both.update(**{name: rows + 500 * name.endswith("ids") for name, rows in data.items()})
    found = both.compute()
    for name, pair in matches.items():
        metric = AnnotatedRetrieval(*pair)
        metric.update(**data)
        metric.update(**{column: rows + 500 * column.endswith("ids") for column, rows in data.items()})
        for key, value in metric.compute().items():
            assert [found[full] for full in found if full.endswith(f"{name}_{key}")] == [value]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"image_embeddings": torch.full((9, 3), torch.nan)}, ValueError, "9 of 9 rows"),
        ({"caption_embeddings": torch.ones(25, 4)}, ValueError, "embeddings of the images"),
        ({"caption_ids": torch.ones(25)}, TypeError, "ids"),
        ({"caption_image_ids": torch.arange(24)}, ValueError, "image_ids"),
    ],
)
def test_wrong_rows_are_named(change, error, words):
    data = world()
    with pytest.raises(error, match=words):
        score(data | change, positives(data))


@pytest.mark.parametrize(
    ("i2t", "t2i", "error", "words"),
    [
        ({}, {1: [2]}, ValueError, "i2t must name"),
        ({1: [2]}, {1: [2], 3: []}, ValueError, "t2i must name"),
        ({"1": [2]}, {1: [2]}, TypeError, "i2t must map .* '1'"),
        ({1: [2]}, {1: [2.0]}, TypeError, r"t2i must map .* 2\.0"),
        ({1: [True]}, {1: [2]}, TypeError, "i2t must map .* True"),
        ({1: [2]}, {1: 7}, TypeError, "t2i must map ids to sequences of ids, it holds 7"),
    ],
)
def test_wrong_positives_are_named(i2t, t2i, error, words):
    with pytest.raises(error, match=words):
        AnnotatedRetrieval(i2t, t2i)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same():
    data = world(30, 2000)
    metric = AnnotatedRetrieval(*positives(data), chunk_size=256)
    metric.update(**data)
    expected = {name: value.item() for name, value in metric.compute().items()}
    moved = metric.clone().to("cuda")
    assert {name: value.item() for name, value in moved.compute().items()} == pytest.approx(expected, abs=1e-4)
