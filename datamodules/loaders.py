"""Loaders over the datasets, and the gallery of captions that an evaluation loads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from datamodules.batch import RetrievalBatch
from datamodules.datasets import RetrievalDataset, Sample
from datamodules.errors import ConfigError
from datamodules.tables import Tables


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
    """Return a loader that takes nothing from torch's global generator, which is the model's."""
    return RetrievalLoader(
        dataset,
        collate_fn=dataset.collate,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


def gallery(tables: Tables, split: str, everything: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the caption rows of a gallery, `[G]`, and whether each belongs to the split, `[G]` bool.

    Args:
        tables: the data set.
        split: the evaluated split.
        everything: take the captions of all splits, not of this one alone.
    """
    own = tables.captions_of(tables.rows(split))
    if not everything:
        return own, np.ones(len(own), dtype=bool)
    in_split = np.zeros(len(tables.caption_ids), dtype=bool)
    in_split[own] = True
    return np.arange(len(in_split)), in_split


def check_counts(eval_batch_size: int, num_workers: int, seed: int) -> None:
    """Refuse numbers that no loader can have.

    Raises:
        ConfigError: one of them is too small.
    """
    if eval_batch_size < 1:
        raise ConfigError(f"eval_batch_size is {eval_batch_size}: give 1 or more (key `eval_batch_size`).")
    if num_workers < 0:
        raise ConfigError(f"num_workers is {num_workers}: give 0 or more processes (key `num_workers`).")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: give 0 or more (key `seed`).")
