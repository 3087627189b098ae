"""A progress bar that lets the device work on."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

_INTERVAL = 0.5  # seconds


class CalmProgressBar(RichProgressBar):
    """Reads the numbers beside the bar twice a second, not after every batch.

    Reading a loss waits until a GPU has done all that it was given, and then it has nothing to do.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, Any] = {}
        self._next = 0.0

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the numbers to show."""
        now = time.monotonic()
        if now >= self._next:
            self._shown, self._next = super().get_metrics(trainer, pl_module), now + _INTERVAL
        return self._shown

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the last numbers of the epoch."""
        self._next = 0.0
        super().on_train_epoch_end(trainer, pl_module)
