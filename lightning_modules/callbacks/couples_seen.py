"""A margin between pairs that never meet is told of."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_modules.distributed import sum_over_ranks
from lightning_modules.losses import CounterfactualMarginLoss


class CouplesSeen(Callback):
    """Warns after the first epoch, once, where no batch held a synthetic pair together with its source.

    It looks at models with a `counterfactual_weight` above 0.
    """

    def __init__(self) -> None:
        self._looked = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add up, over all ranks, the couples of the first epoch."""
        if self._looked or not getattr(pl_module, "counterfactual_weight", 0):
            return
        self._looked = True
        seen = sum(one.couples for one in pl_module.modules() if isinstance(one, CounterfactualMarginLoss))
        if not sum_over_ranks(torch.tensor(float(seen), device=pl_module.device)):
            rank_zero_warn(
                "No batch of the epoch held a synthetic pair together with its source, so "
                "`model.init_args.counterfactual_weight` changed nothing: set `data.init_args.pair_with_source: true`."
            )
