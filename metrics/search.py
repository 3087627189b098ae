"""Exact nearest neighbours by chunked products; the matrix of all scores is never held.

Order: highest dot product first, ties by ascending gallery id. Products are taken in float32 (float64 for float64
embeddings) whatever the storage dtype, autocast or torch's matmul precision, and always in blocks of one shape: a
score then depends on the two embeddings alone, not on where in the gallery, or on which rank, a row lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from metrics.checks import check_count
from metrics.functional.odmap import kept_needed

CHUNK_SIZE = 16_384
NO_ID = torch.iinfo(torch.int64).max
_QUERY_ROWS = 256


class Candidates(NamedTuple):
    """The best gallery rows of every query, best first; places that the gallery cannot fill are marked.

    Attributes:
        scores: `[Q, k]` float32 or float64 dot products, -inf where there is no row.
        ids: `[Q, k]` int64 gallery ids, `NO_ID` (the largest int64) where there is no row.
        rows: `[Q, k]` int64 positions in the gallery, -1 where there is no row.
    """

    scores: Tensor
    ids: Tensor
    rows: Tensor


def top_k(
    queries: Tensor,
    gallery: Tensor | Sequence[Tensor],
    k: int,
    *,
    ids: Tensor | None = None,
    keep: Tensor | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> Candidates:
    """Find the k gallery rows of highest dot product for every query, exactly.

    Memory beyond the inputs and the result: one chunk of the gallery in float32 and its scores for 256 queries.

    Args:
        queries: `[Q, D]` floating point.
        gallery: `[G, D]` floating point, or its consecutive parts (which are then never joined).
        k: How many rows to return; may exceed G.
        ids: `[G]` int64, distinct, for ties; the positions when None.
        keep: `[G]` bool, rows that take part; all when None.
        chunk_size: Gallery rows per product.

    Returns:
        The candidates on the device of the queries.

    Raises:
        ValueError: `k` or `chunk_size` is no positive integer.

    Example:
        >>> import torch
        >>> found = top_k(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 1], [-1, 0], [0.5, 0]]), k=2)
        >>> found.rows, found.scores
        (tensor([[0, 2]]), tensor([[0.5000, 0.5000]]))
    """
    check_count("k", k)
    check_count("chunk_size", chunk_size)
    parts = [gallery] if isinstance(gallery, Tensor) else list(gallery)
    ids = torch.arange(sum(map(len, parts)), device=queries.device) if ids is None else ids
    dtype = torch.promote_types(queries.dtype, torch.float32)
    best = _nothing(len(queries), k, dtype, queries.device)
    with full_precision(queries.device):
        for rows, block in _blocks(parts, ids, keep, chunk_size):
            _search_block(best, queries, block.to(dtype), rows, ids[rows])
    return best


def merge(candidates: Sequence[Candidates], k: int) -> tuple[Candidates, Tensor]:
    """Join candidates for the same queries from several disjoint galleries.

    Args:
        candidates: One entry per gallery, `[Q, k_i]` each.
        k: How many to keep.

    Returns:
        The best `[Q, k]`, and the `[Q, k]` int64 columns of the entries laid side by side that they come from.
    """
    scores, ids, rows = (torch.cat(column, dim=1) for column in zip(*candidates, strict=True))
    by_id = ids.argsort(dim=1, stable=True)
    by_score = scores.gather(1, by_id).argsort(dim=1, descending=True, stable=True)
    columns = by_id.gather(1, by_score[:, :k])
    return Candidates(scores.gather(1, columns), ids.gather(1, columns), rows.gather(1, columns)), columns


def distinct_rows(mentions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows of a class mask and how often each occurs.

    Args:
        mentions: `[G, C]` bool.

    Returns:
        `[U, C]` bool and `[U]` int64.

    Example:
        >>> import torch
        >>> distinct_rows(torch.tensor([[True], [False], [True]]))
        (tensor([[False],
                [ True]]), tensor([1, 2]))
    """
    if not mentions.numel():
        return mentions[:1], torch.full_like(mentions[:1].sum(dim=1), len(mentions))
    patterns, counts = torch.unique(mentions, dim=0, return_counts=True)
    return patterns, counts


