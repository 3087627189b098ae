"""Training that resumes within an epoch, whatever the data set."""

from __future__ import annotations

from abc import ABC
from typing import Any

from lightning import LightningDataModule

from datamodules.sampling import MixedBatchSampler


class ResumableDataModule(LightningDataModule, ABC):
    """A datamodule whose checkpoint remembers the batch of the epoch that comes next.

    A subclass sets its sampler with `_resume` when it builds the training loader.
    """

    _sampler: MixedBatchSampler | None = None
    _position: dict[str, Any] | None = None

    def _resume(self, sampler: MixedBatchSampler) -> None:
        """Take the sampler of the training loader, and put it where training goes on."""
        if self._position is not None:
            sampler.load_state_dict(self._position)
        elif self.trainer is not None:
            sampler.set_epoch(self.trainer.current_epoch)
        self._sampler, self._position = sampler, None

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the number of its batches that were trained on, whatever loader workers have fetched."""
        if self._sampler is None or self.trainer is None:
            return {}
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        ended = done >= self.trainer.num_training_batches
        position = {"epoch": self._sampler.epoch + ended, "batch": 0 if ended else done}
        return self._sampler.state_dict() | position

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Have the next training loader start where the checkpoint was saved."""
        if state_dict and self.trainer is not None and self.trainer.state.fn == "fit":
            self._position = dict(state_dict)
