"""The rows that `predict` computes, kept until it ends."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class PredictedRows(Callback):
    """Keeps the columns that `predict_step` returns for its batches; a subclass writes them in `on_predict_end`."""

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what a run that was broken off has left."""
        self._batches = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the rows of this batch."""
        self._batches.append(outputs)

    def take(self) -> dict[str, Tensor]:
        """Return the columns of this rank's rows, none where it has no rows, and let go of them."""
        batches, self._batches = self._batches, []
        return {name: torch.cat([batch[name] for batch in batches]) for name in (batches[0] if batches else ())}
