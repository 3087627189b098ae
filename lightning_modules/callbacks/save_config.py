"""The resolved config, saved beside the run and sent to its loggers."""

from __future__ import annotations

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger


class SaveRunConfig(SaveConfigCallback):
    """Writes `config.yaml` into the run folder and gives Weights & Biases the same config, once and nested."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Send the config to every Weights & Biases logger (the file is written by the base class)."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(config)
