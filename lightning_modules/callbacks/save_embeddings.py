"""What `predict` computes, saved beside the run."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_modules.callbacks.predicted_rows import PredictedRows


class SaveEmbeddings(PredictedRows):
    """Writes the embeddings of `predict` into the run folder, one file per rank: `embeddings-RANK.pt`.

    A file holds `image_ids [N]` and `caption_ids [N]` (int64, -1 in the row of an image) and `embeddings [N, D]`
    (float32); `torch.load(path, weights_only=True)` reads it.
    """

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rows of this rank; a rank that has none writes no file."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # asks rank zero: all ranks must do it
        if rows := self.take():
            torch.save(rows, folder / f"embeddings-{trainer.global_rank}.pt")
        rank_zero_info(f"Embeddings: {folder}/embeddings-*.pt")
