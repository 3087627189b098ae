"""The classes that `predict` found, and the images that it got wrong."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_modules.callbacks.predicted_rows import PredictedRows
from lightning_modules.distributed import gather

COLUMNS = ("image_id", "label", "attribute", "predicted")


class SavePredictions(PredictedRows):
    """Writes `predictions.csv` and, with the wrong ones of its rows alone, `errors.csv` into the run folder.

    Both have the columns image_id, label, attribute and predicted, a row for each image that `predict` saw on any rank,
    in the order of image ids; of an image that came twice the first row of the lowest rank, as `GroupAccuracy` counts.
    `data.init_args.predict_split` says which split that is; the errors of the training split are what a second training
    of just-train-twice draws more often (`data.init_args.errors`; Liu et al. 2021, "Just Train Twice").
    """

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rows of all ranks."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # asks rank zero: all ranks must do it
        none = torch.empty(0, dtype=torch.int64)
        own = self.take()
        rows = gather(torch.stack([own.get(name, none) for name in COLUMNS], dim=1)).numpy()
        found = rows[np.unique(rows[:, 0], return_index=True)[1]]
        if not trainer.is_global_zero:
            return
        wrong = found[found[:, 1] != found[:, 3]]
        for name, rows in (("predictions.csv", found), ("errors.csv", wrong)):
            with (folder / name).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([COLUMNS, *rows.tolist()])
        rank_zero_info(
            f"Predictions: {folder}/predictions.csv, {len(wrong)} of {len(found)} wrong: {folder}/errors.csv"
        )
