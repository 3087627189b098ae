"""Classifiers that are scored by groups: every class in every kind of surroundings."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from lightning.pytorch import Callback
from torch import Tensor

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules.callbacks.save_predictions import SavePredictions
from lightning_modules.distributed import share_buffers
from lightning_modules.image_text import ImageTextModule
from metrics import GroupAccuracy


class GroupedModule(ImageTextModule):
    """An image-text model that classifies images, scored by its worst group.

    A subclass implements `class_scores` beside what every `ImageTextModule` implements. The data module says what the
    groups are (`label_names`, `attribute_names`) and how frequent they are in training (`train_group_counts`), and its
    batches hold `labels` and `attributes`. The scores are those of `metrics.GroupAccuracy`, in per cent:
    `val/worst_group`, by which the best checkpoint is chosen, `val/average`, `val/adjusted_average`,
    `val/empty_groups`, and `val/group/LABEL-ATTRIBUTE` for every group. Selection by `val/worst_group` needs the
    attributes of the validation split.

    `predict` writes the predicted classes, see `SavePredictions`.

    Args:
        **options: the arguments of `ImageTextModule`.
    """

    monitor: ClassVar[str] = "val/worst_group"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._accuracy: GroupAccuracy | None = None

    @abstractmethod
    def class_scores(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to a score for every class `[B, L]`, higher where it fits."""

    def setup(self, stage: str) -> None:
        """Check that the data has groups.

        Raises:
            ConfigError: it has none.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "train_group_counts"):
            raise ConfigError(
                f"`data.class_path`: {type(self).__name__} is scored by groups, of which {type(data).__name__} knows "
                "none; take one with labels and attributes, such as WaterbirdsDataModule."
            )

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks of every training, and the one that writes predictions."""
        return [*super().configure_callbacks(), SavePredictions()]

    def validation_step(self, batch: RetrievalBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Classify a batch of images for the validation scores."""
        self._classify(batch)

    def test_step(self, batch: RetrievalBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Classify a batch of images for the test scores."""
        self._classify(batch)

    def predict_step(self, batch: RetrievalBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return ids, labels, attributes and predicted classes `[B]` int64 of a batch, on the CPU."""
        labels, attributes = self.labels_of(batch)
        rows = {
            "image_id": batch.image_ids,
            "label": labels,
            "attribute": attributes,
            "predicted": self._predictions(batch),
        }
        return {name: tensor.cpu() for name, tensor in rows.items()}

    def on_validation_epoch_start(self) -> None:
        """Forget what a validation that was broken off has left."""
        self._start_scores()

    def on_test_epoch_start(self) -> None:
        """Forget what a test that was broken off has left."""
        self._start_scores()

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the test scores."""
        self._log_scores("test")

    def labels_of(self, batch: RetrievalBatch) -> tuple[Tensor, Tensor]:
        """Return labels and attributes, `[B]` int64 each.

        Raises:
            ValueError: the batch lacks them.
        """
        if batch.labels is None or batch.attributes is None:
            raise ValueError(f"{type(self).__name__} needs the `labels` and `attributes` of a batch.")
        return batch.labels, batch.attributes

    def _predictions(self, batch: RetrievalBatch) -> Tensor:
        if batch.pixel_values is None:
            raise ValueError(f"{type(self).__name__} needs the `pixel_values` of a batch.")
        return self.class_scores(batch.pixel_values).argmax(dim=1)

    def _classify(self, batch: RetrievalBatch) -> None:
        labels, attributes = self.labels_of(batch)
        assert self._accuracy is not None  # noqa: S101 (the epoch has started)
        groups = labels * self._attribute_count + attributes
        self._accuracy.update(self._predictions(batch) == labels, groups, batch.image_ids)

    def _start_scores(self) -> None:
        share_buffers(self)
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self._attribute_count = len(data.attribute_names)
        names = [f"{label}-{attribute}" for label in data.label_names for attribute in data.attribute_names]
        counts = list(data.train_group_counts)
        self._accuracy = GroupAccuracy(len(names), counts if any(counts) else None, names)  # a set may be test alone

    def _log_scores(self, stage: str) -> None:
        assert self._accuracy is not None  # noqa: S101 (the epoch has started)
        scores, self._accuracy = self._accuracy.compute(), None
        # All ranks hold the same values, of which a maximum is exact where a mean over ranks may round.
        values = {f"{stage}/{name}": value.float() for name, value in scores.items()}
        self.log_dict(values, sync_dist=True, reduce_fx="max")
