"""The exact rank of every query's best match, by counting instead of sorting.

The scores of a few queries against the gallery rows of this rank are held at once: a strip. The best match is read from
the strip, then the items that score at least as high are counted there. So one product per pair gives the rank, and
with it every R@k. Ranks of the process group exchange the queries of a strip, their best matches and the counts; the
gallery stays where it is. As in `metrics.search`, products are in float32 (float64 for float64 embeddings) and all of
one shape, so a score depends on the two embeddings alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from metrics.distributed import Alone
from metrics.search import full_precision

CHUNK_SIZE = 1024
_QUERY_ROWS = 256  # of every product
_STRIP_SCORES = 2**24
_STRIP_ROWS = 1024


class Items(NamedTuple):
    """Images or captions of this rank.

    Attributes:
        embeddings: Consecutive parts of `[N, D]` floating point.
        ids: `[N]` int64, their own ids.
        image_ids: `[N]` int64; items with the same image id match.
        rows: `[n]` int64, ascending positions of the items that take part.
    """

    embeddings: Sequence[Tensor]
    ids: Tensor
    image_ids: Tensor
    rows: Tensor

    def only(self, chosen: Tensor) -> Items:
        """Keep those that take part and are marked in `chosen`, `[N]` bool; nothing is copied."""
        return self._replace(rows=self.rows[chosen[self.rows]])


class MatchRanks(NamedTuple):
    """The rank of the best match of every query, equal on all ranks of the process group.

    Attributes:
        query_ids: `[Q]` int64.
        image_ids: `[Q]` int64.
        ranks: `[Q]` int64 from 1; `gallery + 1` for a query without a match.
        gallery: Number of items that were ranked.
    """

    query_ids: Tensor
    image_ids: Tensor
    ranks: Tensor
    gallery: int

    def recall(self, k: int) -> Tensor:
        """Return the share of queries with a match among the first k items, in per cent; NaN without queries."""
        return 100 * (self.ranks <= min(k, self.gallery)).float().mean()


def rank_best_matches(ranks: Alone, queries: Items, gallery: Items, chunk_size: int = CHUNK_SIZE) -> MatchRanks:
    """Rank the best match of every query in the gallery of all ranks.

    The rank is 1 + the number of items of other images that score at least as high as the best match (pessimistic
    ties). Memory beyond the inputs: a strip of 16 million scores, or of 256 x the gallery rows of a rank where that is
    more.

    Args:
        ranks: Who takes part; all of them must call it in the same order.
        queries: Queries of this rank.
        gallery: Gallery of this rank, of the same width.
        chunk_size: Gallery rows per product.

    Example:
        >>> import torch
        >>> images = Items([torch.eye(2)], torch.tensor([5, 6]), torch.tensor([5, 6]), torch.arange(2))
        >>> texts = Items([torch.tensor([[1, 0.5], [0, 0.4]])], torch.arange(2), torch.tensor([5, 6]), torch.arange(2))
        >>> rank_best_matches(Alone(), images, texts).ranks
        tensor([1, 2])
    """
    held = [int(rows) for rows in ranks.gather(gallery.rows.new_tensor([len(gallery.rows)]))]
    height = _STRIP_SCORES // max(*held, 1) // _QUERY_ROWS * _QUERY_ROWS
    height = min(max(height, _QUERY_ROWS), _STRIP_ROWS)
    strip = _Strip(queries.embeddings[0].dtype, gallery, height, chunk_size)
    labels, found = [], []
    for label, embeddings in _in_turn(ranks, queries, height):
        labels.append(label)
        found.append(strip.rank(ranks, embeddings, label[:, 1].contiguous()))
    query_ids, image_ids = torch.cat(labels).T.contiguous()
    return MatchRanks(query_ids, image_ids, torch.cat(found), sum(held))


class _Blocks:
    """Chosen rows of a matrix that is held in parts, read a few at a time; at least one block, which may be empty."""

    def __init__(self, parts: Sequence[Tensor], rows: Tensor, size: int) -> None:
        self._nothing = parts[0][:0]
        self._pieces: list[list[tuple[Tensor, Tensor | slice]]] = [[] for _ in range(max(1, -(-len(rows) // size)))]
        starts, chosen = torch.tensor([0, *map(len, parts)]).cumsum(0), rows.cpu()
        cuts = torch.searchsorted(chosen, starts).tolist()
        for part, start, (low, high) in zip(parts, starts.tolist(), pairwise(cuts), strict=False):
            for begin, end in pairwise([low, *range((low // size + 1) * size, high, size), high]):
                if begin < end:
                    first, last = (int(chosen[place]) - start for place in (begin, end - 1))
                    gapless = last - first == end - 1 - begin
                    inside = slice(first, last + 1) if gapless else rows[begin:end] - start
                    self._pieces[begin // size].append((part, inside))

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, number: int) -> Tensor:
        """Return `[n, D]`, a view where the rows lie side by side."""
        pieces = [part[inside] for part, inside in self._pieces[number]] or [self._nothing]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


class _Strip:
    """The scores of some queries against all gallery rows of this rank."""

    def __init__(self, dtype: torch.dtype, gallery: Items, height: int, chunk_size: int) -> None:
        self._blocks = _Blocks(gallery.embeddings, gallery.rows, chunk_size)
        dtype = torch.promote_types(torch.promote_types(dtype, gallery.embeddings[0].dtype), torch.float32)
        self._scores = gallery.embeddings[0].new_empty(height, len(self._blocks) * chunk_size, dtype=dtype)
        self._held, self._chunk_size = len(gallery.rows), chunk_size
        self._image_ids, order = gallery.image_ids[gallery.rows].sort()
        self._columns = pad(order, (0, 1))
        _, owned = torch.unique_consecutive(self._image_ids, return_counts=True)
        self._most = int(owned.max()) if len(owned) else 1

    def rank(self, ranks: Alone, queries: Tensor, image_ids: Tensor) -> Tensor:
        """Return the rank of the best match of every query, `[Q]` int64."""
        scores = self._fill(queries)
        columns, matching = self._matches(image_ids)
        own = scores.gather(1, columns).masked_fill(~matching, -torch.inf)
        best = ranks.highest(own.amax(dim=1))[:, None]
        own_ahead = ((own >= best) & matching).sum(dim=1)  # own items that are missing stand at -inf, as best may
        parts = torch.split(scores[:, : self._held], self._chunk_size, dim=1)
        ahead = torch.stack([part.ge_(best).sum(dim=1).long() for part in parts]).sum(dim=0)
        return 1 + ranks.total(ahead - own_ahead)

    def _fill(self, queries: Tensor) -> Tensor:
        """Take the products, always of `_QUERY_ROWS` queries and `chunk_size` gallery rows."""
        padded = _padded(queries.to(self._scores.dtype), -(-len(queries) // _QUERY_ROWS) * _QUERY_ROWS)
        with full_precision(queries.device):
            for number in range(len(self._blocks)):
                block = _padded(self._blocks[number].to(padded.dtype), self._chunk_size)
                target = self._scores[:, number * self._chunk_size :][:, : self._chunk_size]
                for start in range(0, len(padded), _QUERY_ROWS):
                    rows = slice(start, start + _QUERY_ROWS)
                    torch.mm(padded[rows], block.T, out=target[rows])
        return self._scores[: len(queries)]

    def _matches(self, image_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the columns of every query's own items, `[Q, most]`, and which of them exist, bool."""
        first = torch.searchsorted(self._image_ids, image_ids)[:, None]
        end = torch.searchsorted(self._image_ids, image_ids, right=True)[:, None]
        places = first + torch.arange(self._most, device=first.device)
        return self._columns[places.clamp(max=self._held)], places < end


def _padded(rows: Tensor, size: int) -> Tensor:
    """Fill up with rows of zeros; the same tensor where it is full."""
    return pad(rows, (0, 0, 0, size - len(rows))) if len(rows) < size else rows


def _in_turn(ranks: Alone, queries: Items, height: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `[n, 2]` query and image ids and `[n, D]` embeddings of one rank after another, n <= height."""
    blocks = _Blocks(queries.embeddings, queries.rows, height)
    own = torch.stack([queries.ids, queries.image_ids], dim=1)[queries.rows]
    for source in range(ranks.size):
        for number, labels in enumerate(torch.split(ranks.broadcast(own, source), height)):
            mine = blocks[number] if source == ranks.rank else queries.embeddings[0][:0]
            yield labels, ranks.broadcast(mine, source)
