"""One small study for real: stopped in the middle of a training, taken up again, and left alone when it is finished."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from datamodules.errors import ConfigError
from experiments import figure3
from experiments.study.cells import Cell, cells_of
from experiments.study.commands import Commands
from experiments.study.runner import run
from experiments.study.settings import read

ROOT = Path(__file__).parents[2]
EPOCHS = 6
ROWS = ("synthetic", "querybank_synthetic")
SETTINGS: dict[str, Any] = {
    "dataset": "Scenes",
    "source": {
        "class_path": "datamodules.ScenesDataModule",
        "init_args": {"root": "$WORK/scenes", "scenes": {"train": 24, "val": 8, "test": 8}},
    },
    "synthesis": {
        "pairs": {"train": ["train"]},
        "queries": {"val": ["val"], "test": ["test"]},
        "fill": {"class_path": "MeanFill"},
    },
    "overlay": {
        "trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"},
        "data": {"init_args": {"batch_size": 16, "pair_with_source": False}},
    },
    "models": {"vsepp": {"label": "VSE++", "config": str(ROOT / "configs" / "vsepp_scenes.yaml")}},
}


def study(work: Path, **changes: Any) -> list[Cell]:
    path = work.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**SETTINGS, **changes}))
    return cells_of(read(path), ["vsepp"], ROWS, 1, work)


@pytest.fixture
def end_first_training(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return what has the first command asked to end as soon as there is a checkpoint."""
    started: list[Any] = []
    start = Commands._start

    def watched(self: Commands, *given: Any) -> Any:
        started.append(start(self, *given))
        return started[-1]

    def wait(work: Path) -> None:
        while not list(work.rglob("last.ckpt")):
            time.sleep(0.05)
        started[0].terminate()

    monkeypatch.setattr(Commands, "_start", watched)
    return lambda work: threading.Thread(target=wait, args=(work,), daemon=True).start()


@pytest.mark.slow
def test_a_study_that_was_stopped_ends_as_if_it_had_not_been(
    tmp_path: Path, end_first_training: Callable[[Path], None]
) -> None:
    work = tmp_path / "work"
    end_first_training(work)
    failed = run(study(work), work, jobs=2)
    assert [sentence.split(":")[0] for sentence in failed] == [f"vsepp/{row}/seed0" for row in ROWS]
    trained, banked = study(work)
    assert trained.read(work) is None
    assert run(study(work), work, jobs=2) == []

    logs = sorted((trained.folder(work) / "fit").glob("*/metrics.csv"))
    epochs = [_scores(path) for path in logs]
    assert len(logs) == 2
    assert sorted(epoch for found in epochs for epoch in found) == list(range(EPOCHS))  # none twice, none left out
    best = torch.load(trained.folder(work) / "checkpoints" / "best.ckpt", weights_only=True)
    merged = {epoch: score for found in epochs for epoch, score in found.items()}
    assert best["epoch"] == max(merged, key=lambda epoch: (merged[epoch], -epoch))

    found, after = trained.read(work), banked.read(work)
    assert found is not None
    assert after is not None
    assert (trained.folder(work) / found["results"] / "i2t.parquet").is_file()
    assert 0 <= found["scores"]["ODmAP@1"] <= 100
    assert found["scores"] != after["scores"]
    assert found["record"]["data"]

    moved = work.rename(tmp_path / "moved")
    settings = ["--settings", str(work.with_suffix(".yaml")), "--work", str(moved), "--to", str(tmp_path / "out")]
    assert figure3.main([*settings, "--queries", "2"]) == 0  # which trains the control
    drawn = tmp_path / "out" / "figure3" / "vsepp-seed0"
    assert "VSE++, D alone" in (drawn / "figure3.html").read_text(encoding="utf-8")
    assert (drawn / "figure3.png").is_file()
    moved.rename(work)

    before = {path: path.stat().st_mtime_ns for path in (work / "cells").rglob("*")}
    assert run(study(work), work) == []
    assert {path: path.stat().st_mtime_ns for path in (work / "cells").rglob("*")} == before
    with pytest.raises(ConfigError, match="synthetic/seed0 was made with other settings"):
        run(study(work, ratio=0.1), work)
    other = {**SETTINGS["synthesis"], "fill": {"class_path": "ZeroFill"}}
    (trained.folder(work) / "cell.json").unlink()
    (trained.folder(work) / "begun.json").unlink()
    with pytest.raises(ConfigError, match=r"holds a set made with `fill\."):
        run(study(work, synthesis=other)[:1], work)


def _scores(path: Path) -> dict[int, float]:
    """Return what checkpoints are chosen by, by epoch."""
    with path.open(newline="") as file:
        return {int(row["epoch"]): float(row["val/rsum"]) for row in csv.DictReader(file) if row["val/rsum"]}
