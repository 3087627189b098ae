import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from metrics import ODmAP


def world(queries=7, gallery=40, classes=5, seed=0, width=4):
    """Return gallery and query columns; whole-numbered embeddings make many exact ties."""
    generator = torch.Generator().manual_seed(seed)
    captions = {
        "embeddings": torch.randint(-2, 3, (gallery, width), generator=generator).float(),
        "mentions": torch.rand(gallery, classes, generator=generator) < 0.4,
        "ids": torch.randperm(10 * gallery, generator=generator)[:gallery],
    }
    images = {
        "embeddings": torch.randint(-2, 3, (queries, width), generator=generator).float(),
        "removed": torch.rand(queries, classes, generator=generator) < 0.2,
        "kept": torch.rand(queries, classes, generator=generator) < 0.4,
        "ids": torch.randperm(10 * queries, generator=generator)[:queries],
    }
    return captions, images


def some(columns, rows):
    return {name: values[rows] for name, values in columns.items()}


def score(captions, images, batch=9, **options):
    metric = ODmAP(**options)
    for start in range(0, len(captions["ids"]), batch):
        metric.update_gallery(**some(captions, slice(start, start + batch)))
    for start in range(0, len(images["ids"]), batch):
        metric.update(**some(images, slice(start, start + batch)))
    return metric, metric.compute()


def slow_odmap(captions, images, k, rule="any", normalize="k"):
    """Compute ODmAP@k in per cent from its definition, query by query, and the ranked ids."""
    total, rankings = 0.0, {}
    gallery = list(zip(captions["ids"].tolist(), captions["embeddings"], captions["mentions"].tolist(), strict=True))
    for index, query in enumerate(images["ids"].tolist()):
        removed = {c for c, flag in enumerate(images["removed"][index].tolist()) if flag}
        kept = {c for c, flag in enumerate(images["kept"][index].tolist()) if flag}

        def is_relevant(names, removed=removed, kept=kept):
            named = {c for c, flag in enumerate(names) if flag}
            enough = bool(named & kept) if rule == "any" else bool(kept) and kept <= named
            return enough and not named & removed

        ranked = sorted(gallery, key=lambda row: (-float(row[1] @ images["embeddings"][index]), row[0]))
        rankings[query] = [row[0] for row in ranked[:k]]
        relevant = [is_relevant(row[2]) for row in ranked]
        precisions = [sum(relevant[: i + 1]) / (i + 1) for i in range(min(k, len(ranked))) if relevant[i]]
        count = {"k": k, "hits": len(precisions), "min(k,R)": min(k, sum(relevant)), "all": sum(relevant)}[normalize]
        total += sum(precisions) / count if precisions else 0.0
    return 100 * total / len(images["ids"]), rankings


@pytest.mark.parametrize("normalize", ["k", "hits", "min(k,R)", "all"])
@pytest.mark.parametrize("rule", ["any", "all"])
def test_equals_its_definition(rule, normalize):
    captions, images = world(seed=3)
    metric, values = score(captions, images, top_k=(1, 3, 50), kept=rule, normalize=normalize, chunk_size=16)
    for k in (1, 3, 50):
        assert values[f"ODmAP@{k}"].item() == pytest.approx(
            slow_odmap(captions, images, k, rule, normalize)[0], abs=1e-4
        )
    expected = slow_odmap(captions, images, 50)[1]
    found = metric.per_query()
    assert found["ids"].tolist() == sorted(expected)
    for query, retrieved in zip(found["ids"].tolist(), found["retrieved_ids"].tolist(), strict=True):
        assert retrieved == expected[query] + [-1] * 10


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 30), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_batches_chunks_and_the_order_of_the_gallery_do_not_matter(seed, queries, gallery, chunk_size):
    captions, images = world(queries, gallery, seed=seed)
    plain, expected = score(captions, images, batch=1000)
    order = torch.randperm(gallery, generator=torch.Generator().manual_seed(seed))
    other, values = score(some(captions, order), images, batch=4, chunk_size=chunk_size)
    assert values == expected
    assert torch.equal(other.per_query()["retrieved_ids"], plain.per_query()["retrieved_ids"])
    assert all(0 <= value <= 100 for value in values.values())


