import itertools
import math
import pickle
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from metrics import RetrievalRecall


def pairs(images=8, captions=30, seed=0, width=3, spread=2):
    """Return images, captions of them (some images have none, some captions a foreign image) and caption ids."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "image_embeddings": torch.randint(-spread, spread + 1, (images, width), generator=generator).float(),
        "image_ids": torch.randperm(50, generator=generator)[:images],
        "caption_embeddings": torch.randint(-spread, spread + 1, (captions, width), generator=generator).float(),
        "caption_image_ids": torch.randint(0, 50, (captions,), generator=generator),
        "caption_ids": torch.randperm(5 * captions, generator=generator)[:captions],
    }


def owned(images=8, captions=30, seed=0, **options):
    """As `pairs`, but every caption describes one of the images."""
    data = pairs(images, captions, seed, **options)
    owners = torch.randint(0, images, (captions,), generator=torch.Generator().manual_seed(seed))
    return data | {"caption_image_ids": data["image_ids"][owners]}


def score(data, **options):
    metric = RetrievalRecall(**options)
    metric.update(**data)
    return metric.compute()


def slow_ranks(queries, query_images, gallery, gallery_images):
    """Return 1 + the number of wrong items that score as high as the best match; None without a match."""
    ranks = []
    for query, image in zip(queries.double(), query_images.tolist(), strict=True):
        scores = [float(query @ row) for row in gallery.double()]
        matches = [s for s, other in zip(scores, gallery_images.tolist(), strict=True) if other == image]
        wrong = [s for s, other in zip(scores, gallery_images.tolist(), strict=True) if other != image]
        ranks.append(1 + sum(s >= max(matches) for s in wrong) if matches else None)
    return ranks


def slow_both_ways(data):
    images = data["image_embeddings"], data["image_ids"]
    captions = data["caption_embeddings"], data["caption_image_ids"]
    return {"i2t": slow_ranks(*images, *captions), "t2i": slow_ranks(*captions, *images)}


def slow_recalls(ranks, cuts):
    return {
        f"{way}/R@{k}": 100 * sum(rank is not None and rank <= k for rank in found) / len(found)
        for way, found in ranks.items()
        for k in cuts
    }


def slow_values(data, cuts):
    ranks = slow_both_ways(data)
    recalls = slow_recalls(ranks, cuts)
    values = recalls | {"rsum": sum(recalls.values())}
    for way, other in (("i2t", "caption"), ("t2i", "image")):
        last = len(data[f"{other}_embeddings"]) + 1
        found = [last if rank is None else rank for rank in ranks[way]]
        values |= {f"{way}/median_rank": statistics.median(found), f"{way}/mean_rank": statistics.mean(found)}
    return values


@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 10_000), st.integers(1, 30), st.booleans())
@settings(max_examples=50, deadline=None)
def test_equals_a_plain_loop(images, captions, seed, chunk_size, foreign):
    data = (pairs if foreign else owned)(images, captions, seed, spread=1)
    found = score(data, top_k=(1, 2, 5), chunk_size=chunk_size)
    assert found == pytest.approx(slow_values(data, (1, 2, 5)), abs=1e-3)


def test_without_ties_it_is_the_share_of_queries_with_a_match_among_the_first_k():
    generator = torch.Generator().manual_seed(0)
    images, captions = torch.randn(20, 8, generator=generator), torch.randn(100, 8, generator=generator)
    owners = torch.arange(20).repeat_interleave(5)
    found = score(
        {"image_embeddings": images, "image_ids": torch.arange(20),
         "caption_embeddings": captions, "caption_image_ids": owners}
    )  # fmt: skip
    products = images @ captions.T
    for k in (1, 5, 10):
        i2t = (owners[products.topk(k).indices] == torch.arange(20)[:, None]).any(dim=1).float().mean()
        t2i = (products.T.topk(k).indices == owners[:, None]).any(dim=1).float().mean()
        assert found[f"i2t/R@{k}"].item() == pytest.approx(100 * i2t.item(), abs=1e-4)
        assert found[f"t2i/R@{k}"].item() == pytest.approx(100 * t2i.item(), abs=1e-4)


def test_five_captions_per_image_are_all_matches():
    """Image i is nearest to its fifth caption alone: one-to-one truth would miss it."""
    images = torch.eye(4)
    captions = torch.zeros(20, 4)
    captions[4::5] = torch.eye(4)
    found = score(
        {"image_embeddings": images, "image_ids": torch.arange(4),
         "caption_embeddings": captions, "caption_image_ids": torch.arange(4).repeat_interleave(5)},
        top_k=1,
    )  # fmt: skip
    assert found["i2t/R@1"] == 100
    assert found["t2i/R@1"] == 20


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("collapsed", ["both", "images", "captions"])
def test_a_collapsed_encoder_never_exceeds_chance(seed, collapsed):
    data = owned(12, 60, seed)
    data["caption_image_ids"][:30] = data["image_ids"].min()  # half of all captions belong to the lowest image id
    point = torch.randn(1, 31, generator=torch.Generator().manual_seed(seed))
    for side in ("image", "caption"):
        rows = len(data[f"{side}_embeddings"])
        noise = torch.randn(rows, 31, generator=torch.Generator().manual_seed(seed))
        data[f"{side}_embeddings"] = point.expand(rows, -1) if collapsed in ("both", f"{side}s") else noise
    found = score(data, top_k=(1, 5, 10), chunk_size=16)
    counts = [(data["caption_image_ids"] == image).sum().item() for image in data["image_ids"]]
    for k in (1, 5, 10):
        by_chance = [1 - math.comb(60 - own, k) / math.comb(60, k) for own in counts]
        if collapsed != "images":  # an image sees one and the same score for every caption
            assert found[f"i2t/R@{k}"] <= 100 * sum(by_chance) / 12
        if collapsed != "captions":
            assert found[f"t2i/R@{k}"] <= 100 * k / 12


def test_ties_take_the_least_value_over_all_their_orders():
    data = owned(4, 6, seed=1, spread=1)
    images, captions = data["image_ids"], data["caption_image_ids"]
    scores = data["image_embeddings"] @ data["caption_embeddings"].T
    for k in (1, 2, 3):
        least = 0
        for row, image in zip(scores.tolist(), images.tolist(), strict=True):
            orders = itertools.permutations(range(6))
            sorted_orders = [o for o in orders if all(row[a] >= row[b] for a, b in itertools.pairwise(o))]
            least += all(any(captions[c] == image for c in order[:k]) for order in sorted_orders)
        assert score(data, top_k=k)[f"i2t/R@{k}"].item() == pytest.approx(100 * least / 4)


def test_images_without_captions_and_captions_without_images_are_misses():
    data = {
        "image_embeddings": torch.eye(2),
        "image_ids": torch.tensor([1, 2]),
        "caption_embeddings": torch.eye(2),
        "caption_image_ids": torch.tensor([1, 3]),
    }
    metric = RetrievalRecall(top_k=(1, 10))
    metric.update(**data)
    found = metric.compute()
    assert {found[f"{way}/R@{k}"].item() for way in ("i2t", "t2i") for k in (1, 10)} == {50}
    for way in ("i2t", "t2i"):
        assert metric.per_query()[way]["ranks"].tolist() == [1, 3]  # behind both items of the gallery


def test_a_single_pair_is_perfect():
    data = pairs(1, 1) | {"image_ids": torch.tensor([4]), "caption_image_ids": torch.tensor([4])}
    assert score(data, top_k=(1, 10))["rsum"] == 400


def test_repeated_rows_count_once():
    data = owned(8, 30)
    image_rows, caption_rows = torch.tensor([*range(8), 0, 3]), torch.tensor([*range(30), 29, 29, 1])
    again = {name: values[image_rows if name.startswith("image") else caption_rows] for name, values in data.items()}
    assert score(again) == score(data)


def test_captions_without_ids_all_count():
    data = owned(8, 30)
    del data["caption_ids"]
    assert score(data) == pytest.approx(slow_values(data, (1, 5, 10)), abs=1e-3)


def test_more_captions_per_image_than_k():
    data = owned(3, 60, spread=1)
    assert score(data, top_k=1) == pytest.approx(slow_values(data, (1,)), abs=1e-3)


def fold_slice(data, folds, fold):
    """Return the images and captions of one fold, to be scored on their own."""
    images = folds == fold
    captions = torch.isin(data["caption_image_ids"], data["image_ids"][images])
    return {name: rows[images if name.startswith("image") else captions] for name, rows in data.items()}


@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 10_000), st.integers(1, 5), st.booleans())
@settings(max_examples=25, deadline=None)
def test_folds_are_the_mean_over_slices_scored_alone(images, captions, seed, pieces, foreign):
    data = (pairs if foreign else owned)(images, captions, seed, spread=1)
    folds = torch.randint(-1, pieces, (images,), generator=torch.Generator().manual_seed(seed))
    parts = [fold_slice(data, folds, fold) for fold in range(pieces)]
    alone = [slow_values(part, (1, 2)) for part in parts if len(part["caption_ids"])]
    found = score(data | {"folds": folds}, top_k=(1, 2), chunk_size=4)
    expected = {
        f"folds/{name}": statistics.mean(values[name] for values in alone)
        for name in ("i2t/R@1", "i2t/R@2", "t2i/R@1", "t2i/R@2", "rsum")
        if alone
    }
    assert found == pytest.approx(slow_values(data, (1, 2)) | expected, abs=1e-3)


def test_folds_for_some_images_alone_are_refused():
    metric = RetrievalRecall()
    metric.update_images(torch.eye(3)[:2], torch.tensor([1, 2]), folds=torch.tensor([0, -1]))
    metric.update_images(torch.eye(3)[2:], torch.tensor([3]))
    metric.update_captions(torch.eye(3), torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="folds: 2 images have a fold and 1 have none"):
        metric.compute()


def test_per_query_is_ascending_by_id_and_belongs_to_the_last_compute():
    data = owned(8, 30, spread=1)
    metric = RetrievalRecall()
    with pytest.raises(RuntimeError, match="compute"):
        metric.per_query()
    metric.update(**data)
    metric.compute()
    expected = slow_both_ways(data)
    last = {"i2t": 31, "t2i": 9}
    ids = {"i2t": (data["image_ids"], data["image_ids"]), "t2i": (data["caption_ids"], data["caption_image_ids"])}
    for way, found in metric.per_query().items():
        rows = zip(*(column.tolist() for column in ids[way]), expected[way], strict=True)
        assert list(zip(*(found[name].tolist() for name in ("query_ids", "image_ids", "ranks")), strict=True)) == [
            (query, image, rank or last[way]) for query, image, rank in sorted(rows, key=lambda row: row[0])
        ]
    metric.reset()
    with pytest.raises(RuntimeError, match="compute"):
        metric.per_query()


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_neither_the_order_of_rows_nor_an_increasing_map_of_a_query_matters(seed, chunk_size):
    data, generator = pairs(6, 20, seed), torch.Generator().manual_seed(seed)
    image_rows, caption_rows = torch.randperm(6, generator=generator), torch.randperm(20, generator=generator)
    mixed = {name: rows[image_rows if name.startswith("image") else caption_rows] for name, rows in data.items()}
    assert score(mixed, chunk_size=chunk_size) == score(data)
    scaled = data | {"image_embeddings": data["image_embeddings"] * torch.tensor([0.125, 1, 2, 4, 64, 3])[:, None]}
    plain, mapped = score(data), score(scaled)
    assert all(mapped[name] == plain[name] for name in plain if name.startswith("i2t"))


def test_members_of_a_collection_keep_their_own_values():
    data = owned(12, 60)
    metrics = MetricCollection({"first": RetrievalRecall(top_k=1), "both": RetrievalRecall(top_k=(1, 5))})
    for rows in (slice(0, 6), slice(6, 12)):
        captions = torch.isin(data["caption_image_ids"], data["image_ids"][rows])
        metrics.update(**{name: v[rows] if name.startswith("image") else v[captions] for name, v in data.items()})
    found = metrics.compute()
    both = score(data, top_k=(1, 5))
    assert found["both_i2t/R@5"] == both["i2t/R@5"]
    assert found["first_rsum"] == both["i2t/R@1"] + both["t2i/R@1"]


def test_forward_batches_clone_pickle_and_reset():
    data, more = owned(8, 30, seed=1), owned(6, 20, seed=2)
    more["image_ids"], more["caption_image_ids"] = more["image_ids"] + 100, more["caption_image_ids"] + 100
    more["caption_ids"] = more["caption_ids"] + 1000
    metric = RetrievalRecall()
    assert metric(**data) == score(data)
    assert metric(**more) == score(more)
    together = {name: torch.cat([data[name], more[name]]) for name in data}
    for copy in (metric, metric.clone(), pickle.loads(pickle.dumps(metric))):  # noqa: S301
        assert copy.compute() == score(together)
    metric.reset()
    metric.update(**data)
    assert metric.compute() == score(data)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"image_embeddings": torch.full((8, 3), torch.nan)}, ValueError, "8 of 8 rows"),
        ({"caption_embeddings": torch.ones(30, 4)}, ValueError, "embeddings of the images"),
        ({"caption_ids": torch.arange(30) - 1}, ValueError, "negative"),
        ({"caption_ids": torch.ones(30)}, TypeError, "ids"),
        ({"caption_ids": list(range(30))}, TypeError, "^ids must be a tensor, got list"),
        ({"caption_image_ids": list(range(30))}, TypeError, "^image_ids must be a tensor, got list"),
        ({"folds": [0] * 8}, TypeError, "^folds must be a tensor, got list"),
        ({"caption_image_ids": torch.arange(29)}, ValueError, "image_ids"),
        ({"folds": torch.arange(7)}, ValueError, "folds"),
        ({"folds": torch.arange(8) - 2}, ValueError, "folds must count from 0"),
        ({"folds": torch.ones(8)}, TypeError, "folds"),
        ({"image_ids": torch.ones(8, dtype=torch.int64)}, ValueError, "images: id 1 .* embeddings"),
        ({"caption_ids": torch.arange(30) // 2}, ValueError, "captions: id 0 "),
    ],
)
def test_wrong_arguments_are_named(change, error, words):
    with pytest.raises(error, match=words):
        score(pairs() | change)
