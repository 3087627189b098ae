"""Training ends at a loss that is no number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules.distributed import gather, sum_over_ranks

_SHOWN = 8


class FiniteLoss(Callback):
    """Stops training, on all ranks, when the loss of any rank is NaN or infinite, and says of which batch.

    A loss is looked at when the work of the next batch is on its way, or before a validation and the checkpoints that
    follow it: a GPU always has work meanwhile, and no checkpoint of the end of an epoch holds weights that are lost.
    Gradients may overflow (under float16 they do now and then, and the Trainer skips the step), the loss may not.

    The ids of all pairs of the batch go to `not_finite.csv` in the run folder.
    """

    def __init__(self) -> None:
        self._last: _Look | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: RetrievalBatch, batch_idx: int
    ) -> None:
        """Look at the loss of the batch before, and remember that of this one.

        Raises:
            ConfigError: the loss of the batch before was not finite.
        """
        self._look(trainer)
        broken = ~torch.isfinite(outputs["loss"].detach())
        ranks, arrival = _sent_to_cpu(sum_over_ranks(broken.float()))
        ids = batch.image_ids, batch.caption_ids
        self._last = _Look(broken, ranks, arrival, *ids, trainer.current_epoch, batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the last loss before the scores of lost weights are taken."""
        self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the last loss of the epoch."""
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        last, self._last = self._last, None
        if last is None:
            return
        if last.arrival is not None:
            last.arrival.synchronize()
        if not last.ranks:
            return
        count = len(last.image_ids) if last.broken else 0
        images, captions = (gather(ids[:count]).tolist() for ids in (last.image_ids, last.caption_ids))
        path = Path(trainer.log_dir or trainer.default_root_dir) / "not_finite.csv"  # asks rank zero: all ranks must
        if trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [f"{image},{caption}" for image, caption in zip(images, captions, strict=True)]
            path.write_text("\n".join(["image_id,caption_id", *rows, ""]))
        raise ConfigError(
            f"The loss of batch {last.batch_idx} of epoch {last.epoch} is NaN or infinite, for the images "
            f"{_listed(images)} and captions {_listed(captions)} (all of them are in {path}); lower "
            "`model.init_args.lr`, clip gradients (`trainer.gradient_clip_val`), or look at what these pairs hold."
        )


class _Look(NamedTuple):
    broken: Tensor
    ranks: Tensor  # how many have a broken loss, on the CPU once `arrival` has happened
    arrival: torch.cuda.Event | None
    image_ids: Tensor
    caption_ids: Tensor
    epoch: int
    batch_idx: int


def _sent_to_cpu(value: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Send a scalar behind the work that a GPU has so far; a plain copy would wait for what it is given later, too."""
    if not value.is_cuda:
        return value, None
    copy, arrival = value.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrival.record()
    return copy, arrival


def _listed(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:_SHOWN]))
    return f"{shown}, ..." if len(ids) > _SHOWN else shown
