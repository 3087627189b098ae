"""Loaders over the datasets, and the gallery of captions that an evaluation loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from datamodules.batch import RetrievalBatch
from datamodules.datasets import RetrievalDataset, Sample
from datamodules.errors import ConfigError
from datamodules.sampling import ShardedSampler
from datamodules.tables import Tables

if TYPE_CHECKING:
    from lightning import Trainer


class RetrievalLoader(DataLoader[Sample]):
    """A DataLoader that leaves out batches with nothing readable and stops at too many unreadable images.

    The check runs in the process that iterates, so the user sees one sentence instead of a worker's traceback.

    Raises:
        UnreadableImageError: while iterating, where the dataset's reader exceeds its limit.
    """

    dataset: RetrievalDataset

    def __iter__(self) -> Iterator[RetrievalBatch]:  # type: ignore[override]
        for batch in super().__iter__():
            if self.dataset.reader is not None:
                self.dataset.reader.check()
            if batch is not None:
                yield batch


def make_loader(dataset: RetrievalDataset, num_workers: int, seed: int, **options: Any) -> RetrievalLoader:
    """Return a loader that takes nothing from torch's global generator, which is the model's.

    Raises:
        ConfigError: the dataset's reader knows that some of its images are missing.
    """
    if dataset.reader is not None:
        dataset.reader.expect(dataset.image_ids)
    return RetrievalLoader(
        dataset,
        collate_fn=dataset.collate,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


def evaluation_loaders(
    parts: Sequence[RetrievalDataset], trainer: Trainer | None, num_workers: int, seed: int, batch_size: int
) -> list[RetrievalLoader]:
    """Return a loader for the rows of each part that belong to this process."""
    rank, world_size = place(trainer)
    return [
        make_loader(part, num_workers, seed, sampler=ShardedSampler(part, rank, world_size), batch_size=batch_size)
        for part in parts
    ]


def gallery(
    tables: Tables, split: str, everything: bool, most: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the caption rows of a gallery, `[G]`, and whether each counts for recall on the split, `[G]` bool.

    Args:
        tables: the data set.
        split: the evaluated split.
        everything: take the captions of all splits, not of this one alone.
        most: how many captions of an image count for recall, the first ones; None for all.
    """
    own = tables.captions_of(tables.rows(split))
    place = own - tables.caption_offsets[tables.caption_images[own]]
    counts = np.ones(len(own), dtype=bool) if most is None else place < most
    if not everything:
        return own, counts
    in_split = np.zeros(len(tables.caption_ids), dtype=bool)
    in_split[own[counts]] = True
    return np.arange(len(in_split)), in_split


def rows_of_splits(tables: Tables, key: str, *splits: str) -> NDArray[np.int64]:
    """Return the image rows of these splits, ascending.

    Args:
        tables: the data set.
        key: the config key that names the splits.
        *splits: names of splits.

    Raises:
        ConfigError: no image belongs to them.
    """
    rows = tables.rows(*splits)
    if not len(rows):
        raise ConfigError(
            f"No image belongs to {' or '.join(splits)} (key `{key}`): the splits of this data set are "
            f"{', '.join(tables.splits)}."
        )
    return rows


def folds(images: int, size: int | None) -> NDArray[np.int64] | None:
    """Return the fold of each image by its position, `[images]`: folds of `size`, then -1 for those left over.

    Args:
        images: images of the evaluated split, in the order of the annotation file.
        size: images per fold; None where no folds are asked for.

    Returns:
        None where no folds are asked for, and (with a warning) where the images do not fill one.

    Example:
        >>> folds(7, 3)
        array([ 0,  0,  0,  1,  1,  1, -1])
    """
    if size is None:
        return None
    if images < size:
        from lightning.pytorch.utilities import rank_zero_warn

        rank_zero_warn(f"{images} images do not fill a fold of {size} (key `eval_fold_size`): no folds are measured.")
        return None
    numbers = np.arange(images) // size
    return np.where(numbers < images // size, numbers, -1)


def place(trainer: Trainer | None) -> tuple[int, int]:
    """Return the number of this process and of all, one without a trainer.

    Raises:
        ConfigError: Lightning would shard once more.
    """
    if trainer is None:
        return 0, 1
    if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
        raise ConfigError("The data is sharded already: set `trainer.use_distributed_sampler` to false.")
    return trainer.global_rank, trainer.world_size
