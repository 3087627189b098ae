"""Two-stage retrieval against loops over all pairs; most scores are whole numbers or eighths, so that many tie."""

from __future__ import annotations

import math

import pytest
import torch

from metrics import ODmAP, RetrievalRecall
from metrics.reranked import RerankedODmAP, RerankedRecall

CUTS = (1, 3, 10)
IMAGES, CAPTIONS, QUERIES, CLASSES = 13, 41, 7, 4


class World:
    """Images, captions of some of them, edited images, and a scorer of any pair."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(-2, 3, (IMAGES + CAPTIONS + QUERIES, 3), generator=generator).float()
        self.images, self.captions, self.queries = drawn.split([IMAGES, CAPTIONS, QUERIES])
        self.image_ids = torch.randperm(90, generator=generator)[:IMAGES]
        self.query_ids = 1000 + torch.randperm(90, generator=generator)[:QUERIES]
        self.caption_ids = torch.randperm(500, generator=generator)[:CAPTIONS]
        self.owners = torch.cat([self.image_ids, torch.tensor([777])])[  # 777 is nobody; some images have no caption
            torch.randint(1, IMAGES + 1, (CAPTIONS,), generator=generator)
        ]
        masks = torch.rand(CAPTIONS + 2 * QUERIES, CLASSES, generator=generator) < 0.4
        self.mentions, self.removed, self.kept = masks.split([CAPTIONS, QUERIES, QUERIES])
        self.asked: list[tuple[int, int]] = []

    def score(self, image_ids: torch.Tensor, caption_ids: torch.Tensor) -> torch.Tensor:
        self.asked += zip(image_ids.tolist(), caption_ids.tolist(), strict=True)
        return (image_ids * 7 + caption_ids * 13) % 19 / 8 - 1

    def total(self, image: int, caption: int, vector: torch.Tensor, other: torch.Tensor) -> float:
        return float(vector @ other) + float((image * 7 + caption * 13) % 19 / 8 - 1)

    def recall(self, depth: int | None = None, scorer=None, **options):
        kind = RetrievalRecall(**options) if depth is None else RerankedRecall(scorer or self.score, depth, **options)
        kind.update_images(self.images, self.image_ids)
        kind.update_captions(self.captions, self.owners, self.caption_ids)
        return kind

    def odmap(self, depth: int | None = None, scorer=None, **options):
        kind = ODmAP(**options) if depth is None else RerankedODmAP(scorer or self.score, depth, **options)
        kind.update_gallery(self.captions, self.mentions, self.caption_ids)
        kind.update(self.queries, self.removed, self.kept, self.query_ids)
        return kind


def slow_order(world, query_id, query, gallery_ids, gallery, depth, flip):
    """Return gallery rows best first: the first `depth` by embeddings in their new order, then the others."""
    by_embedding = sorted(range(len(gallery)), key=lambda row: (-float(query @ gallery[row]), int(gallery_ids[row])))

    def total(row):
        pair = (int(gallery_ids[row]), query_id) if flip else (query_id, int(gallery_ids[row]))
        return world.total(*pair, query, gallery[row])

    first = sorted(by_embedding[:depth], key=lambda row: (-total(row), int(gallery_ids[row])))
    return first, by_embedding[depth:], {row: total(row) for row in first}


def slow_rank(first, rest, totals, matches, query, gallery):
    """Return the pessimistic rank of the best match."""
    own = [totals[row] for row in first if row in matches]
    if own:
        return 1 + sum(totals[row] >= max(own) for row in first if row not in matches)
    own = [float(query @ gallery[row]) for row in rest if row in matches]
    best = max(own, default=-math.inf)
    return 1 + len(first) + sum(float(query @ gallery[row]) >= best for row in rest if row not in matches)


@pytest.mark.parametrize("depth", [10, 12, CAPTIONS, 300])
@pytest.mark.parametrize("seed", [0, 1])
def test_recall_is_that_of_a_loop_over_all_pairs(depth: int, seed: int) -> None:
    world = World(seed)
    metric = world.recall(depth, top_k=CUTS)
    values = metric.compute()
    sides = {
        "i2t": (world.image_ids, world.images, world.image_ids, world.caption_ids, world.captions, world.owners),
        "t2i": (world.caption_ids, world.captions, world.owners, world.image_ids, world.images, world.image_ids),
    }
    for way, (query_ids, queries, wanted, gallery_ids, gallery, owners) in sides.items():
        slow = {}
        for query_id, query, owner in zip(query_ids.tolist(), queries, wanted.tolist(), strict=True):
            matches = set((owners == owner).nonzero()[:, 0].tolist())
            order = slow_order(world, query_id, query, gallery_ids, gallery, depth, flip=way == "t2i")
            slow[query_id] = slow_rank(*order, matches, query, gallery)
        found = metric.per_query()[way]
        assert dict(zip(found["query_ids"].tolist(), found["ranks"].tolist(), strict=True)) == slow
        for k in CUTS:
            hits = [rank <= min(k, len(gallery)) for rank in slow.values()]
            assert values[f"{way}/R@{k}"].item() == pytest.approx(100 * sum(hits) / len(hits))
    assert values["rsum"].item() == pytest.approx(sum(values[f"{way}/R@{k}"].item() for way in sides for k in CUTS))


@pytest.mark.parametrize("depth", [10, CAPTIONS, 300])
@pytest.mark.parametrize("seed", [0, 1])
def test_odmap_is_that_of_a_loop_over_all_pairs(depth: int, seed: int) -> None:
    world = World(seed)
    metric = world.odmap(depth, top_k=CUTS)
    values, found = metric.compute(), metric.per_query()
    slow: dict[int, list[float]] = {k: [] for k in CUTS}
    for row in world.query_ids.argsort().tolist():
        query_id = int(world.query_ids[row])
        first, _, _ = slow_order(world, query_id, world.queries[row], world.caption_ids, world.captions, depth, False)
        place = found["ids"].tolist().index(query_id)
        assert found["retrieved_ids"][place].tolist() == [int(world.caption_ids[one]) for one in first[:10]]
        assert (found["retrieved_mentions"][place] == world.mentions[first[:10]]).all()
        relevant = [
            bool((world.mentions[one] & world.kept[row]).any() and not (world.mentions[one] & world.removed[row]).any())
            for one in first
        ]
        for k in CUTS:
            slow[k].append(sum(relevant[i] * sum(relevant[: i + 1]) / (i + 1) for i in range(k)) / k)
    for k in CUTS:
        assert values[f"ODmAP@{k}"].item() == pytest.approx(100 * sum(slow[k]) / QUERIES, abs=1e-4)


@pytest.mark.parametrize("depth", [10, 300])
def test_a_scorer_that_sees_nothing_changes_nothing(depth: int) -> None:
    world = World()
    world.images, world.captions = torch.randn(IMAGES, 3), torch.randn(CAPTIONS, 3)  # ids would decide between equals

    def blind(image_ids, caption_ids):
        return torch.zeros(len(image_ids))

    assert world.recall(depth, blind).compute() == world.recall().compute()
    reranked, plain = world.odmap(depth, blind), world.odmap()
    assert reranked.compute() == plain.compute()
    assert reranked.summary() == plain.summary()
    for name, rows in plain.per_query().items():
        assert torch.equal(reranked.per_query()[name], rows), name


def test_a_perfect_scorer_finds_every_match_among_the_candidates() -> None:
    world = World()
    owners = dict(zip(world.caption_ids.tolist(), world.owners.tolist(), strict=True))

    def perfect(image_ids, caption_ids):
        return 100.0 * (image_ids == torch.tensor([owners[one] for one in caption_ids.tolist()]))

    owned = torch.isin(world.image_ids, world.owners)
    found = world.recall(CAPTIONS, perfect).compute()
    assert found["i2t/R@1"].item() == pytest.approx(100 * owned.float().mean().item())
    assert found["t2i/R@1"].item() == pytest.approx(100 * (world.owners != 777).float().mean().item())


def test_only_candidates_are_scored() -> None:
    world = World()
    world.recall(10).compute()
    assert len(world.asked) == 10 * (IMAGES + CAPTIONS)
    world.asked.clear()
    world.odmap(300).compute()  # more than there are
    wanted = {(image, caption) for image in world.query_ids.tolist() for caption in world.caption_ids.tolist()}
    assert len(world.asked) == len(wanted)
    assert set(world.asked) == wanted


def test_repeated_rows_count_once() -> None:
    world = World()
    once = world.recall(10).compute(), world.odmap(10).compute()
    recall, odmap = world.recall(10), world.odmap(10)
    recall.update_images(world.images[:3], world.image_ids[:3])
    recall.update_captions(world.captions[:5], world.owners[:5], world.caption_ids[:5])
    odmap.update_gallery(world.captions[3:9], world.mentions[3:9], world.caption_ids[3:9])
    odmap.update(world.queries[:2], world.removed[:2], world.kept[:2], world.query_ids[:2])
    assert (recall.compute(), odmap.compute()) == once


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_named(value: float) -> None:
    world = World()
    image, caption = int(world.query_ids[2]), int(world.caption_ids[5])

    def broken(image_ids, caption_ids):
        return torch.where((image_ids == image) & (caption_ids == caption), value, 0.5)

    with pytest.raises(ValueError, match=f"no finite number for image {image} and caption {caption}"):
        world.odmap(CAPTIONS, broken).compute()


@pytest.mark.parametrize("kind", [RerankedRecall, RerankedODmAP])
def test_a_cut_lies_within_the_depth(kind) -> None:
    with pytest.raises(ValueError, match="depth is 9, but the cut 10 of top_k lies beyond it"):
        kind(World().score, 9)
    with pytest.raises(ValueError, match="depth must be a positive integer, got 0"):
        kind(World().score, 0)
