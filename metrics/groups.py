"""Accuracy by group: what a model is worth where a spurious correlation does not hold."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from metrics.checks import check_count, check_ids, check_tensor
from metrics.distributed import Alone
from metrics.repeats import first_seen
from metrics.sharded import ShardedMetric


class GroupAccuracy(ShardedMetric):
    """Accuracy of the worst group, of every group and on average, in per cent (0 to 100).

    A group is a class in one kind of surroundings, as a waterbird on land; any rule that numbers the samples serves.
    `average` is the plain share of correct samples. `adjusted_average` weights the group accuracies by how frequent the
    groups are in the training split, whatever their share of the samples here; it is NaN where those have no weight.

    A group without samples has accuracy NaN; `worst_group` and `adjusted_average` then run over the other groups, a
    warning names the empty ones and `empty_groups` counts them: only values with `empty_groups` 0 are comparable.

    Repeated samples are recognised by their id and counted once, the first one of the lowest rank. An id that comes
    again in another group is an error of `compute`; that its prediction differs is not, because a prediction at the
    threshold may depend on the batch it is made in.

    Source: Sagawa, Koh, Hashimoto, Liang 2020, "Distributionally Robust Neural Networks for Group Shifts" (group DRO),
    and its protocol for Waterbirds.

    Args:
        num_groups: How many groups there are.
        weights: Frequency of every group in the training split, as counts or shares; None for no adjusted average.
        names: Name of every group, for the keys of `compute`; its index when None.
        process_group: Ranks to work with; None is the whole world.

    Raises:
        TypeError: A weight is no number.
        ValueError: `num_groups` is not positive, `weights` or `names` are not one per group, a weight is negative or
            not finite, all weights are 0, or a name occurs twice.

    Example:
        Waterbirds: kind of bird, place, and the sizes of the groups in the training split.

        >>> import torch
        >>> names = ("landbird_on_land", "landbird_on_water", "waterbird_on_land", "waterbird_on_water")
        >>> metric = GroupAccuracy(num_groups=4, weights=(3498, 184, 56, 1057), names=names)
        >>> correct = torch.tensor([True, True, True, False, False, True])
        >>> metric.update(correct, groups=torch.tensor([0, 0, 1, 1, 2, 3]), ids=torch.arange(6))
        >>> for name, value in metric.compute().items():
        ...     print(name, round(value.item(), 2))
        worst_group 0.0
        average 66.67
        adjusted_average 96.91
        empty_groups 0
        group/landbird_on_land 100.0
        group/landbird_on_water 50.0
        group/waterbird_on_land 0.0
        group/waterbird_on_water 100.0
    """

    _batch_tables: ClassVar[tuple[str, ...]] = ("samples",)

    def __init__(
        self,
        num_groups: int,
        weights: Sequence[float] | None = None,
        names: Sequence[str] | None = None,
        process_group: Any = None,
    ) -> None:
        super().__init__(process_group)
        check_count("num_groups", num_groups)
        _check_weights(num_groups, weights)
        _check_names(num_groups, names)
        self.num_groups = num_groups
        self.weights = None if weights is None else tuple(map(float, weights))
        self.names = tuple(map(str, range(num_groups))) if names is None else tuple(names)
        self._add_table("samples", "correct", "groups", "ids")

    def update(self, correct: Tensor, groups: Tensor, ids: Tensor) -> None:
        """Add samples.

        Args:
            correct: `[N]` bool, whether each prediction is right.
            groups: `[N]` integers from 0 to `num_groups` - 1.
            ids: `[N]` integers.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit, or a group does not exist.
        """
        check_tensor("correct", correct)
        if correct.dtype != torch.bool:
            raise TypeError(f"correct must be bool, got {correct.dtype}.")
        if correct.ndim != 1:
            raise ValueError(f"correct must have shape [N], got {tuple(correct.shape)}.")
        check_ids(len(correct), groups=groups, ids=ids)
        outside = (groups < 0) | (groups >= self.num_groups)
        if outside.any():
            row = outside.nonzero()[0, 0]
            raise ValueError(f"groups must lie between 0 and {self.num_groups - 1}, id {ids[row]} has {groups[row]}.")
        self._append("samples", correct=correct, groups=groups.long(), ids=ids.long())

    def _evaluate(self, ranks: Alone) -> dict[str, Tensor]:
        samples = {name: torch.cat(parts) for name, parts in self._shards(ranks)["samples"].items()}
        keep = first_seen(ranks, "samples", samples["ids"], {"groups": samples["groups"]})
        groups, right = samples["groups"][keep], samples["groups"][keep & samples["correct"]]
        tallies = [rows.bincount(minlength=self.num_groups) for rows in (right, groups)]
        hits, sizes = ranks.total(torch.stack(tallies))
        if not sizes.any():
            raise ValueError("GroupAccuracy has no samples: give one or more rows before calling compute.")
        if ranks.rank == 0:
            self._warn_of_empty(sizes)
        return self._conclude(hits, sizes)

    def _conclude(self, hits: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        filled = sizes > 0
        accuracy = 100 * hits / sizes
        values = {"worst_group": accuracy[filled].min(), "average": 100 * hits.sum() / sizes.sum()}
        if self.weights is not None:
            weights = accuracy.new_tensor(self.weights)[filled]
            values["adjusted_average"] = (weights * accuracy[filled]).sum() / weights.sum()
        values["empty_groups"] = (~filled).sum()
        return values | {f"group/{name}": value for name, value in zip(self.names, accuracy, strict=True)}

    def _warn_of_empty(self, sizes: Tensor) -> None:
        empty = [name for name, size in zip(self.names, sizes.tolist(), strict=True) if not size]
        if empty:
            message = f"GroupAccuracy leaves out {len(empty)} of {self.num_groups} groups without samples: "
            warnings.warn(message + f"{', '.join(empty)}.", stacklevel=4)


def _check_weights(num_groups: int, weights: Sequence[float] | None) -> None:
    if weights is None:
        return
    if len(weights) != num_groups:
        raise ValueError(f"weights must hold one number for each of the {num_groups} groups, got {len(weights)}.")
    if not all(isinstance(weight, Real) for weight in weights):
        raise TypeError(f"weights must be numbers, got {weights!r}.")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights):
        raise ValueError(f"weights must be finite, not negative, and not all 0, got {weights!r}.")


def _check_names(num_groups: int, names: Sequence[str] | None) -> None:
    if names is not None and (isinstance(names, str) or len(set(names)) != num_groups or len(names) != num_groups):
        raise ValueError(f"names must hold {num_groups} different names, one for each group, got {names!r}.")
