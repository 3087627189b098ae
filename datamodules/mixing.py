"""Which original and synthetic pairs make up the batches of an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from datamodules.errors import ConfigError
from datamodules.passes import EndlessPasses, Rows, generator


def draw_subset(originals: int, available: int, ratio: float | None, seed: int, key: str = "ratio") -> Rows:
    """Draw the synthetic pairs of a run, D'sub, at ratio |D'sub| / |D| (Figure 4 of the paper).

    With one seed the subset of a smaller ratio lies within that of a larger one.

    Args:
        originals: number of original pairs, |D|.
        available: number of synthetic pairs that there are, |D'|.
        ratio: wanted ratio, counted in pairs; None takes all that there are.
        seed: draws the subset.
        key: what the ratio is called, for messages.

    Returns:
        `[S]` rows of the synthetic pairs, ascending.

    Raises:
        ConfigError: the ratio is negative or beyond what there is.

    Example:
        >>> len(draw_subset(originals=1000, available=200, ratio=0.05, seed=0))
        50
    """
    if ratio is None:
        return np.arange(available)
    if not 0 <= ratio * originals < available + 0.5:
        highest = np.floor(available / max(originals, 1) * 10_000) / 10_000
        raise ConfigError(
            f"{key} is {ratio}: {available} synthetic pairs for {originals} original ones allow 0 to {highest:g} "
            f"(key `{key}`): give one of these, null for all, or a larger set (key `synthetic`)."
        )
    wanted = min(round(ratio * originals), available)
    return np.sort(generator(seed, 0, 0).permutation(available)[:wanted])


class Mixing(ABC):
    """Lays out the batches of an epoch over P original pairs (rows 0..P-1) and S synthetic pairs (rows P..P+S-1).

    Every original pair comes once per epoch, up to the last incomplete round of `world_size` batches.

    Attributes:
        batches: number of batches per epoch over all processes, a multiple of `world_size`, the same every epoch.

    Raises:
        ConfigError: the pairs do not fill one batch per process.
    """

    def __init__(self, originals: int, synthetic: int, batch_size: int, world_size: int, seed: int) -> None:
        self.originals, self.synthetic = originals, synthetic
        self.batch_size, self.world_size, self.seed = batch_size, world_size, seed
        self.batches = self._count()
        if not self.batches:
            raise ConfigError(
                f"{originals} original and {synthetic} synthetic pairs do not fill a batch of {batch_size} on each of "
                f"{world_size} processes: lower `batch_size`."
            )

    def _rounds(self, pairs: int, per_batch: int) -> int:
        return pairs // (per_batch * self.world_size) * self.world_size

    def _draws(self, epoch: int) -> np.random.Generator:
        return generator(self.seed, 1, epoch)

    @abstractmethod
    def _count(self) -> int:
        """Return the number of batches."""

    @abstractmethod
    def draw(self, epoch: int) -> Rows:
        """Return `[batches, batch_size]` rows of the epoch, drawn by seed and epoch alone."""


class Union(Mixing):
    """The paper's mixing: original and chosen synthetic pairs form one set that is shuffled every epoch."""

    def _count(self) -> int:
        return self._rounds(self.originals + self.synthetic, self.batch_size)

    def draw(self, epoch: int) -> Rows:
        """Return `[batches, batch_size]` rows of the epoch, drawn by seed and epoch alone."""
        order = self._draws(epoch).permutation(self.originals + self.synthetic)
        return order[: self.batches * self.batch_size].reshape(self.batches, self.batch_size)