def test_increasing_maps_of_the_scores_do_not_matter():
    captions, images = world()
    expected = score(captions, images)[1]
    below_zero = dict(captions, embeddings=torch.nn.functional.pad(captions["embeddings"], (0, 1), value=1.0))
    shifted = dict(images, embeddings=torch.nn.functional.pad(4 * images["embeddings"], (0, 1), value=-500.0))
    metric, values = score(below_zero, shifted)
    assert values == expected
    assert (metric.per_query()["retrieved_scores"] < 0).all()


def test_one_point_for_everything_retrieves_the_lowest_ids():
    captions, images = world()
    point = torch.randn(1, 33, generator=torch.Generator().manual_seed(0))
    flat = dict(captions, embeddings=point.expand(40, -1)), dict(images, embeddings=point.expand(7, -1))
    metric, _ = score(*flat, chunk_size=8)
    lowest = captions["ids"].sort().values[:10]
    assert (metric.per_query()["retrieved_ids"] == lowest).all()


def test_perfect_and_single_item_galleries():
    dog, frisbee = torch.eye(2).bool()
    images = {"embeddings": torch.ones(1, 1), "removed": dog[None], "kept": frisbee[None], "ids": torch.tensor([0])}
    captions = {"embeddings": -torch.ones(5, 1), "mentions": frisbee.expand(5, -1), "ids": torch.arange(5)}
    assert score(captions, images, top_k=5)[1] == {"ODmAP@5": 100}
    assert score(some(captions, slice(1)), images, top_k=(1, 5))[1] == {"ODmAP@1": 100, "ODmAP@5": 20}


def test_repeated_rows_count_once():
    captions, images = world()
    plain, expected = score(captions, images)
    again = torch.cat([torch.arange(40), torch.tensor([0, 39, 5])]), torch.cat([torch.arange(7), torch.tensor([6, 6])])
    metric, values = score(some(captions, again[0]), some(images, again[1]))
    assert values == expected
    assert metric.summary() == plain.summary() | {"ODmAP/repeated": 5}


def test_summary_and_unanswerable_queries():
    captions, images = world()
    images["removed"][2:4] = True
    metric, values = score(captions, images, top_k=2, normalize="all")
    nothing = metric.per_query()["num_relevant"] == 0
    assert nothing.sum() >= 2
    assert (metric.per_query()["ODmAP@2"][nothing] == 0).all()
    sizes = {name: value for name, value in metric.summary().items() if name.startswith("ODmAP/")}
    assert sizes == {
        "ODmAP/queries": 7,
        "ODmAP/gallery": 40,
        "ODmAP/unanswerable": pytest.approx(100 * nothing.float().mean().item()),
        "ODmAP/repeated": 0,
    }
    assert values["ODmAP@2"] == metric.per_query()["ODmAP@2"].mean()


def test_survives_clone_pickle_reset_and_set_dtype():
    captions, images = world()
    metric, expected = score(captions, images)
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric)), metric.half().to("cpu")):  # noqa: S301
        assert copy.compute() == expected
        assert copy.per_query().keys() == metric.per_query().keys()
    metric.reset()
    assert metric.summary() == {}
    with pytest.raises(RuntimeError, match="compute"):
        metric.per_query()
    metric.update_gallery(**captions)
    metric.update(**images)
    assert metric.compute() == expected


def test_compute_after_more_rows_is_fresh():
    captions, images = world()
    metric = ODmAP()
    metric.update_gallery(**captions)
    metric.update(**some(images, slice(3)))
    metric.compute()
    metric.update(**some(images, slice(3, None)))
    assert metric.compute() == score(captions, images)[1]


def test_forward_scores_its_batch_against_the_gallery_and_keeps_it():
    captions, images = world()
    metric = ODmAP()
    metric.update_gallery(**captions)
    for rows in (slice(3), slice(3, None)):
        assert metric(**some(images, rows)) == score(captions, some(images, rows))[1]
    assert metric.compute() == score(captions, images)[1]


