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

CHUNK_SIZE = 8192
NO_ID = torch.iinfo(torch.int64).max
_QUERY_ROWS = 1024
_QUERY_ROWS_OF_GPUS = 2048
_GROUP = 32


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


@torch.no_grad()
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

    Memory beyond the inputs and the result: the queries and one chunk of the gallery in float32, and the scores of
    1,024 queries (2,048 on a GPU) for that chunk.

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
    keep = torch.ones_like(ids, dtype=torch.bool) if keep is None else keep
    dtype = torch.promote_types(queries.dtype, torch.float32)
    best = _nothing(len(queries), k, dtype, queries.device)
    height = _QUERY_ROWS if queries.device.type == "cpu" else _QUERY_ROWS_OF_GPUS
    padded = pad(queries.to(dtype), (0, 0, 0, -len(queries) % height))
    strip: Tensor | None = None
    with full_precision(queries.device):
        for block in _blocks(parts, ids, keep, chunk_size, dtype):
            strip = padded.new_empty(height, len(block.embeddings)) if strip is None else strip
            _search_block(best, padded, block, strip)
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


class _Block(NamedTuple):
    """The `filled` first places hold rows of the gallery, ascending by id, the others none."""

    embeddings: Tensor
    ids: Tensor
    rows: Tensor
    filled: int


def _blocks(parts: Sequence[Tensor], ids: Tensor, keep: Tensor, size: int, dtype: torch.dtype) -> Iterator[_Block]:
    """Yield consecutive rows in blocks of one shape that share their memory: use one before you ask for the next."""
    width = -(-size // _GROUP) * _GROUP
    memory: Tensor | None = None
    start = 0
    for pieces in _regroup(parts, size):
        lengths = [len(piece) for piece in pieces]
        span = slice(start, start + sum(lengths))
        order = ids[span].argsort(stable=True)
        order = order[(~keep[span][order]).int().argsort(stable=True)]
        memory = pieces[0].new_zeros(width, pieces[0].shape[1], dtype=dtype) if memory is None else memory
        for places, piece in zip(torch.split(order.argsort(), lengths), pieces, strict=True):
            memory.index_copy_(0, places, piece.to(dtype))
        filled = int(keep[span].sum())
        rows, block_ids = order.new_full((width,), -1), ids.new_full((width,), NO_ID)
        rows[:filled] = order[:filled] + start
        block_ids[:filled] = ids[rows[:filled]]
        yield _Block(memory, block_ids, rows, filled)
        start = span.stop


def _regroup(parts: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Yield consecutive parts, cut so that every list has `size` rows together, the last one fewer."""
    held: list[Tensor] = []
    room = size
    for part in parts:
        for piece in (part[:room], *torch.split(part[room:], size)):
            held.append(piece)
            room -= len(piece)
            if not room:
                yield held
                held, room = [], size
    if room < size:
        yield held


def _search_block(best: Candidates, queries: Tensor, block: _Block, strip: Tensor) -> None:
    """Let one block of the gallery compete with the best so far, in place."""
    found, k = best.rows.shape
    for start in range(0, found, len(strip)):
        torch.mm(queries[start : start + len(strip)], block.embeddings.T, out=strip)
        strip[:, block.filled :] = -torch.inf
        scores = strip[: found - start]
        columns = _leading_of_groups(scores, k)
        challenge = Candidates(scores.gather(1, columns), block.ids[columns], block.rows[columns])
        so_far = Candidates(*(column[start : start + len(scores)] for column in best))
        winners, _ = merge([so_far, challenge], k)
        for column, winner in zip(so_far, winners, strict=True):
            column.copy_(winner)


def _leading_of_groups(scores: Tensor, k: int) -> Tensor:
    """Do as `_leading`, many times faster on wide rows.

    The k highest scores lie in the k groups of highest maxima: each of those has a score that beats, or ties with and
    stands before, all scores of the groups that are left out.
    """
    groups = scores.view(len(scores), -1, _GROUP)
    chosen = _leading(groups.amax(dim=2), k)
    places = _leading(groups.gather(1, chosen[:, :, None].expand(-1, -1, _GROUP)).flatten(1), k)
    return chosen.gather(1, places // _GROUP) * _GROUP + places % _GROUP


def _leading(values: Tensor, k: int) -> Tensor:
    """Return the columns of the k highest values of each row, ascending; where values tie, the lower columns."""
    width = values.shape[1]
    threshold = values.topk(min(k, width)).values[:, -1:]
    above, level = values > threshold, values == threshold
    taken = above | (level & (level.cumsum(dim=1) <= k - above.sum(dim=1, keepdim=True)))
    first_come = torch.arange(width, 0, -1, dtype=torch.int32, device=values.device)
    return torch.where(taken, first_come, 0).topk(min(k, width)).indices
