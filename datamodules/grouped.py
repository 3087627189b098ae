"""The datamodule of data sets whose images have a class and a spurious attribute: labels in, no captions."""

from __future__ import annotations

import os
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.arguments import check_counts
from datamodules.csv_columns import listed_ids
from datamodules.errors import ConfigError
from datamodules.group_datasets import EvaluationGroupImages, TrainGroupImages
from datamodules.group_sampling import GroupBatchSampler, GroupSampling
from datamodules.group_table import SPLITS, GroupTable
from datamodules.images import ImageReader, open_rgb
from datamodules.loaders import RetrievalLoader, evaluation_loaders, make_loader, place
from datamodules.processor import Processor, find_processor
from datamodules.resuming import ResumableDataModule

if TYPE_CHECKING:
    from PIL import Image


class GroupedDataModule(ResumableDataModule):
    """Images with a class y of L and a spurious attribute a of A; the group of an image is `y * A + a`.

    A subclass says where its data lies: it implements `read`, sets `image_root` and names labels and attributes.
    Batches hold images, ids, labels and attributes. The texts that tell the classes belong to the model.

    Args:
        sampling: "plain" shuffles the training images, each once per epoch; "group_balanced" draws every group that has
            images equally often, see `datamodules.group_sampling.GroupBalanced`.
        errors: csv whose column `image_id` lists the training images that a first model got wrong, such as the
            `errors.csv` that `predict` writes over `predict_split: train`; None for none. Just-train-twice trains a
            second model on each of them `error_weight` times per epoch and on the others once (Liu et al. 2021).
        error_weight: how often an epoch has each of these images; goes with `errors`.
        predict_split: the split that `predict` runs over.
        batch_size: training images per batch on one process.
        eval_batch_size: images per batch in evaluation.
        num_workers: loader processes; 0 loads in the process itself.
        seed: draws the order and the augmentation.
        max_unreadable: how many images may be unreadable before the run stops.
        processor: preprocessing of the backbone; None takes it from the LightningModule of the trainer.

    Attributes:
        image_root: folder of the images, set by the subclass.
        label_names: names of the L classes, in the order of their labels.
        attribute_names: names of the A values of the spurious attribute, in their order.

    Raises:
        ConfigError: a value cannot work, or contradicts another.
    """

    image_root: Path
    label_names: tuple[str, ...]
    attribute_names: tuple[str, ...]

    def __init__(
        self,
        sampling: GroupSampling = "plain",
        errors: str | os.PathLike[str] | None = None,
        error_weight: int | None = None,
        predict_split: Literal["train", "val", "test"] = "test",
        batch_size: int = 128,
        eval_batch_size: int = 256,
        num_workers: int = min(4, os.cpu_count() or 1),
        seed: int = 0,
        max_unreadable: int = 10,
        processor: Processor | None = None,
    ) -> None:
        super().__init__()
        check_counts(eval_batch_size, num_workers, seed, None, None)
        _check_choices(sampling, errors, error_weight, predict_split)
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a small split need not reach every process
        self.sampling, self.error_weight, self.predict_split = sampling, error_weight, predict_split
        self.errors = None if errors is None else Path(errors)
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.seed, self.max_unreadable = seed, max_unreadable
        self._processor = processor

    @abstractmethod
    def read(self) -> GroupTable:
        """Return the columns of the data set."""

    def mask_path(self, row: int) -> Path | None:
        """Return the mask file of the object in an image row, white on black; None where there are no masks."""
        return None

    @property
    def processor(self) -> Processor:
        """Preprocessing of the backbone.

        Raises:
            ConfigError: there is none, or it takes something other than images.
        """
        return find_processor(self._processor, self.trainer, None)

    @cached_property
    def table(self) -> GroupTable:
        """The data set as columns."""
        return self.read()

    @cached_property
    def reader(self) -> ImageReader:
        """Reads images and counts those that cannot be read, over all loaders."""
        return ImageReader(self.max_unreadable)

    @property
    def train_group_counts(self) -> NDArray[np.int64]:
        """`[L * A]` int64, training images per group: the weights of the adjusted average."""
        return self.table.counts("train")

    def image_path(self, row: int) -> Path:
        """Return the file of an image row."""
        return self.image_root / str(self.table.files[row])

    def read_image(self, row: int) -> Image.Image:
        """Return the image of an image row in RGB.

        Raises:
            UnreadableImageError: the file cannot be read.
        """
        return open_rgb(self.image_path(row))

    def setup(self, stage: str | None = None) -> None:
        """Read the columns, in every process, so that a mistake in them is found before the model is built.

        Raises:
            AnnotationError: the metadata contradicts itself.
            MissingPathError: a file or an image is not there.
            ConfigError: `errors` lists what is no training image.
        """
        _ = self.table
        if stage in (None, "fit"):
            self._copies()

    def _copies(self) -> NDArray[np.int64] | None:
        """Return how often an epoch has each training image, `[N]`; None where that is once for all."""
        if self.errors is None or self.error_weight is None:
            return None
        ids = self.table.image_ids[self.table.rows("train")]
        return np.where(np.isin(ids, listed_ids(self.errors, ids)), self.error_weight, 1)

    def train_dataloader(self) -> RetrievalLoader:
        """Return the loader of training images, at the very next batch where a run is resumed."""
        rows = self.table.rows("train")
        rank, world_size = place(self.trainer)
        sampler = GroupBatchSampler(
            self.table.groups[rows],
            sampling=self.sampling,
            copies=self._copies(),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        self._resume(sampler)
        images = TrainGroupImages(self.table, self.image_root, rows, self.processor, self.reader, self.seed)
        options = {"batch_sampler": sampler, "persistent_workers": self.num_workers > 0}
        return make_loader(images, self.num_workers, self.seed, **options)

    def evaluation_dataloader(self, split: str) -> RetrievalLoader:
        """Return the loader of a split as it is evaluated: every image once over all processes, unaugmented.

        Raises:
            ConfigError: there are more processes than images; one without any would leave the others waiting for it.
        """
        rows = self.table.rows(split)
        _, processes = place(self.trainer)
        if len(rows) < processes:
            raise ConfigError(
                f"Split {split} has {len(rows)} images for {processes} processes: lower `trainer.devices`, or give the "
                "split more images."
            )
        images = EvaluationGroupImages(self.table, self.image_root, rows, self.processor, self.reader)
        return evaluation_loaders([images], self.trainer, self.num_workers, self.seed, self.eval_batch_size)[0]

    def val_dataloader(self) -> RetrievalLoader:
        """Return the loader of the validation split."""
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> RetrievalLoader:
        """Return the loader of the test split."""
        return self.evaluation_dataloader("test")

    def predict_dataloader(self) -> RetrievalLoader:
        """Return the loader of the split that `predict_split` names, as it is evaluated."""
        return self.evaluation_dataloader(self.predict_split)


def _check_choices(sampling: str, errors: object, error_weight: int | None, predict_split: str) -> None:
    if sampling not in ("plain", "group_balanced"):
        raise ConfigError(f"sampling is {sampling!r}: give plain or group_balanced (key `sampling`).")
    if predict_split not in SPLITS:
        raise ConfigError(f"predict_split is {predict_split!r}: give {', '.join(SPLITS)} (key `predict_split`).")
    if (errors is None) != (error_weight is None):
        raise ConfigError(
            f"errors is {errors} and error_weight is {error_weight}: give both, for just-train-twice, or neither (keys "
            "`data.init_args.errors` and `data.init_args.error_weight`)."
        )
    if error_weight is not None and error_weight < 1:
        raise ConfigError(f"error_weight is {error_weight}: give 1 or more (key `data.init_args.error_weight`).")
    if errors is not None and sampling != "plain":
        raise ConfigError(
            "sampling is group_balanced and errors is given, but both decide how often an image is drawn: set "
            "`data.init_args.sampling` to plain or leave `data.init_args.errors` out."
        )
