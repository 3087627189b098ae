"""The fill stage as a `predict` job of Lightning: devices, ranks and nodes are the Trainer's business."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from datamodules.errors import ConfigError
from synth.config import SynthesisConfig
from synth.stage import Stage


class _Predictor(LightningModule):
    """Hands the batches of this rank's loader to the stage."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.allow_zero_length_dataloader_with_multiple_devices = True  # the end of a run may be one image
        self._parent = os.getppid()
        self._at_sigterm = signal.getsignal(signal.SIGTERM)

    def predict_dataloader(self) -> DataLoader[Any]:
        return self.stage.loader(self.trainer.global_rank, self.trainer.world_size)

    def on_predict_start(self) -> None:
        if self._at_sigterm is not None and current_thread() is main_thread():
            # the handler of Lightning waits for the next step of a training
            signal.signal(signal.SIGTERM, self._at_sigterm)
        self.stage.start(self.trainer.global_rank, self.trainer.world_size, self.device)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return batch  # images of many sizes; a fill moves its own tensors

    def predict_step(self, batch: Any, batch_idx: int) -> int:
        if self.trainer.local_rank and os.getppid() != self._parent:
            raise SystemExit("the run that this process is a rank of was killed")
        self.stage.step(batch)
        return len(batch)


class Ranks:
    """One or more processes that fill together, as the options `trainer` say.

    Args:
        config: the synthesis.

    Raises:
        ConfigError: the Trainer does not take its options.
    """

    def __init__(self, config: SynthesisConfig) -> None:
        on_device = config.fill.on_device or config.caption.needs_image
        options = {
            "accelerator": "auto" if on_device else "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **config.trainer,
            "use_distributed_sampler": False,  # the loader has this rank's share already
        }
        try:
            with _quiet():
                self._trainer = Trainer(**options)
        except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
            said = str(error).strip().splitlines()[0]
            raise ConfigError(f"`trainer` has options that Lightning's Trainer does not take: {said}") from error

    @property
    def is_first(self) -> bool:
        """Whether this is the process that locks the output and ends the set."""
        return bool(self._trainer.is_global_zero)

    @property
    def several(self) -> bool:
        """Whether this process is one of several."""
        return self._trainer.world_size > 1

    def run(self, stage: Stage) -> None:
        """Fill on all ranks, and return when all are done."""
        try:
            with _quiet():
                self._trainer.predict(_Predictor(stage), return_predictions=False)
        except SystemExit as exit_:
            if isinstance(exit_.__context__, KeyboardInterrupt):  # Lightning hides it, our commands say "interrupted"
                raise exit_.__context__ from None
            raise
        self.wait()

    def wait(self) -> None:
        """Return when all ranks have come here."""
        self._trainer.strategy.barrier()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says about hardware and loaders: its advice is about training."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.filterwarnings("ignore", message="Total length of")
            warnings.filterwarnings("ignore", message=".*LeafSpec")  # Lightning meets a newer torch
            yield
    finally:
        log.setLevel(level)
