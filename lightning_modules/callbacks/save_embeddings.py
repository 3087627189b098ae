"""What `predict` computes, saved beside the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor


class SaveEmbeddings(Callback):
    """Writes the embeddings of `predict` into the run folder, one file per rank: `embeddings-RANK.pt`.

    A file holds `image_ids [N]` and `caption_ids [N]` (int64, -1 in the row of an image) and `embeddings [N, D]`
    (float32); `torch.load(path, weights_only=True)` reads it.
    """

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []

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

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rows of this rank; a rank that has none writes no file."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # asks rank zero: all ranks must do it
        if self._batches:
            rows = {name: torch.cat([batch[name] for batch in self._batches]) for name in self._batches[0]}
            torch.save(rows, folder / f"embeddings-{trainer.global_rank}.pt")
        rank_zero_info(f"Embeddings: {folder}/embeddings-*.pt")
        self._batches = []
