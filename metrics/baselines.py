"""Reference rows for ODmAP@k that need no model, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from metrics.checks import check_choice, check_ids, check_masks, check_top_k
from metrics.distributed import Alone
from metrics.functional.odmap import KEPT_RULES, KeptRule, expected_average_precision, relevance
from metrics.masks import count_relevant, distinct_rows
from metrics.repeats import first_seen
from metrics.sharded import Columns, ShardedMetric, rounds


class ODmAPBaselines(ShardedMetric):
    """What ODmAP@k (divided by k) is worth without looking at the query, in per cent (0 to 100).

    `random` is the expectation when the whole gallery is ranked at random. `own_captions` is the expectation when the
    n captions of the image that the query was made from are returned in random order; there k is cut at n. A model
    that ignores the missing object scores about as high as `own_captions`. A query whose source has no caption in the
    gallery counts as 0.

    Repeated rows are recognised by their id and counted once; an id that comes again with other contents is an error
    of `compute`. The gallery stays on the rank that saw it.

    Args:
        top_k: One cut k or several.
        kept: "any" kept class makes a caption relevant, or "all" are needed.
        process_group: Ranks to work with; None is the whole world.

    Raises:
        TypeError: A cut is no integer.
        ValueError: A cut is not positive, or `kept` is unknown.

    Example:
        >>> import torch
        >>> dog, frisbee = torch.eye(2).bool()
        >>> baselines = ODmAPBaselines(top_k=1)
        >>> captions = torch.stack([dog | frisbee, frisbee, dog, dog])
        >>> baselines.update_gallery(captions, image_ids=torch.tensor([1, 1, 2, 2]), ids=torch.tensor([10, 11, 12, 13]))
        >>> baselines.update(dog[None], frisbee[None], source_ids=torch.tensor([1]), ids=torch.tensor([7]))
        >>> baselines.compute()
        {'random/ODmAP@1': tensor(25.), 'own_captions/ODmAP@1': tensor(50.)}
        >>> baselines.per_query()["num_relevant"]
        tensor([1])
    """

    _batch_tables: ClassVar[tuple[str, ...]] = ("queries",)

    def __init__(
        self, top_k: int | Sequence[int] = (1, 5, 10), kept: KeptRule = "any", process_group: Any = None
    ) -> None:
        super().__init__(process_group)
        self.top_k = check_top_k(top_k)
        check_choice("kept", kept, KEPT_RULES)
        self.kept: KeptRule = kept
        self._per_query: Columns | None = None
        self._add_table("gallery", "mentions", "image_ids", "ids")
        self._add_table("queries", "removed", "kept", "source_ids", "ids")

    def update_gallery(self, mentions: Tensor, image_ids: Tensor, ids: Tensor) -> None:
        """Add captions to the gallery.

        Args:
            mentions: `[G, C]` bool, classes that each caption mentions.
            image_ids: `[G]` integers, the image that each caption describes.
            ids: `[G]` integers, caption ids.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit.
        """
        check_masks(len(mentions), mentions=mentions)
        check_ids(len(mentions), image_ids=image_ids, ids=ids)
        self._update_count += 1
        self._append("gallery", mentions=mentions, image_ids=image_ids.long(), ids=ids.long())

    def update(self, removed: Tensor, kept: Tensor, source_ids: Tensor, ids: Tensor) -> None:
        """Add queries.

        Args:
            removed: `[Q, C]` bool, classes taken out of each image.
            kept: `[Q, C]` bool, classes still in it.
            source_ids: `[Q]` integers, the image that each query was made from.
            ids: `[Q]` integers, query ids.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit.
        """
        check_masks(len(removed), removed=removed, kept=kept)
        check_ids(len(removed), source_ids=source_ids, ids=ids)
        self._append("queries", removed=removed, kept=kept, source_ids=source_ids.long(), ids=ids.long())

    def per_query(self) -> Columns:
        """Return what the last `compute` (or `forward`) found for every query, ascending by query id.

        Returns:
            `ids [Q]`, `source_ids [Q]`, `num_relevant [Q]` (relevant captions in the gallery), and for every cut
            `random/ODmAP@k [Q]` and `own_captions/ODmAP@k [Q]` in per cent. After `compute` equal on all ranks.

        Raises:
            RuntimeError: `compute` was not called since the start or the last `reset`.
        """
        if self._per_query is None:
            raise RuntimeError("ODmAPBaselines has no values per query yet: call compute first.")
        return self._per_query

    def reset(self) -> None:
        """Forget all rows and results."""
        super().reset()
        self._per_query = None

    def _evaluate(self, ranks: Alone) -> dict[str, Tensor]:
        shards = self._shards(ranks)
        gallery, queries = ({name: torch.cat(parts) for name, parts in table.items()} for table in shards.values())
        _check_fit(gallery, queries)
        present, asking = (
            _first_rows(ranks, name, rows) for name, rows in (("gallery", gallery), ("queries", queries))
        )
        gallery = {name: rows[present] for name, rows in gallery.items()}
        size = int(ranks.total(present.sum()))
        patterns = distinct_rows(gallery["mentions"])
        found = []
        for asked in rounds(ranks, queries, asking):
            everywhere = count_relevant(patterns[0], asked["removed"], asked["kept"], self.kept, patterns[1])
            counts = ranks.total(torch.stack([everywhere, *_count_own(gallery, asked, self.kept)]))
            found.append(self._score(asked, counts, size))
        joined = {name: torch.cat([part[name] for part in found]) for name in found[0]}
        order = joined["ids"].argsort()
        self._per_query = {name: rows[order] for name, rows in joined.items()}
        return {name: values.mean() for name, values in self._per_query.items() if "ODmAP@" in name}

    def _score(self, queries: Columns, counts: Tensor, size: int) -> Columns:
        relevant, own_relevant, own = counts
        by_chance = {f"random/ODmAP@{k}": 100 * expected_average_precision(relevant, size, k) for k in self.top_k}
        by_source = {
            f"own_captions/ODmAP@{k}": 100 * expected_average_precision(own_relevant, own, k) * k / own.clamp(1, k)
            for k in self.top_k
        }
        described = {"ids": queries["ids"], "source_ids": queries["source_ids"], "num_relevant": relevant}
        return described | by_chance | by_source


def _first_rows(ranks: Alone, name: str, rows: Columns) -> Tensor:
    return first_seen(ranks, name, rows["ids"], {column: rows[column] for column in rows if column != "ids"})


def _count_own(gallery: Columns, queries: Columns, kept_rule: KeptRule) -> tuple[Tensor, Tensor]:
    """Count the relevant captions of the source images, and all their captions, `[Q]` each."""
    asking, captions = _own_captions(queries["source_ids"], gallery["image_ids"])
    mentions = gallery["mentions"][captions, None]
    relevant = relevance(mentions, queries["removed"][asking], queries["kept"][asking], kept_rule)[:, 0]
    asked = len(queries["source_ids"])
    return asking[relevant].bincount(minlength=asked), asking.bincount(minlength=asked)


def _own_captions(source_ids: Tensor, image_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Pair every query with the captions of its source image: `[P]` query rows and `[P]` caption rows."""
    ordered, order = source_ids.sort()
    first = torch.searchsorted(ordered, image_ids)
    repeats = torch.searchsorted(ordered, image_ids, right=True) - first
    captions = torch.arange(len(image_ids), device=image_ids.device).repeat_interleave(repeats)
    starts = (repeats.cumsum(0) - repeats)[captions]
    within = torch.arange(len(captions), device=image_ids.device) - starts
    return order[first[captions] + within], captions


def _check_fit(gallery: Columns, queries: Columns) -> None:
    asked, held = queries["removed"].shape[1], gallery["mentions"].shape[1]
    if asked != held:
        raise ValueError(f"removed and kept of the queries have {asked} classes, mentions of the gallery have {held}.")
