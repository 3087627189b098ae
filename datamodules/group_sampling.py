"""Which images of a grouped data set make up the batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import ConfigError
from datamodules.mixing import Mixing
from datamodules.passes import EndlessPasses, Rows
from datamodules.sampling import MixedBatchSampler

GroupSampling = Literal["plain", "group_balanced"]


class GroupBatchSampler(MixedBatchSampler):
    """Batches of images, drawn plainly, with every group equally likely, or with some images drawn more often.

    The shards of processes and the way to resume within an epoch are those of `MixedBatchSampler`. An item is `(number,
    row)`, where every draw of a run has a number of its own: an image that comes twice in a batch is augmented twice.

    Args:
        groups: `[N]` group of each image.
        sampling: "plain" shuffles the images, each once per epoch; "group_balanced" as `GroupBalanced` does.
        copies: `[N]` how often an epoch has each image, with plain sampling; None for once.
        batch_size: images of a batch on one process.
        seed: draws the order, together with the epoch.
        rank: which process this is.
        world_size: number of processes.

    Raises:
        ConfigError: the images do not fill one batch per process.

    Example:
        >>> sampler = GroupBatchSampler(np.array([0, 0, 0, 1]), sampling="group_balanced", batch_size=4)
        >>> sorted(row for _, row in next(iter(sampler)))[-2:]
        [3, 3]
    """

    def __init__(
        self,
        groups: NDArray[np.int64],
        *,
        sampling: GroupSampling = "plain",
        copies: NDArray[np.int64] | None = None,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(groups) < batch_size * world_size:
            raise ConfigError(
                f"{len(groups)} training images do not fill a batch of {batch_size} on each of {world_size} processes: "
                "lower `data.init_args.batch_size`."
            )
        super().__init__(len(groups), batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        common = {"batch_size": batch_size, "world_size": world_size, "seed": seed}
        if sampling == "group_balanced":
            self.mixing = GroupBalanced(groups, **common)
        elif copies is not None:
            self.mixing = Repeated(copies, **common)
        self._order |= {"sampling": sampling, "errors": len(groups) if copies is None else int(copies.sum())}

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in super().__iter__():
            yield [(number * len(batch) + place, row) for place, (number, row) in enumerate(batch)]


class GroupBalanced(Mixing):
    """Every group equally often, those with no image aside; an epoch has as many images as the data set.

    The images of a group come from reshuffled passes over it, one after another, that run on from epoch to epoch: the
    same expected shares as the weighted draw with replacement of WILDS' `uniform_over_groups`, but nearly equal shares
    for the images of a group. The order of an epoch is random, so that an image may come twice in a batch.

    Args:
        groups: `[N]` group of each image.
    """

    def __init__(self, groups: NDArray[np.int64], batch_size: int, world_size: int, seed: int) -> None:
        self._members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        super().__init__(len(groups), 0, batch_size, world_size, seed)
        share = -(-self.batches * batch_size // len(self._members))
        self._passes = [EndlessPasses(len(one), share, seed, 3 + n) for n, one in enumerate(self._members)]

    def _count(self) -> int:
        return self._rounds(self.originals, self.batch_size)

    def draw(self, epoch: int) -> Rows:
        """Return `[batches, batch_size]` rows of the epoch, drawn by seed and epoch alone."""
        size = self.batches * self.batch_size
        drawn = [one[passes.batches(epoch, 1)[0]] for one, passes in zip(self._members, self._passes, strict=True)]
        draws = self._draws(epoch)
        rounds = draws.permuted(np.stack(drawn, axis=1), axis=1)  # so that what is cut off favours no group
        return draws.permutation(rounds.ravel()[:size]).reshape(self.batches, self.batch_size)


class Repeated(Mixing):
    """Each image as often as `copies` says, shuffled: the upweighted set of just-train-twice.

    Source: Liu et al. 2021, "Just Train Twice: Improving Group Robustness without Training Group Information".

    Args:
        copies: `[N]` times per epoch.
    """

    def __init__(self, copies: NDArray[np.int64], batch_size: int, world_size: int, seed: int) -> None:
        self._rows = np.repeat(np.arange(len(copies)), copies)
        super().__init__(len(copies), 0, batch_size, world_size, seed)

    def _count(self) -> int:
        return self._rounds(len(self._rows), self.batch_size)

    def draw(self, epoch: int) -> Rows:
        """Return `[batches, batch_size]` rows of the epoch, drawn by seed and epoch alone."""
        size = self.batches * self.batch_size
        return self._draws(epoch).permutation(self._rows)[:size].reshape(self.batches, self.batch_size)