def count_relevant(
    mentions: Tensor, removed: Tensor, kept: Tensor, kept_rule: str = "any", counts: Tensor | None = None
) -> Tensor:
    """Count the relevant captions of a gallery for every query, by distinct sets of mentioned classes.

    Args:
        mentions: `[G, C]` bool, classes that each caption mentions.
        removed: `[Q, C]` bool, classes taken out of the query images.
        kept: `[Q, C]` bool, classes still in them.
        kept_rule: "any" or "all", as in `metrics.functional.relevance`.
        counts: `[G]` int64, when `mentions` are distinct rows already: how often each occurs.

    Returns:
        `[Q]` int64.

    Raises:
        ValueError: The rule is unknown.

    Example:
        >>> import torch
        >>> dog, frisbee = torch.eye(2).bool()
        >>> count_relevant(torch.stack([dog, frisbee, dog | frisbee, frisbee]), dog[None], frisbee[None])
        tensor([2])
    """
    patterns, counts = distinct_rows(mentions) if counts is None else (mentions, counts)
    needed = kept_needed(kept, kept_rule)[:, None]
    table = patterns.float().T
    found = []
    with full_precision(removed.device):
        for start in range(0, len(removed), _QUERY_ROWS):
            rows = slice(start, start + _QUERY_ROWS)
            hallucinated = removed[rows].float() @ table > 0
            relevant = ~hallucinated & (kept[rows].float() @ table >= needed[rows])
            found.append((relevant * counts).sum(dim=1))
    return torch.cat(found) if found else counts.new_zeros(0)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Take float32 products as float32, whatever autocast or torch's matmul precision say outside."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    by_backend = [backend.fp32_precision for backend in backends]
    overall = "highest"
    with suppress(RuntimeError):  # torch refuses to name one precision where backends were set one by one
        overall = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(overall)
        for backend, precision in zip(backends, by_backend, strict=True):
            backend.fp32_precision = precision


def _nothing(queries: int, k: int, dtype: torch.dtype, device: torch.device) -> Candidates:
    return Candidates(
        scores=torch.full((queries, k), -torch.inf, dtype=dtype, device=device),
        ids=torch.full((queries, k), NO_ID, device=device),
        rows=torch.full((queries, k), -1, device=device),
    )


def _blocks(parts: Sequence[Tensor], ids: Tensor, keep: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield positions and embeddings of consecutive rows that take part, ascending by id within a block."""
    start = 0
    for block in _regroup(parts, size):
        rows = torch.arange(start, start + len(block), device=ids.device)
        rows = rows if keep is None else rows[keep[rows]]
        rows = rows[ids[rows].argsort(stable=True)]
        if len(rows):
            yield rows, pad(block[rows - start], (0, 0, 0, size - len(rows)))
        start += len(block)


def _regroup(parts: Sequence[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the rows of consecutive parts in groups of `size`, the last one shorter."""
    held: list[Tensor] = []
    rows = 0
    for piece in (piece for part in parts for piece in torch.split(part, size)):
        held.append(piece)
        rows += len(piece)
        if rows >= size:
            joined = torch.cat(held)
            yield joined[:size]
            held, rows = [joined[size:]], rows - size
    if rows:
        yield torch.cat(held)


def _search_block(best: Candidates, queries: Tensor, block: Tensor, rows: Tensor, ids: Tensor) -> None:
    """Let one block of the gallery compete with the best so far, in place."""
    k = best.rows.shape[1]
    for start in range(0, len(queries), _QUERY_ROWS):
        asked = queries[start : start + _QUERY_ROWS]
        span = slice(start, start + len(asked))
        padded = pad(asked.to(block.dtype), (0, 0, 0, _QUERY_ROWS - len(asked)))
        scores = (padded @ block.T)[: len(asked), : len(rows)]
        columns = _leading(scores, k)
        challenge = Candidates(scores.gather(1, columns), ids[columns], rows[columns])
        winners, _ = merge([Candidates(*(column[span] for column in best)), challenge], k)
        for column, winner in zip(best, winners, strict=True):
            column[span] = winner


def _leading(scores: Tensor, k: int) -> Tensor:
    """Return the columns of the k highest scores of each row, the lower columns where scores tie at the k-th."""
    values, columns = scores.topk(min(k + 1, scores.shape[1]))
    if scores.shape[1] <= k:
        return columns
    tied = values[:, k] == values[:, k - 1]
    if tied.any():
        columns[tied, :k] = _leading_of_tied(scores[tied], values[tied, k - 1 : k], k)
    return columns[:, :k]


def _leading_of_tied(scores: Tensor, threshold: Tensor, k: int) -> Tensor:
    """Return the columns above the threshold, filled up to k with the first ones at it."""
    width = scores.shape[1]
    first_come = torch.arange(width, 0, -1, dtype=torch.int32, device=scores.device)
    at_threshold = torch.where(scores == threshold, first_come, 0)
    return torch.where(scores > threshold, width + 1, at_threshold).topk(k).indices
