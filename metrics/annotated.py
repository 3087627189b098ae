"""Recall@k and mAP@R against given positives, such as those of ECCV Caption and CxC."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from numbers import Integral
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from metrics.checks import check_count, check_embeddings, check_ids, check_top_k
from metrics.distributed import Alone
from metrics.functional.odmap import average_precision
from metrics.repeats import first_seen
from metrics.search import CHUNK_SIZE, Candidates
from metrics.sharded import Columns, Shard, ShardedMetric, rounds, search_shards

_NO_VALUES = ("query_ids", "num_positives")


class NoQueriesError(ValueError):
    """None of the annotated queries was given, as where they belong to another split."""


class AnnotatedRetrieval(ShardedMetric):
    """Retrieval in both directions where people said what matches what, in per cent (0 to 100).

    Image to text (`i2t`) and text to image (`t2i`), each over the queries that were annotated. With R distinct
    positives of a query and `rel(i)` saying that rank i is one of them:

    - `R@k`: a positive is among the first k;
    - `R-Precision`: the share of positives among the first R;
    - `mAP@R`: `1/R * sum over i <= R of rel(i) * precision(i)`.

    Ranking is by dot product in the whole gallery, ties by ascending id. Annotated queries that were not given are
    left out, and `summary` counts them; a positive that the gallery lacks counts in R and cannot be found. So a run
    over a part of the split is comparable with nothing but itself.

    It is filled as `RetrievalRecall` is, with the same tensors, which are not copied. Repeated rows are recognised by
    their id and counted once, within a rank and across ranks. Images and captions stay on the rank that saw them.

    Source: Musgrave et al. 2020, "A Metric Learning Reality Check", section 3.2 (R-Precision, MAP@R); Chun et al.
    2022, "ECCV Caption" (mAP@R); Parekh et al. 2021, "Crisscrossed Captions" (CxC, whose measure is Recall@k).

    Args:
        i2t: For each annotated image id the ids of its positive captions; a repeated id counts once.
        t2i: For each annotated caption id the ids of its positive images.
        top_k: One cut k or several.
        chunk_size: Gallery rows per product; bounds the memory beyond the embeddings themselves.
        process_group: Ranks to work with; None is the whole world. All have the same positives.

    Raises:
        TypeError: A cut or an id is no integer.
        ValueError: A cut or `chunk_size` is not positive, or positives are missing.

    Example:
        >>> import torch
        >>> metric = AnnotatedRetrieval(i2t={1: [10, 11]}, t2i={10: [1], 12: [1, 2]}, top_k=1)
        >>> metric.update_images(torch.eye(2), image_ids=torch.tensor([1, 2]))
        >>> captions = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
        >>> metric.update_captions(captions, image_ids=torch.tensor([1, 1, 2]), ids=torch.tensor([10, 11, 12]))
        >>> {name: value.item() for name, value in metric.compute().items() if name.startswith("i2t")}
        {'i2t/R@1': 100.0, 'i2t/mAP@R': 50.0, 'i2t/R-Precision': 50.0}
    """

    _batch_tables: ClassVar[tuple[str, ...]] = ("images", "captions")

    def __init__(
        self,
        i2t: Mapping[int, Sequence[int]],
        t2i: Mapping[int, Sequence[int]],
        top_k: int | Sequence[int] = (1, 5, 10),
        chunk_size: int = CHUNK_SIZE,
        process_group: Any = None,
    ) -> None:
        super().__init__(process_group)
        self.top_k = check_top_k(top_k)
        check_count("chunk_size", chunk_size)
        self.chunk_size = chunk_size
        self._positives = {"i2t": _Positives.of("i2t", i2t), "t2i": _Positives.of("t2i", t2i)}
        self._per_query: dict[str, Columns] | None = None
        self._summary: dict[str, float] = {}
        self._add_table("images", "embeddings", "image_ids")
        self._add_table("captions", "embeddings", "image_ids", "ids")

    def update_images(self, embeddings: Tensor, image_ids: Tensor) -> None:
        """Add images.

        Args:
            embeddings: `[N, D]` float32, bfloat16, float16 or float64.
            image_ids: `[N]` integers.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit, or an embedding is not finite.
        """
        self._add("images", embeddings, image_ids, image_ids=image_ids)

    def update_captions(self, embeddings: Tensor, image_ids: Tensor, ids: Tensor) -> None:
        """Add captions.

        Args:
            embeddings: `[M, D]` floating point, D as for the images.
            image_ids: `[M]` integers, the image that each caption describes; a repeated caption must repeat it.
            ids: `[M]` integers, caption ids.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit, or an embedding is not finite.
        """
        self._add("captions", embeddings, ids, image_ids=image_ids, ids=ids)

    def update(
        self,
        image_embeddings: Tensor,
        image_ids: Tensor,
        caption_embeddings: Tensor,
        caption_image_ids: Tensor,
        caption_ids: Tensor,
    ) -> None:
        """Add images and captions in one call: `update_images`, then `update_captions`.

        Args:
            image_embeddings: `[N, D]` floating point.
            image_ids: `[N]` integers.
            caption_embeddings: `[M, D]` floating point.
            caption_image_ids: `[M]` integers, the image that each caption describes.
            caption_ids: `[M]` integers.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit, or an embedding is not finite.
        """
        self.update_images(image_embeddings, image_ids)
        self.update_captions(caption_embeddings, caption_image_ids, caption_ids)

    def per_query(self) -> dict[str, Columns]:
        """Return what the last `compute` (or `forward`) found for every scored query, ascending by query id.

        Returns:
            For "i2t" and "t2i": `query_ids [Q]`, `num_positives [Q]` (R), and in per cent `R@k [Q]` for every cut,
            `mAP@R [Q]` and `R-Precision [Q]`. After `compute` equal on all ranks.

        Raises:
            RuntimeError: `compute` was not called since the start or the last `reset`.
        """
        if self._per_query is None:
            raise RuntimeError("AnnotatedRetrieval has no values per query yet: call compute first.")
        return self._per_query

    def summary(self) -> dict[str, float]:
        """Return the size of what the last `compute` scored; empty before it.

        Returns:
            For "i2t" and "t2i": `i2t/queries`, `i2t/absent_queries` (annotated, but not given) and
            `i2t/absent_positives` (matches of the scored queries that the gallery lacks).
        """
        return self._summary

    def reset(self) -> None:
        """Forget all rows and results; the positives stay."""
        super().reset()
        self._per_query = None
        self._summary = {}

    def _add(self, table: str, embeddings: Tensor, own_ids: Tensor, **ids: Tensor) -> None:
        check_ids(len(embeddings), **ids)
        check_embeddings(embeddings, own_ids)
        self._update_count += 1
        self._append(table, embeddings=embeddings, **{name: values.long() for name, values in ids.items()})

    def _evaluate(self, ranks: Alone) -> dict[str, Tensor]:
        shards = self._shards(ranks)
        images = _shard(ranks, "images", shards["images"], key="image_ids")
        captions = _shard(ranks, "captions", shards["captions"], key="ids")
        one, other = images.embeddings[0].shape[1], captions.embeddings[0].shape[1]
        if one != other:
            raise ValueError(f"embeddings of the images have {one} columns, those of the captions have {other}.")
        sides = {"i2t": (images, captions), "t2i": (captions, images)}
        results: dict[str, Columns] = {}
        summary: dict[str, float] = {}
        values: dict[str, Tensor] = {}
        for direction, (queries, gallery) in sides.items():
            positives = self._positives[direction].to(gallery.ids.device)
            found = self._search(ranks, positives, queries, gallery)
            if not len(found["query_ids"]):
                raise NoQueriesError(f"None of the {len(positives.queries)} queries that {direction} names was given.")
            counts = positives.tally(ranks, found["query_ids"], gallery.ids[gallery.keep])
            results[direction] = found
            summary |= {f"{direction}/{name}": float(count) for name, count in counts.items()}
            values |= {f"{direction}/{name}": found[name].mean() for name in found if name not in _NO_VALUES}
        self._per_query, self._summary = results, summary
        return values

    def _search(self, ranks: Alone, positives: _Positives, queries: Shard, gallery: Shard) -> Columns:
        """Score the annotated queries of all ranks, and put them in the order of their ids."""
        depth = max(self.top_k[-1], int(positives.totals.max()))
        asking = queries.keep & torch.isin(queries.ids, positives.queries)
        chosen = zip(queries.embeddings, torch.split(asking, [len(part) for part in queries.embeddings]), strict=True)
        columns = {"embeddings": torch.cat([part[rows] for part, rows in chosen]), "ids": queries.ids[asking]}
        found = []
        for asked in rounds(ranks, columns, keep=torch.ones_like(columns["ids"], dtype=torch.bool)):
            best, present = search_shards(ranks, asked["embeddings"], gallery, depth, self.chunk_size)
            found.append(self._score(positives, asked["ids"], best, present))
        joined = {name: torch.cat([part[name] for part in found]) for name in found[0]}
        order = joined["query_ids"].argsort()
        return {name: values[order] for name, values in joined.items()}

    def _score(self, positives: _Positives, query_ids: Tensor, best: Candidates, present: Tensor) -> Columns:
        hits = positives.match(query_ids, best.ids) & present
        totals = positives.totals[torch.searchsorted(positives.queries, query_ids)]
        depth = hits.shape[1]
        within = hits & (torch.arange(depth, device=hits.device) < totals[:, None])
        return {
            "query_ids": query_ids,
            "num_positives": totals,
            **{f"R@{k}": 100 * hits[:, :k].any(dim=1).float() for k in self.top_k},
            "mAP@R": 100 * average_precision(within, depth, "all", totals),
            "R-Precision": 100 * within.sum(dim=1) / totals,
        }


class _Positives(NamedTuple):
    """The pairs of one direction, sorted to be looked up.

    Attributes:
        queries: `[Q]` int64 distinct annotated ids, ascending.
        totals: `[Q]` int64 how many positives each has.
        items: `[I]` int64 distinct ids of positives, ascending.
        pairs: `[P]` int64, ascending: place of the query times I, plus place of the item.
    """

    queries: Tensor
    totals: Tensor
    items: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, name: str, positives: Mapping[int, Sequence[int]]) -> _Positives:
        if odd := [items for items in positives.values() if not isinstance(items, Collection)]:
            raise TypeError(f"{name} must map ids to sequences of ids, it holds {odd[0]!r}.")
        lengths = torch.tensor([len(items) for items in positives.values()], dtype=torch.long)
        if not len(lengths) or not lengths.all():
            raise ValueError(f"{name} must name one query or more, each with one positive or more.")
        matches: list[Any] = list(chain(*positives.values()))
        for identity in (*positives, *matches):
            if isinstance(identity, bool) or not isinstance(identity, Integral):
                raise TypeError(f"{name} must map integer ids to sequences of integer ids, it holds {identity!r}.")
        named = torch.tensor([int(query) for query in positives]).repeat_interleave(lengths)
        queries, rows = torch.unique(named, return_inverse=True)
        items, columns = torch.unique(torch.tensor([int(match) for match in matches]), return_inverse=True)
        pairs = torch.unique(rows * len(items) + columns)
        return cls(queries, (pairs // len(items)).bincount(), items, pairs)

    def to(self, device: torch.device) -> _Positives:
        return _Positives(*(tensor.to(device) for tensor in self))

    def match(self, query_ids: Tensor, ids: Tensor) -> Tensor:
        """Say which of the ids `[Q, K]` are positives of annotated queries `[Q]`."""
        rows = torch.searchsorted(self.queries, query_ids)
        columns, known = _find(self.items, ids)
        return known & _find(self.pairs, rows[:, None] * len(self.items) + columns)[1]

    def tally(self, ranks: Alone, scored: Tensor, gallery_ids: Tensor) -> dict[str, int]:
        """Count queries with a score, those without, and positives of the former that no rank has."""
        held = ranks.total(torch.isin(self.items, gallery_ids).long()) > 0
        asked = torch.isin(self.queries, scored)
        absent = asked[self.pairs // len(self.items)] & ~held[self.pairs % len(self.items)]
        return {
            "queries": len(scored),
            "absent_queries": len(self.queries) - len(scored),
            "absent_positives": int(absent.sum()),
        }


def _find(ordered: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the values would stand among ordered ones, and whether they do."""
    places = torch.searchsorted(ordered, values).clamp(max=len(ordered) - 1)
    return places, ordered[places] == values


def _shard(ranks: Alone, name: str, table: dict[str, list[Tensor]], key: str) -> Shard:
    """Return the rows of one side; what comes along with a row says that there is one."""
    ids = torch.cat(table[key])
    contents = {column: parts for column, parts in table.items() if column != key}
    keep = first_seen(ranks, name, ids, contents)
    return Shard(table["embeddings"], ids, keep, payload=keep)