def test_a_collection_holds_two_rules():
    captions, images = world()
    both = MetricCollection({"any": ODmAP(top_k=3), "all": ODmAP(top_k=3, kept="all")})
    for metric in both.values():
        metric.update_gallery(**captions)
    for _ in range(2):  # the second time the collection updates one member for both
        both.update(**images)
    values = both.compute()
    assert values == {
        f"{rule}_ODmAP@3": score(captions, images, top_k=3, kept=rule)[1]["ODmAP@3"] for rule in ("any", "all")
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_storage_dtypes_of_whole_numbers_agree(dtype):
    captions, images = world()
    stored = [dict(part, embeddings=part["embeddings"].to(dtype)) for part in (captions, images)]
    assert score(*stored)[1] == score(captions, images)[1]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_embeddings_that_are_not_finite_are_refused_by_id(value):
    captions, images = world()
    captions["embeddings"][[4, 9], 1] = value
    images["embeddings"][2, 0] = value
    with pytest.raises(ValueError, match=f"2 of 40 rows .* id {captions['ids'][4]}"):
        ODmAP().update_gallery(**captions)
    with pytest.raises(ValueError, match=f"1 of 7 rows .* id {images['ids'][2]}"):
        ODmAP().update(**images)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"embeddings": torch.ones(7)}, ValueError, "embeddings"),
        ({"embeddings": torch.ones(7, 4).long()}, TypeError, "embeddings"),
        ({"removed": torch.ones(7, 5)}, TypeError, "removed"),
        ({"removed": torch.ones(6, 5).bool()}, ValueError, "removed"),
        ({"kept": torch.ones(7, 4).bool()}, ValueError, "kept"),
        ({"ids": torch.ones(7)}, TypeError, "ids"),
        ({"ids": torch.arange(6)}, ValueError, "ids"),
        ({"ids": torch.ones(7).bool()}, TypeError, "ids"),
        ({"ids": list(range(7))}, TypeError, "ids must be a tensor, got list"),
        ({"kept": np.ones((7, 5), dtype=bool)}, TypeError, "kept must be a tensor, got ndarray"),
        ({"embeddings": np.ones((7, 4))}, TypeError, "embeddings must be a tensor, got ndarray"),
    ],
)
def test_wrong_queries_are_named(change, error, words):
    with pytest.raises(error, match=words):
        ODmAP().update(**(world()[1] | change))


def test_a_negative_caption_id_is_refused():
    captions, _ = world()
    captions["ids"][3] = -1  # what marks an empty place in a ranking
    with pytest.raises(ValueError, match="ids of captions must not be negative, got -1"):
        ODmAP().update_gallery(**captions)


def test_tables_that_do_not_fit_are_named():
    captions, images = world()
    narrow = dict(images, embeddings=images["embeddings"][:, :3])
    with pytest.raises(ValueError, match="embeddings of the queries have 3 columns, embeddings of the gallery have 4"):
        score(captions, narrow)
    with pytest.raises(ValueError, match="removed of the queries have 5 columns, mentions of the gallery have 3"):
        score(dict(captions, mentions=captions["mentions"][:, :3]), images)
    metric = ODmAP()
    metric.update(**images)
    with pytest.raises(ValueError, match="queries embeddings"):
        metric.update(**narrow)
    with pytest.raises(ValueError, match="no gallery"):
        metric.compute()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"top_k": 0}, ValueError, "top_k"),
        ({"top_k": (1, -5)}, ValueError, "top_k"),
        ({"top_k": 2.5}, TypeError, "top_k"),
        ({"top_k": "10"}, TypeError, "top_k"),
        ({"top_k": True}, TypeError, "top_k"),
        ({"top_k": (1, 5.0)}, TypeError, "top_k"),
        ({"top_k": ()}, ValueError, "top_k"),
        ({"kept": "most"}, ValueError, "kept"),
        ({"normalize": "R"}, ValueError, "normalize"),
        ({"normalize": ["k"]}, ValueError, r"normalize=\['k'\] is unknown"),
        ({"chunk_size": 0}, ValueError, "chunk_size"),
    ],
)
def test_wrong_options_are_named(options, error, words):
    with pytest.raises(error, match=words):
        ODmAP(**options)


def test_cuts_may_be_integers_of_numpy():
    assert ODmAP(top_k=np.int64(5)).top_k == (5,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_finds_the_same(dtype):
    captions, images = (dict(part, embeddings=part["embeddings"].to(dtype)) for part in world(300, 3000))
    plain, expected = score(captions, images, batch=100, chunk_size=256)
    moved = plain.clone().to("cuda")
    assert moved.compute() == pytest.approx(expected, abs=1e-4)
    assert torch.equal(moved.per_query()["retrieved_ids"].cpu(), plain.per_query()["retrieved_ids"])
