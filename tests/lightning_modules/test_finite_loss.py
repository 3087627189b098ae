"""A loss that is no number ends the run, on all ranks, with the ids of its batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from datamodules.errors import ConfigError
from lightning_modules.callbacks import FiniteLoss


def _fit(model: Any, batches: list[Any], trainer: Any) -> None:
    trainer.fit(model, DataLoader(batches, batch_size=None))


@pytest.mark.parametrize("bad", [0, 2], ids=["first batch", "last batch"])
def test_the_ids_of_the_batch_are_named(
    tiny_clip: Callable[..., Any],
    pairs: Callable[..., Any],
    quiet_trainer: Callable[..., Any],
    tmp_path: Path,
    bad: int,
) -> None:
    model = tiny_clip(lr=1e-4)
    batches = [pairs(model, 10, image_ids=torch.arange(10) + 1000 * (number + 1)) for number in range(3)]
    batches[bad].pixel_values[3] = torch.inf
    saved = ModelCheckpoint(tmp_path / "kept", save_last=True)
    trainer = quiet_trainer(max_epochs=2, callbacks=[saved], enable_checkpointing=True)
    with pytest.raises(ConfigError) as error:
        _fit(model, batches, trainer)
    first = 1000 * (bad + 1)
    for word in (f"batch {bad} of epoch 0", f"images {first}, {first + 1}", "captions 100, 101", "not_finite.csv"):
        assert word in str(error.value)
    lines = (tmp_path / "not_finite.csv").read_text().splitlines()
    assert lines == ["image_id,caption_id", *(f"{first + row},{100 + row}" for row in range(10))]
    assert not (tmp_path / "kept" / "last.ckpt").exists()


def test_the_weights_are_not_scored_after_it(
    tiny_clip: Callable[..., Any], pairs: Callable[..., Any], quiet_trainer: Callable[..., Any]
) -> None:
    model = tiny_clip(lr=1e-4)
    broken = pairs(model)
    broken.pixel_values[0] = torch.nan
    loader, trainer = DataLoader([broken], batch_size=None), quiet_trainer(max_epochs=1, num_sanity_val_steps=0)
    with pytest.raises(ConfigError, match="The loss of batch 0 of epoch 0 is NaN or infinite"):
        trainer.fit(model, loader, loader)


@pytest.mark.parametrize("own", [2.0, float("nan")], ids=["finite here", "not finite here"])
def test_a_rank_stops_at_the_loss_of_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: float) -> None:
    calls: list[Any] = []

    def sum_over_ranks(broken: torch.Tensor) -> torch.Tensor:
        calls.append("sum_over_ranks")
        return broken + len(calls) - 1  # the second batch has no loss on another rank

    def gather(ids: torch.Tensor) -> torch.Tensor:
        calls.append("gather")
        return torch.cat([ids, torch.tensor([7, 8])])

    monkeypatch.setattr("lightning_modules.callbacks.finite_loss.sum_over_ranks", sum_over_ranks)
    monkeypatch.setattr("lightning_modules.callbacks.finite_loss.gather", gather)
    callback, trainer = FiniteLoss(), _FakeTrainer(str(tmp_path))
    batch: Any = SimpleNamespace(image_ids=torch.tensor([1]), caption_ids=torch.tensor([2]))
    for number, loss in enumerate([1.0, own]):
        callback.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, batch, number)
    with pytest.raises(ConfigError, match=r"batch 1 of epoch 0.* images (1, )?7, 8 and captions (2, )?7, 8 "):
        callback.on_train_epoch_end(trainer, None)
    assert calls == ["sum_over_ranks"] * 2 + ["gather"] * 2  # on every rank alike, or some would wait forever


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that could be waited for")
def test_the_look_does_not_wait_for_the_work_of_a_gpu(tmp_path: Path) -> None:
    callback, trainer = FiniteLoss(), _FakeTrainer(str(tmp_path))
    batch: Any = SimpleNamespace(image_ids=torch.tensor([1]), caption_ids=torch.tensor([2]))
    losses = [torch.tensor(loss, device="cuda") for loss in (1.0, 1.0, float("nan"))]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number, loss in enumerate(losses):
            callback.on_train_batch_end(trainer, None, {"loss": loss}, batch, number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(ConfigError, match="batch 2 of epoch 0"):
        callback.on_train_epoch_end(trainer, None)


class _FakeTrainer(SimpleNamespace):
    def __init__(self, folder: str) -> None:
        super().__init__(current_epoch=0, log_dir=folder, default_root_dir=folder, is_global_zero=True)
