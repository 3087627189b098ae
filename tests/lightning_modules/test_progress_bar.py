"""The numbers beside the bar are read now and then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.callbacks.progress_bar import CalmProgressBar


class _FakeTrainer(SimpleNamespace):
    reads = 0

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        self.reads += 1
        return {"train/loss": float(self.reads)}


def test_the_device_is_asked_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.1, 100.4, 100.5, 100.9, 107.0])
    monkeypatch.setattr("lightning_modules.callbacks.progress_bar.time.monotonic", lambda: next(clock))
    bar, trainer = CalmProgressBar(), _FakeTrainer(loggers=[])
    model: Any = None
    shown = [bar.get_metrics(trainer, model)["train/loss"] for _ in range(6)]
    assert shown == [1, 1, 1, 2, 2, 3]


def test_the_last_numbers_of_an_epoch_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_modules.callbacks.progress_bar.time.monotonic", lambda: 100.0)
    bar, trainer = CalmProgressBar(), _FakeTrainer(loggers=[])
    model: Any = None
    shown: list[float] = []
    monkeypatch.setattr(bar, "_update_metrics", lambda *given: shown.append(bar.get_metrics(*given)["train/loss"]))
    bar._update_metrics(trainer, model)
    bar.on_train_epoch_end(trainer, model)
    assert shown == [1, 2]
