"""Recall@k of image-text retrieval in both directions, for any number of captions per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from metrics.checks import check_count, check_embeddings, check_ids, check_top_k
from metrics.distributed import Alone
from metrics.search import CHUNK_SIZE
from metrics.sharded import Shard, ShardedMetric, rounds, search_shards

NO_CAPTION_ID = -1


class RetrievalRecall(ShardedMetric):
    """Share of queries with a match among the first k results, in per cent (0 to 100), in both directions.

    Image to text (`i2t`): an image is a hit when any of its captions is among the first k captions. Text to image
    (`t2i`): a caption is a hit when its image is among the first k images. Misses that are counted: an image without
    captions, and a caption whose image was not given (it still takes part in the gallery of captions).

    Ties are pessimistic: a wrong item that scores as high as the best match stands before it. Any rule that orders
    ties by id or position can, by luck, favour the matches; this one gives for every query the least value over all
    orders of its ties, so an encoder that maps everything to one point never exceeds chance.

    Repeated images are recognised by image id, repeated captions by caption id where those are given; each counts
    once, within a rank and across ranks. Images and captions stay on the rank that saw them; ranks exchange one
    rank's queries at a time and their best candidates.

    Args:
        top_k: One cut k or several.
        chunk_size: Gallery rows per product; bounds the memory beyond the embeddings themselves.
        process_group: Ranks to work with; None is the whole world.

    Raises:
        TypeError: A cut is no integer.
        ValueError: A cut or `chunk_size` is not positive.

    Example:
        >>> import torch
        >>> metric = RetrievalRecall(top_k=1)
        >>> metric.update_images(torch.eye(2), image_ids=torch.tensor([1, 2]))
        >>> metric.update_captions(torch.tensor([[1.0, 0], [0.8, 0.6], [0.7, 0.1]]), image_ids=torch.tensor([1, 2, 2]))
        >>> metric.compute()
        {'i2t/R@1': tensor(100.), 't2i/R@1': tensor(33.3333), 'rsum': tensor(133.3333)}
    """

    _batch_tables: ClassVar[tuple[str, ...]] = ("images", "captions")

    def __init__(
        self, top_k: int | Sequence[int] = (1, 5, 10), chunk_size: int = CHUNK_SIZE, process_group: Any = None
    ) -> None:
        super().__init__(process_group)
        self.top_k = check_top_k(top_k)
        check_count("chunk_size", chunk_size)
        self.chunk_size = chunk_size
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
        self._add("images", embeddings, image_ids=image_ids)

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
        if ids is not None and (ids < 0).any():
            raise ValueError(f"ids of captions must not be negative, got {int(ids.min())}.")
        ids = torch.full_like(image_ids, NO_CAPTION_ID) if ids is None else ids
        self._add("captions", embeddings, image_ids=image_ids, ids=ids)

    def update(
        self,
        image_embeddings: Tensor,
        image_ids: Tensor,
        caption_embeddings: Tensor,
        caption_image_ids: Tensor,
        caption_ids: Tensor | None = None,
    ) -> None:
        """Add images and captions in one call: `update_images`, then `update_captions`.

        Args:
            image_embeddings: `[N, D]` floating point.
            image_ids: `[N]` integers.
            caption_embeddings: `[M, D]` floating point.
            caption_image_ids: `[M]` integers, the image that each caption describes.
            caption_ids: `[M]` integers from 0, or None.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit, a caption id is negative, or an embedding is not finite.
        """
        self.update_images(image_embeddings, image_ids)
        self.update_captions(caption_embeddings, caption_image_ids, caption_ids)

    def _add(self, table: str, embeddings: Tensor, **ids: Tensor) -> None:
        check_embeddings(embeddings, ids["image_ids"])
        check_ids(len(embeddings), **ids)
        self._update_count += 1
        self._append(table, embeddings=embeddings, **{name: values.long() for name, values in ids.items()})

    def _evaluate(self, ranks: Alone) -> dict[str, Tensor]:
        shards = self._shards(ranks)
        images = _Side.of(shards["images"], key="image_ids")
        captions = _Side.of(shards["captions"], key="ids")
        _check_fit(images, captions)
        kept_images = ranks.first_seen(images.ids)
        kept_captions = ranks.first_seen(captions.ids) | (captions.ids == NO_CAPTION_ID)
        i2t = self._recall(ranks, images, kept_images, captions, kept_captions)
        t2i = self._recall(ranks, captions, kept_captions, images, kept_images)
        values = {f"i2t/R@{k}": value for k, value in i2t.items()} | {f"t2i/R@{k}": value for k, value in t2i.items()}
        return values | {"rsum": torch.stack(list(values.values())).sum()}

    def _recall(
        self, ranks: Alone, queries: _Side, asking: Tensor, gallery: _Side, present: Tensor
    ) -> dict[int, Tensor]:
        hits = []
        columns = {"embeddings": torch.cat(queries.embeddings), "image_ids": queries.image_ids}
        for asked in rounds(ranks, columns, asking):
            matches = ranks.total(_count_matches(asked["image_ids"], gallery.image_ids[present]))
            # Deep enough that max(top_k) wrong items are seen even where every match ties with them.
            depth = self.top_k[-1] + int(matches.max() if len(matches) else 0)
            shard = Shard(gallery.embeddings, gallery.ids, present, payload=gallery.image_ids)
            best, image_ids = search_shards(ranks, asked["embeddings"], shard, depth, self.chunk_size)
            hits.append(_hits(best.scores, image_ids == asked["image_ids"][:, None], self.top_k))
        per_query = torch.cat(hits)
        return {k: 100 * column.float().mean() for k, column in zip(self.top_k, per_query.T, strict=True)}


class _Side(NamedTuple):
    """Images or captions of this rank: embeddings in parts, own ids and the ids of the images they belong to."""

    embeddings: list[Tensor]
    ids: Tensor
    image_ids: Tensor

    @classmethod
    def of(cls, table: dict[str, list[Tensor]], key: str) -> _Side:
        return cls(table["embeddings"], torch.cat(table[key]), torch.cat(table["image_ids"]))


def _check_fit(images: _Side, captions: _Side) -> None:
    one, other = images.embeddings[0].shape[1], captions.embeddings[0].shape[1]
    if one != other:
        raise ValueError(f"embeddings of the images have {one} columns, those of the captions have {other}.")


def _hits(scores: Tensor, matching: Tensor, top_k: Sequence[int]) -> Tensor:
    """Return `[Q, len(top_k)]` bool: fewer than k wrong items score at least as high as the best match."""
    present = scores > -torch.inf
    matching = matching & present
    best_match = scores.masked_fill(~matching, -torch.inf).max(dim=1, keepdim=True).values
    ahead = (present & ~matching & (scores >= best_match)).sum(dim=1, keepdim=True)
    return matching.any(dim=1, keepdim=True) & (ahead < torch.tensor(top_k, device=scores.device))


def _count_matches(image_ids: Tensor, gallery_image_ids: Tensor) -> Tensor:
    """Return how many gallery rows belong to each image, `[Q]` int64."""
    ordered = gallery_image_ids.sort().values
    return torch.searchsorted(ordered, image_ids, right=True) - torch.searchsorted(ordered, image_ids)
