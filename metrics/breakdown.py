"""Which removed class is hallucinated, and beside which kept class: ODmAP broken down by class and by pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from metrics.checks import check_top_k
from metrics.functional.hubness import NO_ITEM


class Breakdown(NamedTuple):
    """Means over the queries of every class `[C]`, or of every pair of a removed and a kept class `[C, C]`.

    Attributes:
        queries: int64, how many queries removed the class (and kept the other one).
        odmap: For every cut k float64 ODmAP@k of these queries, in per cent; NaN where there are none.
        hallucinated: For every cut k float64 share of their first k captions that mention that very removed class, in
            per cent; NaN where there are none.
    """

    queries: Tensor
    odmap: dict[int, Tensor]
    hallucinated: dict[int, Tensor]

    def rows(self, class_names: Sequence[str] | None = None) -> list[dict[str, str | int | float]]:
        """List the classes or pairs that have queries, the most hallucinated (at the largest cut) first.

        Args:
            class_names: The name of every class; their indices are listed when None.

        Returns:
            Per row `removed` (and `kept`), `queries`, and for every cut `ODmAP@k` and `hallucinated@k`. Equal shares
            are ordered by falling number of queries, then by class.

        Raises:
            ValueError: `class_names` are not one per class.
        """
        classes = len(self.queries)
        names = range(classes) if class_names is None else class_names
        if len(names) != classes:
            raise ValueError(f"class_names must hold {classes} names, got {len(names)}.")
        asked = self.queries > 0
        worst, queries = (
            values[asked].tolist() for values in (self.hallucinated[max(self.hallucinated)], self.queries)
        )
        ranked = sorted(zip(worst, queries, asked.nonzero().tolist(), strict=True), key=_by_importance)
        return [self._row(tuple(place), names) for _, _, place in ranked]

    def _row(self, place: tuple[int, ...], names: Sequence[str | int]) -> dict[str, str | int | float]:
        measures = {f"ODmAP@{cut}": values[place].item() for cut, values in self.odmap.items()}
        measures |= {f"hallucinated@{cut}": values[place].item() for cut, values in self.hallucinated.items()}
        classes = {role: names[index] for role, index in zip(("removed", "kept"), place, strict=False)}
        return classes | {"queries": int(self.queries[place])} | measures


def _by_importance(row: tuple[float, int, list[int]]) -> tuple[float, int, list[int]]:
    share, queries, place = row
    return -share, -queries, place


def by_removed_class(per_query: Mapping[str, Tensor], top_k: int | Sequence[int]) -> Breakdown:
    """Break ODmAP down by removed class; a query that lost several classes counts for each of them.

    Args:
        per_query: What `metrics.ODmAP.per_query` returns.
        top_k: One cut or several, of those that the metric had.

    Returns:
        Values `[C]` on the CPU.

    Raises:
        TypeError: A cut is no integer.
        ValueError: The metric had no such cut.

    Example:
        Two photos of a dog with a frisbee lost the dog. For one of them the model still retrieves "a dog".

        >>> import torch
        >>> from metrics import ODmAP
        >>> dog, frisbee = torch.eye(2).bool()
        >>> metric = ODmAP(top_k=1)
        >>> metric.update_gallery(torch.eye(2), torch.stack([dog | frisbee, frisbee]), torch.tensor([10, 11]))
        >>> metric.update(torch.eye(2), dog.expand(2, 2), frisbee.expand(2, 2), torch.tensor([1, 2]))
        >>> _ = metric.compute()
        >>> by_removed_class(metric.per_query(), top_k=1).rows(class_names=["dog", "frisbee"])
        [{'removed': 'dog', 'queries': 2, 'ODmAP@1': 50.0, 'hallucinated@1': 50.0}]
    """
    return _breakdown(per_query, top_k, pool=lambda rows: rows.sum(dim=0))


def by_pair(per_query: Mapping[str, Tensor], top_k: int | Sequence[int]) -> Breakdown:
    """Break ODmAP down by pairs of a removed and a kept class.

    A query counts for every pair of a class that it lost and a class that it kept; one that keeps nothing counts for
    none.

    Args:
        per_query: What `metrics.ODmAP.per_query` returns.
        top_k: One cut or several, of those that the metric had.

    Returns:
        Values `[C, C]` on the CPU; rows are removed classes, columns are kept ones.

    Raises:
        TypeError: A cut is no integer.
        ValueError: The metric had no such cut.

    Example:
        A photo of a dog with a frisbee lost the dog, and the model still retrieves "a dog with a frisbee".

        >>> import torch
        >>> from metrics import ODmAP
        >>> dog, frisbee = torch.eye(2).bool()
        >>> metric = ODmAP(top_k=1)
        >>> metric.update_gallery(torch.eye(2), torch.stack([dog | frisbee, frisbee]), torch.tensor([10, 11]))
        >>> metric.update(torch.tensor([[1.0, 0.5]]), dog[None], frisbee[None], torch.tensor([1]))
        >>> _ = metric.compute()
        >>> by_pair(metric.per_query(), top_k=1).hallucinated[1]
        tensor([[ nan, 100.],
                [ nan,  nan]], dtype=torch.float64)
    """
    kept = per_query["kept"].cpu().double()
    return _breakdown(per_query, top_k, pool=lambda rows: rows.T @ kept)


def _breakdown(
    per_query: Mapping[str, Tensor], top_k: int | Sequence[int], pool: Callable[[Tensor], Tensor]
) -> Breakdown:
    """Divide what `pool` sums over queries, from values `[Q, C]` of each removed class, by the number of queries."""
    cuts = check_top_k(top_k)
    unknown = [cut for cut in cuts if f"ODmAP@{cut}" not in per_query]
    if unknown:
        raise ValueError(f"top_k: per_query has no ODmAP@{unknown[0]}; give cuts that the metric was made with.")
    removed = per_query["removed"].cpu().double()
    queries = pool(removed)
    return Breakdown(
        queries=queries.long(),
        odmap={cut: pool(removed * per_query[f"ODmAP@{cut}"].cpu()[:, None]) / queries for cut in cuts},
        hallucinated={cut: 100 * pool(removed * _share_of_mentions(per_query, cut)) / queries for cut in cuts},
    )


def _share_of_mentions(per_query: Mapping[str, Tensor], cut: int) -> Tensor:
    """Return how many of the first captions mention each class, `[Q, C]` from 0 to 1."""
    retrieved = (per_query["retrieved_ids"] != NO_ITEM).sum(dim=1, keepdim=True).clamp(min=1, max=cut)
    return per_query["retrieved_mentions"][:, :cut].sum(dim=1).cpu().double() / retrieved.cpu()
