"""Hubs: captions that are retrieved for very many queries, whatever the query shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metrics.checks import check_ids, check_top_k

NO_ITEM = -1


class Hubness(NamedTuple):
    """How unevenly queries spread over the gallery.

    Attributes:
        distinct_top1: Distinct items at rank 1 per query, a fraction: 1 where every query has its own.
        skewness: For every cut k the skewness of how often an item is among the first k; positive with hubs.
    """

    distinct_top1: float
    skewness: dict[int, float]


def hubness(retrieved_ids: Tensor, gallery_size: int, top_k: int | Sequence[int]) -> Hubness:
    """Measure the hubs of a ranking from what was retrieved.

    The k-occurrence N_k of a gallery item is the number of queries that have it among their first k. Its skewness
    E[(N_k - mu)^3] / sigma^3 runs over the whole gallery, with 0 for items that were never retrieved; it is 0 where
    all items occur equally often.

    Source: Radovanovic, Nanopoulos, Ivanovic 2010, "Hubs in Space", JMLR 11, section 2.

    Args:
        retrieved_ids: `[Q, K]` integers, ids of the retrieved items, best first; -1 where there is none.
        gallery_size: Items in the gallery, retrieved or not.
        top_k: One cut or several.

    Raises:
        TypeError: The ids or a cut are no integers.
        ValueError: There is no query, the ids are no matrix, more items were retrieved than the gallery has, or a cut
            is not positive.

    Example:
        Three queries share one best item of a gallery of four.

        >>> import torch
        >>> hubs = hubness(torch.tensor([[10, 11], [10, 12], [10, 13]]), gallery_size=4, top_k=1)
        >>> round(hubs.distinct_top1, 4), {k: round(value, 4) for k, value in hubs.skewness.items()}
        (0.3333, {1: 1.1547})
    """
    cuts = check_top_k(top_k)
    if retrieved_ids.ndim != 2 or not len(retrieved_ids):
        raise ValueError(f"retrieved_ids must have shape [Q, K] with a query, got {tuple(retrieved_ids.shape)}.")
    check_ids(retrieved_ids.numel(), retrieved_ids=retrieved_ids.flatten())
    best = _occurrences(retrieved_ids, 1)
    if len(_occurrences(retrieved_ids, cuts[-1])) > gallery_size:
        raise ValueError(f"gallery_size={gallery_size} is smaller than the number of distinct retrieved_ids.")
    return Hubness(
        distinct_top1=len(best) / len(retrieved_ids),
        skewness={cut: _skewness(_occurrences(retrieved_ids, cut), gallery_size) for cut in cuts},
    )


def _occurrences(retrieved_ids: Tensor, cut: int) -> Tensor:
    """Count how often each retrieved item is among the first `cut`: `[items]` float64."""
    ids = retrieved_ids[:, :cut]
    counts: Tensor = torch.unique(ids[ids != NO_ITEM], return_counts=True)[1]
    return counts.cpu().double()


def _skewness(counts: Tensor, size: int) -> float:
    """Return the skewness of `size` numbers, of which all but `counts` are 0."""
    absent = size - len(counts)
    mean = float(counts.sum()) / max(size, 1)
    second = float(((counts - mean) ** 2).sum() + absent * mean**2)
    third = float(((counts - mean) ** 3).sum() - absent * mean**3)
    return size**0.5 * third / second**1.5 if second else 0.0
