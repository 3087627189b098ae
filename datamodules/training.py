"""What a data module trains on: the pairs of a run, their batches, and where in them a run is."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from datamodules.datasets import Captions, OriginalImages, RetrievalDataset, TrainPairs
from datamodules.errors import ConfigError
from datamodules.images import Reader
from datamodules.loaders import RetrievalLoader, evaluation_loaders, make_loader, place, rows_of_splits
from datamodules.mixing import draw_subset
from datamodules.processor import Processor
from datamodules.resuming import ResumableDataModule
from datamodules.sampling import MixedBatchSampler, MixingMode
from datamodules.shown import shown_after_removal, shown_classes
from datamodules.synthetic_set import SyntheticSet
from datamodules.tables import Tables


class TrainingDataModule(ResumableDataModule):
    """The training half of `RetrievalDataModule`, which says what the attributes are."""

    image_root: Path
    train_splits: tuple[str, ...]
    ratio: float | None
    mixing: MixingMode
    synthetic_per_batch: int | None
    pair_with_source: bool
    control: bool
    trained_ratio: float | None
    batch_size: int
    eval_batch_size: int
    num_workers: int
    seed: int

    @property
    @abstractmethod
    def tables(self) -> Tables:
        """The original data set as columns."""

    @property
    @abstractmethod
    def reader(self) -> Reader:
        """Reads images or features, and counts those that cannot be read."""

    @property
    @abstractmethod
    def processor(self) -> Processor:
        """Preprocessing of the backbone."""

    @abstractmethod
    def _synthetic(self, *splits: str) -> SyntheticSet | None:
        """Return the synthetic pairs or queries of these splits, None where there is no synthetic set."""

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.int64], SyntheticSet | None, NDArray[np.int64]]:
        """Caption rows of the original pairs, the synthetic set, and its rows that are trained on or counted."""
        captions = self.tables.captions_of(rows_of_splits(self.tables, "train_splits", *self.train_splits))
        synthetic = None if self.ratio == 0 else self._synthetic(*self.train_splits)
        if synthetic is not None:
            synthetic.check_captions()
        chosen = self._subset(len(captions), synthetic, "ratio" if self.trained_ratio is None else "trained_ratio")
        self._check_control(len(chosen))
        return captions, synthetic, chosen

    def _subset(self, originals: int, synthetic: SyntheticSet | None, key: str) -> NDArray[np.int64]:
        available = 0 if synthetic is None else len(synthetic)
        return draw_subset(originals, available, getattr(self, key), self.seed, key)

    def _check_control(self, counted: int) -> None:
        if self.control and self.trained_ratio is not None:
            raise ConfigError(
                f"control is true, but trained_ratio is {self.trained_ratio}, and a control has no synthetic pairs: "
                "leave out `control` or `trained_ratio`."
            )
        if self.control and not counted:
            raise ConfigError(
                "control is true, but there are no synthetic pairs whose batches it could count: give `synthetic` and "
                "`ratio` of the run that it is compared with, or leave `control` out."
            )

    def training_captions(self) -> list[str]:
        """Return the captions of all original training pairs."""
        images = rows_of_splits(self.tables, "train_splits", *self.train_splits)
        return self.tables.texts.take(self.tables.captions_of(images))

    def training_samples(self, images: int, captions: int) -> list[RetrievalLoader]:
        """Return loaders of images and of captions that are trained on, drawn by `seed`, in evaluation's form.

        Each process loads its share. What an evaluation learns of the training split, it learns from these.

        Args:
            images: how many original images; all where there are fewer.
            captions: how many captions of original images, drawn on their own; all where there are fewer.

        Raises:
            ConfigError: no image belongs to `train_splits`.
        """
        rows = rows_of_splits(self.tables, "train_splits", *self.train_splits)
        drawn, texts = (
            np.sort(np.random.default_rng((self.seed, number)).permutation(some)[:count])
            for number, (some, count) in enumerate(((rows, images), (self.tables.captions_of(rows), captions)))
        )
        parts: list[RetrievalDataset] = [
            OriginalImages(self.tables, self.image_root, drawn, self.processor, self.reader),
            Captions(self.tables, texts, np.ones(len(texts), dtype=bool), None, self.processor),
        ]
        return evaluation_loaders(parts, self.trainer, self.num_workers, self.seed, self.eval_batch_size)

    def shown_classes(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return which classes the images that are trained on show, by their objects.

        Returns:
            Image ids `[N]`, ascending, and classes `[N, C]` bool; a synthetic image lacks what was removed from it.
        """
        captions, synthetic, chosen = self._pairs
        images = np.unique(self.tables.caption_images[captions])
        ids, shown = self.tables.image_ids[images], shown_classes(self.tables)[images]
        if synthetic is not None:
            made, left = shown_after_removal(self.tables, synthetic, chosen)
            ids, shown = np.append(ids, made), np.vstack([shown, left])
        order = np.argsort(ids)
        return ids[order], shown[order]

    def _sources(self, chosen: NDArray[np.int64]) -> NDArray[np.int64] | None:
        captions, synthetic, _ = self._pairs
        if synthetic is None or not self.pair_with_source:
            return None
        return synthetic.source_rows(chosen, self.tables.caption_ids[captions])

    def train_dataloader(self) -> RetrievalLoader:
        """Return the loader of original and synthetic pairs, at the very next batch where a run is resumed."""
        captions, synthetic, chosen = self._pairs
        batches = None
        if self.trained_ratio is not None:
            batches = self._mixed(self._subset(len(captions), synthetic, "ratio")).mixing.batches
        sampler = self._mixed(chosen, batches)
        self._resume(sampler)
        if self.control:
            synthetic, chosen = None, chosen[:0]
        pairs = TrainPairs(
            self.tables, self.image_root, captions, synthetic, chosen, self.processor, self.reader, self.seed
        )
        options = {"batch_sampler": sampler, "persistent_workers": self.num_workers > 0}
        return make_loader(pairs, self.num_workers, self.seed, **options)

    def _mixed(self, chosen: NDArray[np.int64], batches: int | None = None) -> MixedBatchSampler:
        rank, world_size = place(self.trainer)
        return MixedBatchSampler(
            len(self._pairs[0]),
            len(chosen),
            batch_size=self.batch_size,
            mode=self.mixing,
            synthetic_per_batch=self.synthetic_per_batch,
            sources=self._sources(chosen),
            control=self.control,
            batches=batches,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )

    def teardown(self, stage: str) -> None:
        """Say what a run was trained on."""
        if stage == "fit" and self._sampler is not None:
            rank_zero_info(f"Trained on {self._what(self._sampler)}.")

    def _what(self, sampler: MixedBatchSampler) -> str:
        captions, synthetic, chosen = self._pairs
        batches = f"{len(sampler):,} batches of {self.batch_size} an epoch"
        if sampler.world_size > 1:
            batches += f" on each of {sampler.world_size} processes"
        if self.control:
            return f"{len(captions):,} original pairs alone: {batches}, as many as with {len(chosen):,} synthetic pairs"
        if self.trained_ratio is not None:
            batches += f", as many as with {len(self._subset(len(captions), synthetic, 'ratio')):,} synthetic ones"
        return f"{len(captions):,} original and {len(chosen):,} synthetic pairs: {batches}"