class PairedUnion(Mixing):
    """A union whose synthetic pairs lie in the same batch as their source pairs.

    Sources and their synthetic pairs are dealt over the batches, those with most synthetic pairs first; original pairs
    that are nobody's source fill the batches up. Where too few of these are left, synthetic pairs that overflow their
    batch sit out an epoch; original pairs never do.

    Args:
        sources: `[S]` row of the source pair of each synthetic pair.

    Raises:
        ConfigError: a batch has no room for a couple, or the pairs do not fill one batch per process.
    """

    def __init__(self, originals: int, sources: Rows, batch_size: int, world_size: int, seed: int) -> None:
        if batch_size < 2 and len(sources):
            raise ConfigError(
                f"`batch_size` is {batch_size}, where a synthetic pair and its source need 2 places of a batch (key "
                "`pair_with_source`): raise `data.init_args.batch_size`, or set `data.init_args.pair_with_source: "
                "false`."
            )
        self.sources = sources
        self._family = np.bincount(sources, minlength=originals)
        super().__init__(originals, len(sources), batch_size, world_size, seed)

    def _count(self) -> int:
        sizes = np.sort(self._family[self._family > 0] + 1)[::-1]
        fillers = self.originals - len(sizes)
        batches = self._rounds(self.originals + self.synthetic, self.batch_size)
        while batches > 0:
            loads = np.bincount(np.arange(len(sizes)) % batches, weights=sizes, minlength=batches)
            missing = int((self.batch_size - np.minimum(loads, self.batch_size)).sum()) - fillers
            if missing <= 0:
                break
            batches -= -(-missing // (self.batch_size * self.world_size)) * self.world_size
        return max(batches, 0)

    def draw(self, epoch: int) -> Rows:
        """Return `[batches, batch_size]` rows of the epoch, drawn by seed and epoch alone."""
        draws = self._draws(epoch)
        dealt = draws.permutation(np.flatnonzero(self._family))
        dealt = dealt[np.argsort(-self._family[dealt], kind="stable")]
        batch_of = np.empty(self.originals, dtype=np.int64)
        batch_of[dealt] = draws.permutation(self.batches)[np.arange(len(dealt)) % self.batches]
        copies = draws.permutation(self.synthetic)
        rows = np.concatenate([dealt, self.originals + copies])
        batch = np.concatenate([batch_of[dealt], batch_of[self.sources[copies]]])
        fillers = draws.permutation(np.flatnonzero(self._family == 0))
        return self._lay_out(rows, batch, fillers)

    def _lay_out(self, rows: Rows, batch: Rows, fillers: Rows) -> Rows:
        """Put the rows into their batches, sources before synthetic pairs, and fill the rest."""
        order = np.argsort(batch, kind="stable")
        rows, batch = rows[order], batch[order]
        place = np.arange(len(rows)) - np.searchsorted(batch, batch)
        fits = place < self.batch_size
        table = np.full((self.batches, self.batch_size), -1, dtype=np.int64)
        table[batch[fits], place[fits]] = rows[fits]
        free = table < 0
        table[free] = fillers[: int(free.sum())]
        return table


class FixedShare(Mixing):
    """The same number of synthetic pairs in every batch; an epoch is one pass over the original pairs.

    Synthetic pairs are drawn from reshuffled passes over them, one after another, that run on from epoch to epoch.

    Args:
        share: synthetic pairs per batch.

    Raises:
        ConfigError: the share leaves no room for original pairs, or is more than there are synthetic pairs.
    """

    def __init__(self, originals: int, synthetic: int, share: int, batch_size: int, world_size: int, seed: int) -> None:
        if not 0 < share <= min(synthetic, batch_size - 1):
            raise ConfigError(
                f"synthetic_per_batch is {share}: a batch of {batch_size} and {synthetic} synthetic pairs allow 1 to "
                f"{min(synthetic, batch_size - 1)} (key `synthetic_per_batch`)."
            )
        self.share = share
        super().__init__(originals, synthetic, batch_size, world_size, seed)

    def _count(self) -> int:
        return self._rounds(self.originals, self.batch_size - self.share)

    def draw(self, epoch: int) -> Rows:
        """Return `[batches, batch_size]` rows of the epoch, drawn by seed and epoch alone."""
        per_batch = self.batch_size - self.share
        originals = self._draws(epoch).permutation(self.originals)[: self.batches * per_batch]
        synthetic = EndlessPasses(self.synthetic, self.share, self.seed, purpose=2)
        drawn = synthetic.batches(epoch * self.batches, self.batches)
        return np.hstack([originals.reshape(-1, per_batch), self.originals + drawn])


class PairedFixedShare(Mixing):
    """A fixed share of synthetic pairs, each in the batch of its source pair.

    Every epoch draws anew which sources bring a synthetic pair, and which of theirs.

    Args:
        sources: `[S]` row of the source pair of each synthetic pair.
        share: synthetic pairs per batch; None for the highest possible up to their share of all pairs.

    Raises:
        ConfigError: there are too few sources for this share.
    """

    def __init__(
        self, originals: int, sources: Rows, share: int | None, batch_size: int, world_size: int, seed: int
    ) -> None:
        self._by_source = np.argsort(sources, kind="stable")
        self._parents, self._starts, self._sizes = np.unique(
            sources[self._by_source], return_index=True, return_counts=True
        )
        self.batch_size, self.world_size, self.originals = batch_size, world_size, originals
        highest = next((n for n in range(batch_size // 2, 0, -1) if self._enough(n)), 0)
        wanted = proportional_share(originals, len(sources), batch_size)
        self.share = min(wanted, highest) if share is None else share
        if not 0 < self.share <= highest:
            raise ConfigError(
                f"synthetic_per_batch is {share}: {len(self._parents)} source pairs allow {highest} of their synthetic "
                "pairs in every batch (keys `synthetic_per_batch`, `pair_with_source`): give 1 up to this, raise "
                "`ratio`, or set `mixing` to concat."
            )
        super().__init__(originals, len(sources), batch_size, world_size, seed)

    def _enough(self, share: int) -> bool:
        return share * self._rounds(self.originals, self.batch_size - share) <= len(self._parents)

    def _count(self) -> int:
        return self._rounds(self.originals, self.batch_size - self.share)

    def draw(self, epoch: int) -> Rows:
        """Return `[batches, batch_size]` rows of the epoch, drawn by seed and epoch alone."""
        draws = self._draws(epoch)
        chosen = draws.permutation(len(self._parents))[: self.batches * self.share]
        which = self._starts[chosen] + draws.integers(self._sizes[chosen])
        parents, synthetic = self._parents[chosen], self.originals + self._by_source[which]
        others = draws.permutation(np.setdiff1d(np.arange(self.originals), parents, assume_unique=True))
        alone = self.batch_size - 2 * self.share
        blocks = (parents, self.share), (others[: self.batches * alone], alone), (synthetic, self.share)
        return np.hstack([rows.reshape(self.batches, width) for rows, width in blocks])


class OriginalsAlone(Mixing):
    """The control of a mixing: batches of original pairs alone, as many in an epoch as the mixing has.

    The pairs come in reshuffled passes that run on from epoch to epoch, so that over a run each comes equally often, or
    once more than others; none comes twice in a batch unless a batch is larger than their number.

    Args:
        mixing: original and synthetic pairs, whose batches are counted.
    """

    def __init__(self, mixing: Mixing) -> None:
        self._as_many = mixing.batches
        super().__init__(mixing.originals, 0, mixing.batch_size, mixing.world_size, mixing.seed)

    def _count(self) -> int:
        return self._as_many

    def draw(self, epoch: int) -> Rows:
        """Return `[batches, batch_size]` rows of the epoch, drawn by seed and epoch alone."""
        passes = EndlessPasses(self.originals, self.batch_size, self.seed, purpose=3)
        return passes.batches(epoch * self.batches, self.batches)


class CutAnew(Mixing):
    """Epochs of another length: the batches of a mixing, one of its epochs after the other, cut anew.

    Args:
        mixing: whose batches they are.
        batches: of an epoch over all processes, a multiple of their number.
    """

    def __init__(self, mixing: Mixing, batches: int) -> None:
        self._mixing, self._wanted = mixing, batches
        super().__init__(mixing.originals, mixing.synthetic, mixing.batch_size, mixing.world_size, mixing.seed)

    def _count(self) -> int:
        return self._wanted

    def draw(self, epoch: int) -> Rows:
        """Return `[batches, batch_size]` rows of the epoch, drawn by seed and epoch alone."""
        first = epoch * self.batches
        begin, skipped = divmod(first, self._mixing.batches)
        end = -(-(first + self.batches) // self._mixing.batches)
        drawn = np.concatenate([self._mixing.draw(number) for number in range(begin, end)])
        return drawn[skipped : skipped + self.batches]


def proportional_share(originals: int, synthetic: int, batch_size: int) -> int:
    """Return how many rows of a batch are synthetic where both kinds are drawn alike, at least 1 and not all.

    Example:
        >>> proportional_share(originals=566_747, synthetic=45_467, batch_size=256)
        19
    """
    return max(1, min(round(batch_size * synthetic / (originals + synthetic)), batch_size - 1, synthetic))
