"""Retrieval in two stages: the first results by embeddings are put in a new order by a scorer of pairs.

The score of a pair is then the dot product of its embeddings plus what the scorer says. Results that were not looked at
again follow in the order of the embeddings, which is the same as scoring them at minus infinity wherever a cut is not
beyond the depth.

Source: Li et al. 2022, "BLIP", section 5.1 (k candidates by similarity of features, then the matching head); the sum of
both scores is that of its released evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from metrics.checks import check_count
from metrics.distributed import Alone
from metrics.functional.odmap import KeptRule, Normalizer
from metrics.odmap import ODmAP
from metrics.rank_counting import Items, MatchRanks
from metrics.recall import RetrievalRecall
from metrics.search import CHUNK_SIZE, NO_ID, Candidates, merge
from metrics.sharded import Columns, Shard, rounds, search_shards

PairScorer: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Image ids and caption ids, `[P]` int64 each, to `[P]` floating point scores. The images are those that this rank was
given, the captions may come from any rank. Every rank calls it as often, with no pairs where it has none."""


class RerankedRecall(RetrievalRecall):
    """`RetrievalRecall` after the first results of both directions were re-ranked.

    A query without a match among its candidates keeps the rank that the embeddings give it. Ties are pessimistic, as
    there, but which of equal results are the last candidates is decided by ascending id. Captions need ids. A pair that
    both directions ask for is handed to the scorer twice, in one call.

    Args:
        scorer: Scores pairs of image and caption.
        depth: How many results of every query are re-ranked.
        top_k: One cut k or several, none above `depth`.
        process_group: Ranks to work with; None is the whole world.

    Raises:
        TypeError: A cut is no integer.
        ValueError: A cut or `depth` is not positive, or a cut is above `depth`.

    Example:
        >>> import torch
        >>> def scorer(image_ids, caption_ids):
        ...     return (image_ids == caption_ids % 10).float()
        >>> metric = RerankedRecall(scorer, depth=2, top_k=1)
        >>> metric.update_images(torch.eye(2), image_ids=torch.tensor([1, 2]))
        >>> captions = torch.tensor([[0.2, 0.6], [0.9, 0.1]])
        >>> metric.update_captions(captions, image_ids=torch.tensor([1, 2]), ids=torch.tensor([11, 12]))
        >>> metric.compute()["i2t/R@1"]
        tensor(100.)
    """

    def __init__(
        self, scorer: PairScorer, depth: int, top_k: int | Sequence[int] = (1, 5, 10), process_group: Any = None
    ) -> None:
        super().__init__(top_k, process_group=process_group)
        _check_depth(depth, self.top_k)
        self.scorer, self.depth = scorer, depth

    def _both_ways(self, ranks: Alone, images: Items, captions: Items) -> dict[str, MatchRanks]:
        by_embeddings = super()._both_ways(ranks, images, captions)
        i2t = _results(ranks, images, captions, self.depth)
        t2i = _results(ranks, captions, images, self.depth)
        pairs = [(_spread(i2t.query_ids, i2t.best), i2t.best.ids), (t2i.best.ids, _spread(t2i.query_ids, t2i.best))]
        added = _match_scores(ranks, self.scorer, images.ids[images.rows], pairs)
        return {
            way: _ranked_again(by_embeddings[way], results, scores)
            for way, results, scores in zip(("i2t", "t2i"), (i2t, t2i), added, strict=True)
        }


class RerankedODmAP(ODmAP):
    """`ODmAP` after the first captions of every query were re-ranked; ties by ascending gallery id, as there.

    Args:
        scorer: Scores pairs of query image and caption.
        depth: How many captions of every query are re-ranked.
        top_k: One cut k or several, none above `depth`.
        kept: "any" or "all", see `ODmAP`.
        normalize: The divisor of average precision, see `ODmAP`.
        process_group: Ranks to work with; None is the whole world.

    Raises:
        TypeError: A cut is no integer.
        ValueError: A cut or `depth` is not positive, a cut is above `depth`, or an option is unknown.

    Example:
        >>> import torch
        >>> dog, frisbee = torch.eye(2).bool()
        >>> metric = RerankedODmAP(lambda image_ids, caption_ids: (caption_ids == 11).float(), depth=2, top_k=1)
        >>> metric.update_gallery(torch.eye(3), torch.stack([dog | frisbee, frisbee, dog]), torch.tensor([10, 11, 12]))
        >>> metric.update(torch.tensor([[0.9, 0.4, 0.0]]), dog[None], frisbee[None], torch.tensor([7]))
        >>> metric.compute()
        {'ODmAP@1': tensor(100.)}
    """

    def __init__(
        self,
        scorer: PairScorer,
        depth: int,
        top_k: int | Sequence[int] = (1, 5, 10),
        kept: KeptRule = "any",
        normalize: Normalizer = "k",
        process_group: Any = None,
    ) -> None:
        super().__init__(top_k, kept, normalize, process_group=process_group)
        _check_depth(depth, self.top_k)
        self.scorer, self.depth = scorer, depth

    def _retrieve(
        self, ranks: Alone, queries: Columns, asking: Tensor, shard: Shard
    ) -> Iterator[tuple[Columns, Candidates, Tensor]]:
        asked = list(rounds(ranks, queries, asking))
        light = shard._replace(payload=shard.keep)  # the classes of all candidates would be many
        found = [search_shards(ranks, one["embeddings"], light, self.depth, self.chunk_size)[0] for one in asked]
        pairs = [(_spread(one["ids"], best), best.ids) for one, best in zip(asked, found, strict=True)]
        matched = _match_scores(ranks, self.scorer, queries["ids"][asking], pairs)
        for one, best, added in zip(asked, found, matched, strict=True):
            first, _ = merge([best._replace(scores=best.scores + added)], self.top_k[-1])
            yield one, first, _mentions(ranks, shard, first.ids)


