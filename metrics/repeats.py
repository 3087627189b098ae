"""Rows that come again under the same id: the first one counts, and the others have to tell the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from metrics.distributed import Alone
from metrics.masks import pack_bits
from metrics.search import full_precision

Content: TypeAlias = Tensor | Sequence[Tensor]

# The same photo encoded in another batch, or in half precision, differs by less; two different photos by more.
_TOLERANCE = 1e-3  # of the squared length
_PROJECTIONS = 8
_ROWS = 16_384


def first_seen(ranks: Alone, name: str, ids: Tensor, contents: Mapping[str, Content]) -> Tensor:
    """Mark the rows to keep when every id shall occur once over all ranks.

    The first occurrence on the lowest rank stays. Rows of equal id must have equal contents: integers and bools
    exactly, floating point within 3 % of their length. Ids pass by one rank at a time; of contents only signatures
    travel (10 numbers per row of embeddings), and only those of repeated ids.

    Args:
        ranks: Who takes part; all of them must call it in the same order.
        name: What the rows are, for messages.
        ids: `[n]` int64 of this rank. Rows without an id need one of their own.
        contents: Tensors `[n, ...]` that belong to the ids, or their consecutive parts, by name. All ranks have the
            same names, widths and dtypes.

    Returns:
        `[n]` bool.

    Raises:
        ValueError: An id was given twice with different contents. Raised on all ranks, in the same words.

    Example:
        >>> import torch
        >>> mentions = torch.tensor([[True, False], [False, True], [True, False]])
        >>> first_seen(Alone(), "gallery", torch.tensor([7, 3, 7]), {"mentions": mentions})
        tensor([ True,  True, False])
        >>> first_seen(Alone(), "gallery", torch.tensor([7, 7, 3]), {"mentions": mentions})
        Traceback (most recent call last):
            ...
        ValueError: gallery: id 7 was given twice with different mentions; every id must stand for one row.
    """
    first = _first_of_each(ids)
    keep, again = first.clone(), torch.isin(ids, ids[~first])
    for source in range(ranks.size):
        theirs = ranks.broadcast(ids[first], source)
        if source != ranks.rank:
            shared = torch.isin(ids, theirs)
            again |= shared
            keep &= ~shared | (source > ranks.rank)
    _check_contents(ranks, name, ids[again], first[again], _signatures(contents, again))
    return keep


def _first_of_each(ids: Tensor) -> Tensor:
    ordered, order = ids.sort(stable=True)
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(fresh).scatter_(0, order, fresh)


def _check_contents(ranks: Alone, name: str, ids: Tensor, first: Tensor, signatures: Mapping[str, Tensor]) -> None:
    """Compare all rows with the first ones of equal id on this rank and on lower ones."""
    conflict: tuple[int, str] | None = None
    for source in range(ranks.size):
        their_ids = ranks.broadcast(ids[first], source)
        mine, theirs = _pairs(ids, their_ids)
        for column, signature in signatures.items():
            rows = ranks.broadcast(signature[first], source)
            differ = ~_same(signature[mine], rows[theirs])
            if conflict is None and source <= ranks.rank and differ.any():
                conflict = int(ids[mine][differ].min()), column
    conflicts = [found for found in ranks.gather_objects(conflict) if found is not None]
    if conflicts:
        identity, column = min(conflicts)
        raise ValueError(
            f"{name}: id {identity} was given twice with different {column}; every id must stand for one row."
        )


def _pairs(ids: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of `ids` that `others` (distinct) hold too, and where they stand there."""
    ordered, order = others.sort()
    mine = torch.isin(ids, others).nonzero()[:, 0]
    return mine, order[torch.searchsorted(ordered, ids[mine])]


def _signatures(contents: Mapping[str, Content], rows: Tensor) -> dict[str, Tensor]:
    """Return a short form of the marked rows of every column."""
    signatures = {}
    with full_precision(rows.device):
        for column, content in contents.items():
            parts = [content] if isinstance(content, Tensor) else list(content)
            pieces = [_signature(piece) for piece in _pick(parts, rows)]
            signatures[column] = torch.cat(pieces or [_signature(parts[0][:0])])
    return signatures


def _pick(parts: Sequence[Tensor], rows: Tensor) -> Iterator[Tensor]:
    """Yield the marked rows of consecutive parts, a few at a time."""
    marked = torch.split(rows, [len(part) for part in parts])
    for part, wanted in zip(parts, marked, strict=True):
        if wanted.any():
            yield from (part[indices] for indices in torch.split(wanted.nonzero()[:, 0], _ROWS))


def _signature(rows: Tensor) -> Tensor:
    """Return bits of bools, integers as they are, and of embeddings a random projection and the length."""
    flat = rows.reshape(len(rows), -1) if len(rows) else rows.new_empty(0, rows.shape[1:].numel())
    if flat.dtype == torch.bool:
        return pack_bits(flat)
    if not flat.is_floating_point():
        return flat.long()
    values = flat.float()
    generator = torch.Generator().manual_seed(0)
    signs = 2.0 * torch.randint(2, (values.shape[1], _PROJECTIONS), generator=generator) - 1
    projected = values @ signs.to(values.device) / _PROJECTIONS**0.5
    return torch.cat([projected, values.norm(dim=1, keepdim=True)], dim=1)


def _same(one: Tensor, other: Tensor) -> Tensor:
    if not one.is_floating_point():
        return (one == other).all(dim=1)
    longest = torch.maximum(one[:, -1], other[:, -1]).square()
    return (one - other).square().sum(dim=1) <= _TOLERANCE * longest
