"""ODmAP@k as a metric that collects embeddings and ranks them itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from metrics.checks import check_choice, check_count, check_embeddings, check_ids, check_masks, check_top_k
from metrics.distributed import Alone
from metrics.functional.hallucination import hallucinated, hallucination_rate
from metrics.functional.hubness import hubness
from metrics.functional.odmap import KEPT_RULES, NORMALIZERS, KeptRule, Normalizer, average_precision, relevance
from metrics.masks import count_relevant, distinct_rows
from metrics.repeats import first_seen
from metrics.search import CHUNK_SIZE, Candidates
from metrics.sharded import Columns, Shard, ShardedMetric, rounds, search_shards

NO_CAPTION = -1
_QUERY_CONTENTS = ("embeddings", "removed", "kept")


class ODmAP(ShardedMetric):
    """Object-decorrelated mean average precision at k, in per cent (0 to 100).

    Queries are images from which objects were removed, the gallery holds captions. A retrieved caption is relevant
    when it mentions no removed class and mentions a kept class. Ranking is by dot product (give unit rows for
    cosines; negative values are scores like any other), ties by ascending gallery id. A query without any relevant
    caption in the gallery counts as 0; `summary` says how many there are.

    Rows that a padded sampler repeats are recognised by their id and counted once, within a rank and across ranks.
    The gallery stays on the rank that saw it; ranks exchange the queries and their best candidates.

    Source: Kim et al. 2023, section 3.2.

    Args:
        top_k: One cut k or several.
        kept: "any" kept class makes a caption relevant (the paper's reading), or "all" are needed.
        normalize: The divisor of average precision, "k" as in the paper, "hits", "min(k,R)" or "all"; see
            `metrics.functional.average_precision`.
        chunk_size: Gallery rows per product; bounds the memory beyond the embeddings themselves.
        process_group: Ranks to work with; None is the whole world.

    Raises:
        TypeError: A cut is no integer.
        ValueError: A cut or `chunk_size` is not positive, or an option is unknown.

    Example:
        >>> import torch
        >>> dog, frisbee = torch.eye(2).bool()
        >>> metric = ODmAP(top_k=(1, 2))
        >>> metric.update_gallery(torch.eye(3), torch.stack([dog | frisbee, frisbee, dog]), torch.tensor([10, 11, 12]))
        >>> metric.update(torch.tensor([[0.9, 0.4, 0.0]]), dog[None], frisbee[None], torch.tensor([7]))
        >>> metric.compute()
        {'ODmAP@1': tensor(0.), 'ODmAP@2': tensor(25.)}
        >>> metric.per_query()["retrieved_ids"]
        tensor([[10, 11]])
    """

    _batch_tables: ClassVar[tuple[str, ...]] = ("queries",)

    def __init__(
        self,
        top_k: int | Sequence[int] = (1, 5, 10),
        kept: KeptRule = "any",
        normalize: Normalizer = "k",
        chunk_size: int = CHUNK_SIZE,
        process_group: Any = None,
    ) -> None:
        super().__init__(process_group)
        self.top_k = check_top_k(top_k)
        check_choice("kept", kept, KEPT_RULES)
        check_choice("normalize", normalize, NORMALIZERS)
        check_count("chunk_size", chunk_size)
        self.kept: KeptRule = kept
        self.normalize: Normalizer = normalize
        self.chunk_size = chunk_size
        self._per_query: Columns | None = None
        self._summary: dict[str, float] = {}
        self._add_table("gallery", "embeddings", "mentions", "ids")
        self._add_table("queries", "embeddings", "removed", "kept", "ids")

    def update_gallery(self, embeddings: Tensor, mentions: Tensor, ids: Tensor) -> None:
        """Add captions to the gallery.

        Args:
            embeddings: `[G, D]` float32, bfloat16, float16 or float64.
            mentions: `[G, C]` bool, classes that each caption mentions.
            ids: `[G]` integers from 0.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit, an id is negative, or an embedding is not finite.
        """
        check_embeddings(embeddings, ids)
        check_masks(len(embeddings), mentions=mentions)
        check_ids(len(embeddings), ids=ids)
        if (ids < 0).any():
            raise ValueError(f"ids of captions must not be negative, got {int(ids.min())}.")
        self._update_count += 1
        self._append("gallery", embeddings=embeddings, mentions=mentions, ids=ids.long())

    def update(self, embeddings: Tensor, removed: Tensor, kept: Tensor, ids: Tensor) -> None:
        """Add query images.

        Args:
            embeddings: `[Q, D]` floating point, D as in the gallery.
            removed: `[Q, C]` bool, classes taken out of each image.
            kept: `[Q, C]` bool, classes still in it.
            ids: `[Q]` integers.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit, or an embedding is not finite.
        """
        check_embeddings(embeddings, ids)
        check_masks(len(embeddings), removed=removed, kept=kept)
        check_ids(len(embeddings), ids=ids)
        self._append("queries", embeddings=embeddings, removed=removed, kept=kept, ids=ids.long())

    def per_query(self) -> Columns:
        """Return what the last `compute` (or `forward`) found for every query, ascending by query id.

        One search serves every reading of the metric: the functions of `metrics.functional` take these columns, for
        another rule, divisor or smaller cut (`num_relevant` is counted under the rule of this metric).

        Returns:
            `ids [Q]`, `removed [Q, C]`, `kept [Q, C]`, `num_relevant [Q]` (relevant captions in the gallery),
            `retrieved_ids [Q, K]` (-1 where the gallery has no more), `retrieved_scores [Q, K]` (-inf there),
            `retrieved_mentions [Q, K, C]`, `relevant [Q, K]` bool, `hallucinated [Q, K]` bool (the caption mentions a
            removed class), and for every cut `ODmAP@k [Q]` and `hallucinated@k [Q]` in per cent, where K is the
            largest cut. After `compute` equal on all ranks.

        Raises:
            RuntimeError: `compute` was not called since the start or the last `reset`.

        Example:
            >>> import torch
            >>> from metrics.functional import object_decorrelation_map
            >>> dog, frisbee, bench = torch.eye(3).bool()
            >>> metric = ODmAP(top_k=2)
            >>> metric.update_gallery(torch.eye(2), torch.stack([frisbee, frisbee | bench]), torch.tensor([10, 11]))
            >>> metric.update(torch.tensor([[0.9, 0.4]]), dog[None], (frisbee | bench)[None], torch.tensor([7]))
            >>> metric.compute()
            {'ODmAP@2': tensor(100.)}
            >>> found = metric.per_query()
            >>> ranked = found["retrieved_mentions"], found["removed"], found["kept"]
            >>> object_decorrelation_map(*ranked, top_k=(1, 2), kept_rule="all")
            {1: tensor(0.), 2: tensor(0.2500)}
        """
        if self._per_query is None:
            raise RuntimeError("ODmAP has no values per query yet: call compute first.")
        return self._per_query

    def summary(self) -> dict[str, float]:
        """Return the companions of the last `compute`, from the same search, and the size of what it scored.

        Returns:
            For every cut `hallucinated@k` (share of the first k captions that mention a removed class, in per cent,
            mean over queries; of those retrieved where the gallery has fewer) and `hubs/skewness@k` (see
            `metrics.functional.hubness`); `hubs/distinct@1` (distinct captions at rank 1 per query, in per cent);
            `ODmAP/queries` and `ODmAP/gallery` (distinct ids), `ODmAP/unanswerable` (queries without any relevant
            caption, in per cent) and `ODmAP/repeated` (rows left out because their id had been seen). Empty before
            the first `compute`.
        """
        return self._summary

    def reset(self) -> None:
        """Forget all rows and results."""
        super().reset()
        self._per_query = None
        self._summary = {}

    def _evaluate(self, ranks: Alone) -> dict[str, Tensor]:
        shards = self._shards(ranks)
        gallery = shards["gallery"]
        queries = {name: torch.cat(parts) for name, parts in shards["queries"].items()}
        _check_fit(gallery, queries)
        shard = _shard(ranks, gallery)
        patterns, counts = distinct_rows(shard.payload[shard.keep])
        found = []
        asking = first_seen(ranks, "queries", queries["ids"], {name: queries[name] for name in _QUERY_CONTENTS})
        for asked, best, mentions in self._retrieve(ranks, queries, asking, shard):
            num_relevant = ranks.total(count_relevant(patterns, asked["removed"], asked["kept"], self.kept, counts))
            found.append(self._score(asked, best, mentions, num_relevant))
        given = torch.stack([shard.keep.sum(), (~shard.keep).sum(), shard.ids.new_tensor(len(queries["ids"]))])
        return self._conclude(found, *ranks.total(given).tolist())

    def _retrieve(
        self, ranks: Alone, queries: Columns, asking: Tensor, shard: Shard
    ) -> Iterator[tuple[Columns, Candidates, Tensor]]:
        """Yield the queries of one rank after another, their best captions, and what these mention."""
        for asked in rounds(ranks, queries, asking):
            yield asked, *search_shards(ranks, asked["embeddings"], shard, self.top_k[-1], self.chunk_size)

    def _score(self, queries: Columns, best: Candidates, mentions: Tensor, num_relevant: Tensor) -> Columns:
        relevant = relevance(mentions, queries["removed"], queries["kept"], self.kept)
        values = {
            f"ODmAP@{cut}": 100 * average_precision(relevant, cut, self.normalize, num_relevant) for cut in self.top_k
        }
        missing = best.scores.isneginf()
        rates = hallucination_rate(mentions, queries["removed"], self.top_k, retrieved=(~missing).sum(dim=1))
        return {
            **{name: queries[name] for name in ("ids", "removed", "kept")},
            "num_relevant": num_relevant,
            "retrieved_ids": torch.where(missing, NO_CAPTION, best.ids),
            "retrieved_scores": best.scores,
            "retrieved_mentions": mentions,
            "relevant": relevant,
            "hallucinated": hallucinated(mentions, queries["removed"]),
            **values,
            **{f"hallucinated@{cut}": 100 * rate for cut, rate in rates.items()},
        }

    def _conclude(self, found: list[Columns], gallery: int, repeated: int, queries: int) -> dict[str, Tensor]:
        """Join the rounds in the order of query ids and keep them for `per_query` and `summary`."""
        joined = {name: torch.cat([part[name] for part in found]) for name in found[0]}
        order = joined["ids"].argsort()
        self._per_query = {name: rows_of[order] for name, rows_of in joined.items()}
        distinct = len(order)
        hubs = hubness(joined["retrieved_ids"], gallery, self.top_k)
        self._summary = {
            **{f"hallucinated@{cut}": float(joined[f"hallucinated@{cut}"].mean()) for cut in self.top_k},
            "hubs/distinct@1": 100 * hubs.distinct_top1,
            **{f"hubs/skewness@{cut}": value for cut, value in hubs.skewness.items()},
            "ODmAP/queries": float(distinct),
            "ODmAP/gallery": float(gallery),
            "ODmAP/unanswerable": 100 * int((joined["num_relevant"] == 0).sum()) / distinct,
            "ODmAP/repeated": float(repeated + queries - distinct),
        }
        return {name: values.mean() for name, values in self._per_query.items() if name.startswith("ODmAP@")}


def _shard(ranks: Alone, gallery: dict[str, list[Tensor]]) -> Shard:
    ids, mentions = torch.cat(gallery["ids"]), torch.cat(gallery["mentions"])
    keep = first_seen(ranks, "gallery", ids, {"embeddings": gallery["embeddings"], "mentions": mentions})
    return Shard(gallery["embeddings"], ids, keep, payload=mentions)


def _check_fit(gallery: dict[str, list[Tensor]], queries: Columns) -> None:
    for one, other in (("removed", "mentions"), ("kept", "mentions"), ("embeddings", "embeddings")):
        asked, held = queries[one].shape[1], gallery[other][0].shape[1]
        if asked != held:
            raise ValueError(f"{one} of the queries have {asked} columns, {other} of the gallery have {held}.")
