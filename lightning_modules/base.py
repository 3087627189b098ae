"""The backbone's contract for retrieval: what a subclass gives, and the evaluation and logging that it inherits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules.distributed import share_buffers
from lightning_modules.evaluation import RetrievalEvaluation
from lightning_modules.image_text import ImageTextModule
from lightning_modules.query_tables import intervals


class RetrievalModule(ImageTextModule):
    """An image-text retrieval model that can be trained and scored.

    A subclass calls `super().__init__`, builds its towers and its `processor`, and implements `encode_images`,
    `encode_texts` and `training_loss`. Everything else is inherited.

    Args:
        top_k: cut-offs k of recall and ODmAP.
        **options: the arguments of `ImageTextModule`: optimiser and schedule, freezing, micro-batches, compilation.

    Raises:
        ConfigError: when a number is out of its range.
    """

    monitor: ClassVar[str] = "val/rsum"

    def __init__(self, *, top_k: Sequence[int] = (1, 5, 10), **options: Any) -> None:
        super().__init__(**options)
        self.evaluations = _evaluations(top_k)

    def setup(self, stage: str) -> None:
        """Check that the data is not that of a classifier.

        Raises:
            ConfigError: it has groups, and no captions.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if hasattr(data, "train_group_counts"):
            raise ConfigError(
                f"`data.class_path`: {type(self).__name__} is scored by retrieval, but {type(data).__name__} has "
                "groups and no captions; take data with captions, or a model that is scored by groups."
            )

    def validation_step(self, batch: RetrievalBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Encode a batch of images or captions for the validation scores."""
        self._evaluate("val", batch)

    def test_step(self, batch: RetrievalBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Encode a batch of images or captions for the test scores."""
        self._evaluate("test", batch)

    def on_validation_epoch_start(self) -> None:
        """Forget what a validation that was broken off has left."""
        self._start_scores("val")

    def on_test_epoch_start(self) -> None:
        """Forget what a test that was broken off has left."""
        self._start_scores("test")

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores, outside `fit` with their 95 % intervals."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the test scores with their 95 % intervals."""
        self._log_scores("test")

    def _evaluate(self, stage: str, batch: RetrievalBatch) -> None:
        embeddings = self._encode(batch)
        if batch.pixel_values is not None:
            self._evaluation(stage).update_images(batch, embeddings)
        else:
            self._evaluation(stage).update_captions(batch, embeddings)

    def _evaluation(self, stage: str) -> RetrievalEvaluation:
        evaluation = self.evaluations[stage]
        assert isinstance(evaluation, RetrievalEvaluation)  # noqa: S101 (tells mypy what ModuleDict forgot)
        return evaluation

    def _start_scores(self, stage: str) -> None:
        share_buffers(self)
        data = getattr(self.trainer, "datamodule", None)
        self._evaluation(stage).start(getattr(data, "positives", None))

    def _log_scores(self, stage: str) -> None:
        evaluation = self._evaluation(stage)
        scores = evaluation.compute()
        if self.trainer.state.fn != "fit":
            scores |= intervals(evaluation.tables)
        # All ranks hold the same values, of which a maximum is exact where a mean over ranks may round.
        self.log_dict({f"{stage}/{name}": value for name, value in scores.items()}, sync_dist=True, reduce_fx="max")


def _evaluations(top_k: Sequence[int]) -> torch.nn.ModuleDict:
    try:
        return torch.nn.ModuleDict({stage: RetrievalEvaluation(top_k) for stage in ("val", "test")})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"`model.init_args.top_k` is {list(top_k)}: {error}") from error
