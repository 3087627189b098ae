"""Samplers: shuffled, sharded and resumable for training, in order and without padding for evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sized
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from datamodules.errors import ConfigError
from datamodules.mixing import (
    CutAnew,
    FixedShare,
    Mixing,
    OriginalsAlone,
    PairedFixedShare,
    PairedUnion,
    Union,
    proportional_share,
)

MixingMode = Literal["concat", "per_batch"]


class MixedBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches over P original pairs (rows 0..P-1) and S synthetic pairs (rows P..P+S-1), one process's part of them.

    An item is `(batch, row)`, where batches are numbered through all processes and epochs of a run: so augmentation can
    be seeded by what is drawn and not by who draws it, and a pair that comes twice in an epoch is augmented anew. Every
    original pair comes exactly once per epoch over all processes; only the last incomplete round of batches, one per
    process, is left out (a control goes through them in passes of its own, see `datamodules.mixing.OriginalsAlone`, and
    where `batches` is given an epoch is no pass, see `datamodules.mixing.CutAnew`).
    Iterating starts at the position that `load_state_dict` or `set_epoch` last set.

    Args:
        originals: P.
        synthetic: S.
        batch_size: rows of a batch on one process.
        mode: "concat" shuffles the union of both, as the paper does; "per_batch" fixes the synthetic share of every
            batch, and then an epoch is one pass over the original pairs while synthetic pairs cycle.
        synthetic_per_batch: that share in rows; None for the share that synthetic pairs have among all pairs.
        sources: `[S]` row of the source pair of each synthetic pair; where given, each lies in the batch of its source.
        control: whether all batches are of original pairs, as many of them as there would be with the synthetic ones.
        batches: of an epoch over all processes, in place of as many as the pairs fill.
        seed: draws the order, together with the epoch.
        rank: which process this is.
        world_size: number of processes.

    Raises:
        ConfigError: a value that these pairs cannot give.

    Example:
        >>> sampler = MixedBatchSampler(4, batch_size=2)
        >>> sorted(row for batch in sampler for number, row in batch)
        [0, 1, 2, 3]
    """

    def __init__(
        self,
        originals: int,
        synthetic: int = 0,
        *,
        batch_size: int,
        mode: MixingMode = "concat",
        synthetic_per_batch: int | None = None,
        sources: NDArray[np.int64] | None = None,
        control: bool = False,
        batches: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check(batch_size, mode, synthetic_per_batch, seed)
        common = {"batch_size": batch_size, "world_size": world_size, "seed": seed}
        mixing = _mixing(originals, synthetic, mode, synthetic_per_batch, sources, common)
        self.mixing = OriginalsAlone(mixing) if control else mixing
        if batches is not None:
            self.mixing = CutAnew(self.mixing, batches)
        self.rank, self.world_size = rank, world_size
        self._order: dict[str, Any] = {**common, "mixing": mode, "pairs": [originals, synthetic]}
        self._order |= {"synthetic_per_batch": synthetic_per_batch, "pair_with_source": sources is not None}
        self._order |= {"control": control, "batches": batches}
        self.epoch = 0
        self._start = self._served = 0

    @property
    def sampler(self) -> MixedBatchSampler:
        """The sampler itself: Lightning calls `set_epoch` on what a batch sampler holds under this name."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to the first batch of the epoch; stay at the position reached where it is the current epoch."""
        if epoch != self.epoch:
            self.epoch = epoch
            self._start = self._served = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, the number of its batches that were yielded, and what the order depends on.

        Loader workers fetch ahead; a caller who knows how many batches were used should save that number.
        """
        return {"epoch": self.epoch, "batch": self._served, "order": dict(self._order)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the batch after those that the state counts, in the next epoch where it counts them all.

        A state of other batches (another `batch_size`, number of processes, ...) warns: an exact continuation of its
        epoch does not exist.
        """
        self.epoch, self._start = state["epoch"], state["batch"]
        # Checkpoints made before there were these two do not name them.
        order = {"control": False, "batches": None, **state["order"]}
        changed = [key for key, value in self._order.items() if order.get(key) != value]
        if self._start and changed:
            warnings.warn(
                f"The checkpoint is from within epoch {self.epoch} and {', '.join(changed)} changed since: pairs "
                "may come twice or not at all in this epoch, later epochs are whole.",
                stacklevel=2,
            )
        if self._start >= len(self):
            self.epoch, self._start = self.epoch + 1, 0
        self._served = self._start

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch on one process."""
        return self.mixing.batches // self.world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, start = self.epoch, self._start
        mine = self.mixing.draw(epoch)[self.rank :: self.world_size]
        for position in range(start, len(mine)):
            self._served = position + 1
            number = epoch * self.mixing.batches + position * self.world_size + self.rank
            yield [(number, row) for row in mine[position].tolist()]


def _check(batch_size: int, mode: str, synthetic_per_batch: int | None, seed: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}: give 1 or more pairs (key `batch_size`).")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: give 0 or more (key `seed`).")
    if mode not in ("concat", "per_batch"):
        raise ConfigError(f"mixing is {mode!r}: give concat or per_batch (key `mixing`).")
    if mode == "concat" and synthetic_per_batch is not None:
        raise ConfigError(
            f"synthetic_per_batch is {synthetic_per_batch}, but mixing concat has no fixed share: set `mixing` to "
            "per_batch or leave `synthetic_per_batch` out."
        )


def _mixing(
    originals: int,
    synthetic: int,
    mode: MixingMode,
    share: int | None,
    sources: NDArray[np.int64] | None,
    common: dict[str, int],
) -> Mixing:
    if not synthetic or (mode == "concat" and sources is None):
        return Union(originals, synthetic, **common)
    if sources is not None:
        if mode == "concat":
            return PairedUnion(originals, sources, **common)
        return PairedFixedShare(originals, sources, share, **common)
    if share is None:
        share = proportional_share(originals, synthetic, common["batch_size"])
    return FixedShare(originals, synthetic, share, **common)


class ShardedSampler(Sampler[int]):
    """Rows `rank, rank + world_size, ...` in order: over all processes each row once, none repeated to even out.

    Example:
        >>> list(ShardedSampler(range(5), rank=1, world_size=2))
        [1, 3]
    """

    def __init__(self, data: Sized, rank: int = 0, world_size: int = 1) -> None:
        self._rows = range(rank, len(data), world_size)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)
