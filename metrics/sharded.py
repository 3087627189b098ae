"""Base of metrics whose states are rows that stay on the rank where they were seen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from metrics.distributed import Alone, connect
from metrics.search import Candidates, merge, top_k

Columns = dict[str, Tensor]
Form = tuple[tuple[int, ...], torch.dtype]


class ShardedMetric(Metric):
    """A metric over tables of rows (a gallery, queries) that are never gathered as a whole.

    torchmetrics would gather every state on every rank, and hang where ranks differ in their updates. Here `compute`
    itself exchanges what it needs (`metrics.distributed`), always in the same number of steps on every rank, so
    ranks may have seen different numbers of batches, or none. It is therefore collective, as any `compute` of
    torchmetrics: all ranks call it. `forward` is not: it scores its batch on its own rank.

    Subclasses declare tables with `_add_table`, fill them with `_append` and implement `_evaluate`.

    Args:
        process_group: Ranks to work with; None is the whole world.
    """

    is_differentiable: bool = False
    higher_is_better: bool = True
    full_state_update: bool = False
    _batch_tables: ClassVar[tuple[str, ...]]
    _tables: dict[str, tuple[str, ...]]

    def __init__(self, process_group: Any = None) -> None:
        # A value cached on one rank and not on another would let the others wait for ever.
        super().__init__(process_group=process_group, sync_on_compute=False, compute_with_cache=False)
        self._tables = {}

    @abstractmethod
    def _evaluate(self, ranks: Alone) -> dict[str, Tensor]:
        """Compute all values from the rows of these ranks."""

    def compute(self) -> dict[str, Tensor]:
        """Compute the values over all rows of all ranks; every rank must call it and gets the same.

        Raises:
            ValueError: No rows were given where some are needed, or ranks disagree about classes, width or dtype.
        """
        return self._evaluate(connect(self.process_group))

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Call `update` and return the values of this batch alone, without any exchange between ranks."""
        names = [f"{table}_{column}" for table in self._batch_tables for column in self._tables[table]]
        held = {name: getattr(self, name) for name in names}
        for name in names:
            setattr(self, name, [])
        try:
            self.update(*args, **kwargs)
            value = self._evaluate(Alone())
        finally:
            for name, parts in held.items():
                setattr(self, name, parts + getattr(self, name))
        self._forward_cache = value  # type: ignore[assignment]  # torchmetrics leaves it untyped
        return value

    def set_dtype(self, dst_type: str | torch.dtype) -> ShardedMetric:
        """Convert the embeddings that are held to another dtype; ids and masks stay what they are."""
        for name in self._defaults:
            parts = [part.type(dst_type) if part.is_floating_point() else part for part in getattr(self, name)]
            setattr(self, name, parts)
        return self

    def _add_table(self, table: str, *columns: str) -> None:
        self._tables[table] = columns
        for column in columns:
            self.add_state(f"{table}_{column}", default=[], dist_reduce_fx=None)

    def _append(self, table: str, **columns: Tensor) -> None:
        """Add rows, if there are any; all columns of a row live on one device, that of the first column."""
        device = next(iter(columns.values())).device
        for column, rows in columns.items():
            parts: list[Tensor] = getattr(self, f"{table}_{column}")
            if parts and (form := _form(parts[0])) != _form(rows):
                raise ValueError(f"{table} {column}: got rows of {_describe(_form(rows))} after {_describe(form)}.")
        for column, rows in columns.items():
            if len(rows):
                getattr(self, f"{table}_{column}").append(rows.detach().to(device))

    def _shards(self, ranks: Alone) -> dict[str, dict[str, list[Tensor]]]:
        """Return this rank's parts of every table, with a part of zero rows where it has seen nothing.

        Raises:
            ValueError: A table has no rows on any rank, or ranks disagree about the form of its rows.
        """
        forms = self._agreed_forms(ranks)
        device = next((parts[0].device for name in forms if (parts := getattr(self, name))), self.device)
        for table, columns in self._tables.items():
            if f"{table}_{columns[0]}" not in forms:
                raise ValueError(f"{type(self).__name__} has no {table}: give one or more rows before calling compute.")
        return {
            table: {
                column: [part.to(device) for part in getattr(self, name)] or [_no_rows(forms[name], device)]
                for column in columns
                for name in [f"{table}_{column}"]
            }
            for table, columns in self._tables.items()
        }

    def _agreed_forms(self, ranks: Alone) -> dict[str, Form]:
        mine = {name: _form(parts[0]) for name in self._defaults if (parts := getattr(self, name))}
        agreed: dict[str, Form] = {}
        for rank, theirs in enumerate(ranks.gather_objects(mine)):
            for name, form in theirs.items():
                if agreed.setdefault(name, form) != form:
                    one, other = _describe(agreed[name]), _describe(form)
                    raise ValueError(f"{name}: rank {rank} has rows of {other}, a lower rank has rows of {one}.")
        return agreed


class Shard(NamedTuple):
    """The gallery rows of one rank.

    Attributes:
        embeddings: Parts of `[G, D]`.
        ids: `[G]` int64.
        keep: `[G]` bool, rows that no other row repeats.
        payload: `[G, ...]`, what to bring along for every row that is found.
    """

    embeddings: Sequence[Tensor]
    ids: Tensor
    keep: Tensor
    payload: Tensor


def rounds(ranks: Alone, columns: Columns, keep: Tensor) -> Iterator[Columns]:
    """Yield the rows of one rank after another, on every rank.

    Args:
        ranks: Who takes part.
        columns: Rows of this rank; all tensors have the same length.
        keep: `[rows]` bool, rows that take part.
    """
    own = {name: rows[keep] for name, rows in columns.items()}
    for source in range(ranks.size):
        yield {name: ranks.broadcast(rows, source) for name, rows in own.items()}


def search_shards(
    ranks: Alone, queries: Tensor, shard: Shard, depth: int, chunk_size: int
) -> tuple[Candidates, Tensor]:
    """Search the same queries in the gallery shards of all ranks.

    Args:
        ranks: Who takes part.
        queries: `[Q, D]`, the same on every rank.
        shard: The gallery rows of this rank.
        depth: Candidates per query.
        chunk_size: Gallery rows per product.

    Returns:
        The best candidates of all ranks `[Q, depth]` (their `rows` mean nothing across ranks) and their payload
        `[Q, depth, ...]`, zeros where the gallery is exhausted. Equal on all ranks.
    """
    local = top_k(queries, shard.embeddings, depth, ids=shard.ids, keep=shard.keep, chunk_size=chunk_size)
    brought = shard.payload.new_zeros(*local.rows.shape, *shard.payload.shape[1:])
    filled = local.rows >= 0
    brought[filled] = shard.payload[local.rows[filled]]
    by_rank = zip(*(ranks.gather(column) for column in local), strict=True)
    best, columns = merge([Candidates(*candidates) for candidates in by_rank], depth)
    laid_out = torch.cat(ranks.gather(brought), dim=1)
    return best, laid_out[torch.arange(len(laid_out), device=laid_out.device)[:, None], columns]


def _form(rows: Tensor) -> Form:
    return tuple(rows.shape[1:]), rows.dtype


def _describe(form: Form) -> str:
    shape, dtype = form
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"


def _no_rows(form: Form, device: torch.device) -> Tensor:
    shape, dtype = form
    return torch.empty(0, *shape, dtype=dtype, device=device)