class _Results(NamedTuple):
    """The candidates of the queries of all ranks, equal on all ranks.

    Attributes:
        query_ids: `[Q]` int64.
        best: `[Q, depth]` each.
        matching: `[Q, depth]` bool, candidates of the image that the query belongs to.
    """

    query_ids: Tensor
    best: Candidates
    matching: Tensor


def _results(ranks: Alone, queries: Items, gallery: Items, depth: int) -> _Results:
    shard = Shard(gallery.embeddings, gallery.ids, _mask(gallery), payload=gallery.image_ids)
    columns = {"embeddings": torch.cat(list(queries.embeddings)), "ids": queries.ids, "image_ids": queries.image_ids}
    found = []
    for asked in rounds(ranks, columns, _mask(queries)):
        best, owners = search_shards(ranks, asked["embeddings"], shard, depth, CHUNK_SIZE)
        matching = (owners == asked["image_ids"][:, None]) & (best.ids != NO_ID)
        found.append((asked["ids"], *best, matching))
    query_ids, scores, ids, rows, matching = map(torch.cat, zip(*found, strict=True))
    return _Results(query_ids, Candidates(scores, ids, rows), matching)


def _match_scores(
    ranks: Alone, scorer: PairScorer, own_images: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]
) -> list[Tensor]:
    """Have every pair scored by the rank that has its image, 0 where a gallery was exhausted; equal on all ranks.

    Args:
        ranks: Who takes part.
        scorer: Scores pairs.
        own_images: `[n]` int64, the images of this rank.
        pairs: Image ids and caption ids `[Q, depth]`, `NO_ID` where there is none.
    """
    images, captions = (torch.cat([side.flatten() for side in sides]) for sides in zip(*pairs, strict=True))
    there = (images != NO_ID) & (captions != NO_ID)
    mine = there & torch.isin(images, own_images)
    scores = torch.full(images.shape, -torch.inf, device=images.device)
    given = scorer(images[mine], captions[mine]).to(scores)
    scores[mine] = torch.where(given.isfinite(), given, torch.inf)  # all ranks shall know of it
    scores = ranks.highest(scores).masked_fill(~there, 0)
    if not scores.isfinite().all():
        first = int(scores.isfinite().logical_not().nonzero()[0])
        raise ValueError(
            f"The scorer of pairs gave no finite number for image {int(images[first])} and caption "
            f"{int(captions[first])}."
        )
    parts = torch.split(scores, [side.numel() for side, _ in pairs])
    return [part.view_as(side) for part, (side, _) in zip(parts, pairs, strict=True)]


def _ranked_again(by_embeddings: MatchRanks, results: _Results, added: Tensor) -> MatchRanks:
    scores = results.best.scores + added
    best = scores.masked_fill(~results.matching, -torch.inf).amax(dim=1, keepdim=True)
    ahead = ((scores >= best) & ~results.matching).sum(dim=1)
    depth = min(scores.shape[1], by_embeddings.gallery)
    behind = by_embeddings.ranks.clamp(min=depth + 1)  # the products of both searches may round differently
    return by_embeddings._replace(ranks=torch.where(results.matching.any(dim=1), 1 + ahead, behind))


def _mentions(ranks: Alone, shard: Shard, ids: Tensor) -> Tensor:
    """Return the payload `[Q, k, C]` bool of captions of all ranks, False where there is no caption."""
    rows = shard.keep.nonzero()[:, 0]
    own, order = shard.ids[rows].sort()
    held = torch.isin(ids, own)
    found = torch.zeros(*ids.shape, shard.payload.shape[1], dtype=torch.uint8, device=ids.device)
    found[held] = shard.payload[rows[order[torch.searchsorted(own, ids[held])]]].byte()
    return ranks.highest(found).bool()


def _mask(items: Items) -> Tensor:
    mask = torch.zeros_like(items.ids, dtype=torch.bool)
    mask[items.rows] = True
    return mask


def _spread(query_ids: Tensor, best: Candidates) -> Tensor:
    return query_ids[:, None].expand_as(best.ids)


def _check_depth(depth: int, top_k: Sequence[int]) -> None:
    check_count("depth", depth)
    if depth < top_k[-1]:
        raise ValueError(f"depth is {depth}, but the cut {top_k[-1]} of top_k lies beyond it.")
