"""The columns of a data set whose images have a class and a spurious attribute, and its parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import ConfigError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class GroupTable:
    """N images in the order of their file, as columns that loader workers share.

    Attributes:
        image_ids: `[N]` int64, unique.
        files: `[N]` text, relative to the folder of the images.
        labels: `[N]` int64, class of each image, 0..L-1.
        attributes: `[N]` int64, value of its spurious attribute, 0..A-1.
        splits: `[N]` int8, index into `SPLITS`.
        shape: L and A.

    Example:
        >>> two = np.array([1, 0])
        >>> table = GroupTable(two, np.array(["a.png", "b.png"]), two, two, np.zeros(2, np.int8), (2, 2))
        >>> table.groups.tolist(), table.counts("train").tolist()
        ([3, 0], [1, 0, 0, 1])
    """

    image_ids: NDArray[np.int64]
    files: NDArray[np.str_]
    labels: NDArray[np.int64]
    attributes: NDArray[np.int64]
    splits: NDArray[np.int8]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def groups(self) -> NDArray[np.int64]:
        """`[N]` int64, `label * A + attribute`."""
        return self.labels * self.shape[1] + self.attributes

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of a split, ascending.

        Raises:
            ConfigError: it has no image.
        """
        rows = np.flatnonzero(self.splits == SPLITS.index(split))
        if not len(rows):
            raise ConfigError(
                f"No image belongs to the split {split}, which this run needs: add rows of it to the metadata below "
                "`data.init_args.root`."
            )
        return rows

    def counts(self, split: str) -> NDArray[np.int64]:
        """Return `[L * A]` int64, images per group in a split; groups without any have 0."""
        return np.bincount(self.groups[self.splits == SPLITS.index(split)], minlength=self.shape[0] * self.shape[1])
