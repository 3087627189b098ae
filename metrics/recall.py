"""Recall@k and ranks of image-text retrieval in both directions, for any number of captions per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from metrics.checks import check_count, check_embeddings, check_ids, check_tensor, check_top_k
from metrics.distributed import Alone
from metrics.rank_counting import CHUNK_SIZE, Items, MatchRanks, rank_best_matches
from metrics.repeats import first_seen
from metrics.sharded import Columns, ShardedMetric

NO_CAPTION_ID = -1
NO_FOLD = -1
_FOLDS_MISSING = -2


class RetrievalRecall(ShardedMetric):
    """Share of queries with a match among the first k results, in per cent (0 to 100), and ranks, in both directions.

    Image to text (`i2t`): an image is a hit when any of its captions is among the first k captions. Text to image
    (`t2i`): a caption is a hit when its image is among the first k images. The rank of a query, from 1, is that of its
    best match; its other matches do not stand in the way. Queries without a match (an image without captions, a caption
    whose image was not given) are misses at every k, and their rank is one more than the size of the gallery; such
    captions still take part in the gallery.

    Ties are pessimistic: a wrong item that scores as high as the best match stands before it. Any rule that orders
    ties by id or position can, by luck, favour the matches; this one gives for every query the least value over all
    orders of its ties, so an encoder that maps everything to one point never exceeds chance.

    Folds, where images have them, are scored on their own: the images and captions of one fold alone, in both
    directions, then the mean over the folds (COCO's "1K" figures are the mean over five folds of 1,000 images).

    Repeated images are recognised by image id, repeated captions by caption id where those are given; each counts
    once, within a rank and across ranks. Images and captions stay on the rank that saw them; ranks exchange some
    queries at a time, the scores of their best matches, and counts (`metrics.rank_counting`).

    Args:
        top_k: One cut k or several.
        chunk_size: Gallery rows per product.
        process_group: Ranks to work with; None is the whole world.

    Raises:
        TypeError: A cut is no integer.
        ValueError: A cut or `chunk_size` is not positive.

    Example:
        >>> import torch
        >>> metric = RetrievalRecall(top_k=1)
        >>> metric.update_images(torch.eye(2), image_ids=torch.tensor([1, 2]))
        >>> metric.update_captions(torch.tensor([[1.0, 0], [0.8, 0.6], [0.7, 0.1]]), image_ids=torch.tensor([1, 2, 2]))
        >>> values = metric.compute()
        >>> values["i2t/R@1"], values["t2i/R@1"], values["rsum"], values["t2i/mean_rank"]
        (tensor(100.), tensor(33.3333), tensor(133.3333), tensor(1.6667))
        >>> metric.per_query()["t2i"]["ranks"]
        tensor([1, 2, 2])
    """

    _batch_tables: ClassVar[tuple[str, ...]] = ("images", "captions")

    def __init__(
        self, top_k: int | Sequence[int] = (1, 5, 10), chunk_size: int = CHUNK_SIZE, process_group: Any = None
    ) -> None:
        super().__init__(process_group)
        self.top_k = check_top_k(top_k)
        check_count("chunk_size", chunk_size)
        self.chunk_size = chunk_size
        self._per_query: dict[str, Columns] | None = None
        self._add_table("images", "embeddings", "image_ids", "folds")
        self._add_table("captions", "embeddings", "image_ids", "ids")

    def update_images(self, embeddings: Tensor, image_ids: Tensor, folds: Tensor | None = None) -> None:
        """Add images.

        Args:
            embeddings: `[N, D]` float32, bfloat16, float16 or float64.
            image_ids: `[N]` integers.
            folds: `[N]` integers from 0, the fold of each image, -1 for none. All images have them, or none.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit, a fold is below -1, or an embedding is not finite.
        """
        check_tensor("image_ids", image_ids)
        if folds is not None:
            check_tensor("folds", folds)
        if folds is not None and (folds < NO_FOLD).any():
            raise ValueError(f"folds must count from 0, or be -1 for none, got {int(folds.min())}.")
        folds = torch.full_like(image_ids, _FOLDS_MISSING, dtype=torch.int64) if folds is None else folds
        self._add("images", embeddings, image_ids=image_ids, folds=folds)

    def update_captions(self, embeddings: Tensor, image_ids: Tensor, ids: Tensor | None = None) -> None:
        """Add captions.

        Args:
            embeddings: `[M, D]` floating point, D as for the images.
            image_ids: `[M]` integers, the image that each caption describes.
            ids: `[M]` integers from 0, caption ids, to recognise repeated captions; without them every row counts.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit, a caption id is negative, or an embedding is not finite.
        """
        check_tensor("image_ids", image_ids)
        if ids is not None:
            check_tensor("ids", ids)
        if ids is not None and (ids < 0).any():
            raise ValueError(f"ids of captions must not be negative, got {int(ids.min())}.")
        ids = torch.full_like(image_ids, NO_CAPTION_ID, dtype=torch.int64) if ids is None else ids
        self._add("captions", embeddings, image_ids=image_ids, ids=ids)

    def update(
        self,
        image_embeddings: Tensor,
        image_ids: Tensor,
        caption_embeddings: Tensor,
        caption_image_ids: Tensor,
        caption_ids: Tensor | None = None,
        folds: Tensor | None = None,
    ) -> None:
        """Add images and captions in one call: `update_images`, then `update_captions`.

        Args:
            image_embeddings: `[N, D]` floating point.
            image_ids: `[N]` integers.
            caption_embeddings: `[M, D]` floating point.
            caption_image_ids: `[M]` integers, the image that each caption describes.
            caption_ids: `[M]` integers from 0, or None.
            folds: `[N]` integers, or None.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit, a caption id is negative, a fold is below -1, or an embedding is not finite.
        """
        self.update_images(image_embeddings, image_ids, folds)
        self.update_captions(caption_embeddings, caption_image_ids, caption_ids)

    def compute(self) -> dict[str, Tensor]:
        """Compute the values over all rows of all ranks; every rank must call it and gets the same.

        Returns:
            `i2t/R@k` for every cut, `i2t/median_rank` (midway between the two middle ones of an even number),
            `i2t/mean_rank`, the same under `t2i/`, and `rsum`, the sum of the recalls of both directions: the usual
            rsum when the cuts are 1, 5 and 10. Where images have folds also `folds/i2t/R@k`, `folds/t2i/R@k` and
            `folds/rsum`, means over the folds that have both images and captions, if there is one.

        Raises:
            ValueError: There are no images or no captions, ranks disagree about width or dtype, an id was given twice
                with different contents, or some images have folds and others do not.
        """
        return super().compute()

    def per_query(self) -> dict[str, Columns]:
        """Return the rank of every query in the last `compute` (or `forward`), over the whole gallery.

        Returns:
            For "i2t" and "t2i": `query_ids [Q]` (the image ids, or the caption ids, -1 where a caption has none),
            `image_ids [Q]` and `ranks [Q]`, all int64, ascending by query id. After `compute` equal on all ranks.

        Raises:
            RuntimeError: `compute` was not called since the start or the last `reset`.
        """
        if self._per_query is None:
            raise RuntimeError("RetrievalRecall has no values per query yet: call compute first.")
        return self._per_query

    def reset(self) -> None:
        """Forget all rows and results."""
        super().reset()
        self._per_query = None

    def _add(self, table: str, embeddings: Tensor, **integers: Tensor) -> None:
        check_embeddings(embeddings, integers["image_ids"])
        check_ids(len(embeddings), **integers)
        self._update_count += 1
        if len(embeddings):
            self._append(table, embeddings=embeddings, **{name: values.long() for name, values in integers.items()})

    def _evaluate(self, ranks: Alone) -> dict[str, Tensor]:
        shards = self._shards(ranks)
        _check_width(shards["images"]["embeddings"][0], shards["captions"]["embeddings"][0])
        folds = _folds(ranks, torch.cat(shards["images"].pop("folds")))
        images = _images(ranks, folds=folds, **shards["images"])
        captions = _captions(ranks, **shards["captions"])
        found = self._both_ways(ranks, images, captions)
        self._per_query = {way: _by_id(queries) for way, queries in found.items()}
        return self._recalls(found) | _middle_ranks(found) | self._mean_over_folds(ranks, images, captions, folds)

    def _both_ways(self, ranks: Alone, images: Items, captions: Items) -> dict[str, MatchRanks]:
        return {
            "i2t": rank_best_matches(ranks, images, captions, self.chunk_size),
            "t2i": rank_best_matches(ranks, captions, images, self.chunk_size),
        }

    def _recalls(self, found: dict[str, MatchRanks]) -> dict[str, Tensor]:
        values = {f"{way}/R@{k}": queries.recall(k) for way, queries in found.items() for k in self.top_k}
        return values | {"rsum": torch.stack(list(values.values())).sum()}

    def _mean_over_folds(self, ranks: Alone, images: Items, captions: Items, folds: Tensor | None) -> dict[str, Tensor]:
        if folds is None:
            return {}
        values = [self._recalls(self._both_ways(ranks, *pair)) for pair in _each_fold(ranks, images, captions, folds)]
        return {f"folds/{name}": torch.stack([one[name] for one in values]).mean() for name in (values or [{}])[0]}


def _check_width(images: Tensor, captions: Tensor) -> None:
    one, other = images.shape[1], captions.shape[1]
    if one != other:
        raise ValueError(f"embeddings of the images have {one} columns, those of the captions have {other}.")


def _folds(ranks: Alone, folds: Tensor) -> Tensor | None:
    """Return the folds if all images of all ranks have them, None if none has."""
    missing = folds == _FOLDS_MISSING
    lacking, given = ranks.total(torch.stack([missing.sum(), (~missing).sum()])).tolist()
    if lacking and given:
        raise ValueError(
            f"folds: {given} images have a fold and {lacking} have none; give folds for all images or none."
        )
    return folds if given else None


def _images(ranks: Alone, embeddings: list[Tensor], image_ids: list[Tensor], folds: Tensor | None) -> Items:
    ids = torch.cat(image_ids)
    contents = {"embeddings": embeddings} if folds is None else {"embeddings": embeddings, "folds": [folds]}
    return Items(embeddings, ids, ids, _positions(first_seen(ranks, "images", ids, contents)))


def _captions(ranks: Alone, embeddings: list[Tensor], image_ids: list[Tensor], ids: list[Tensor]) -> Items:
    given, owners = torch.cat(ids), torch.cat(image_ids)
    stand_in = -1 - ranks.rank - ranks.size * torch.arange(len(given), device=given.device)
    distinct = torch.where(given == NO_CAPTION_ID, stand_in, given)
    keep = first_seen(ranks, "captions", distinct, {"embeddings": embeddings, "image_ids": owners})
    return Items(embeddings, given, owners, _positions(keep))


def _positions(keep: Tensor) -> Tensor:
    return keep.nonzero()[:, 0]


def _each_fold(ranks: Alone, images: Items, captions: Items, folds: Tensor) -> Iterator[tuple[Items, Items]]:
    """Yield images and captions of every fold that has both, on every rank."""
    mine = torch.stack([images.ids, folds], dim=1)[images.rows]
    table = torch.cat([ranks.broadcast(mine, source) for source in range(ranks.size)])
    caption_folds = _look_up(captions.image_ids, *table.unbind(dim=1))
    on_ranks = ranks.gather_objects(torch.unique(caption_folds[captions.rows]).tolist())
    for fold in sorted(set().union(*on_ranks) - {NO_FOLD}):
        yield images.only(folds == fold), captions.only(caption_folds == fold)


def _look_up(image_ids: Tensor, known: Tensor, folds: Tensor) -> Tensor:
    """Return the fold of every image id, `NO_FOLD` where the image is not known."""
    ordered, order = known.sort()
    places = torch.searchsorted(ordered, image_ids).clamp(max=len(ordered) - 1)
    return torch.where(ordered[places] == image_ids, folds[order][places], NO_FOLD)


def _middle_ranks(found: dict[str, MatchRanks]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for way, queries in found.items():
        ranks = queries.ranks.double()
        values |= {f"{way}/median_rank": ranks.quantile(0.5).float(), f"{way}/mean_rank": ranks.mean().float()}
    return values


def _by_id(queries: MatchRanks) -> Columns:
    order = queries.query_ids.argsort(stable=True)
    columns = {"query_ids": queries.query_ids, "image_ids": queries.image_ids, "ranks": queries.ranks}
    return {name: values[order] for name, values in columns.items()}
