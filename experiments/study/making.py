"""Makes one cell: trains it, tests it, and writes down what was found and how."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from experiments.study.cells import Cell
from experiments.study.commands import CommandError, Commands
from experiments.study.record import record
from experiments.study.settings import STANDARD, merged
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.resuming import limit_reached

_TRAIN = Path(__file__).parents[2] / "train.py"


@dataclass(frozen=True)
class Maker:
    """Makes the cells of a study.

    Attributes:
        root: folder of the study.
        commands: that run.
        wandb: project of Weights & Biases that trainings and tests log to, beside their csv; None for none.
    """

    root: Path
    commands: Commands
    wandb: str | None = None

    def make(self, cell: Cell, place: Mapping[str, str]) -> None:
        """Train and test one cell; a training that was interrupted goes on, and one that ended is not run again.

        Args:
            cell: one that is not finished, while that whose checkpoint it tests is.
            place: what the environment of its commands has else.

        Raises:
            UserError: a command failed, its test had no queries, or the cell was begun with other settings.
        """
        folder, started = cell.folder(self.root), time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        cell.begin(self.root)
        begun = datetime.now(UTC).isoformat(timespec="seconds")
        if cell.fit is not None and not _is_trained(cell, folder):
            self.commands.call(self._fit(cell, folder, cell.fit), folder / "log.txt", place)
        checkpoint = self._checkpoint(cell, folder)
        self.commands.call(self._test(cell, folder, checkpoint), folder / "log.txt", place)
        cell.finish(
            self.root,
            {
                "scores": _scores(folder),
                "results": str(_results(folder).relative_to(folder)),
                "checkpoint": None if checkpoint is None else os.path.relpath(checkpoint, folder),
                "record": record(cell.work / "synthetic" / STANDARD, begun, time.monotonic() - started),
            },
        )

    def _fit(self, cell: Cell, folder: Path, overlay: Mapping[str, Any]) -> list[str]:
        command, last = self._command("fit", cell, folder, overlay), folder / "checkpoints" / "last.ckpt"
        return [*command, "--ckpt_path", str(last)] if last.exists() else command

    def _test(self, cell: Cell, folder: Path, checkpoint: Path | None) -> list[str]:
        command = self._command("test", cell, folder, cell.test)
        return command if checkpoint is None else [*command, "--ckpt_path", str(checkpoint)]

    def _command(self, verb: str, cell: Cell, folder: Path, overlay: Mapping[str, Any]) -> list[str]:
        """Write what a command changes in its config, and how it runs, which decides no result."""
        trainer: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
        if self.wandb is not None:
            names = {"project": self.wandb, "name": f"{cell.name}/{verb}"}
            trainer["logger"] = {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": names}
        # One folder for all attempts: Lightning forgets which epoch was the best where the folder is another.
        place = {"dirpath": str(folder / "checkpoints")}
        run = {"trainer": trainer, "checkpoint": place, "last": place}
        model = folder / "model.yaml"
        model.write_text(cell.config, encoding="utf-8")
        command = [sys.executable, str(_TRAIN), verb, "--config", str(model)]
        for name, changes in ((verb, overlay), (f"{verb}_run", run)):
            path = folder / f"{name}.yaml"
            path.write_text(yaml.safe_dump(dict(changes), sort_keys=False), encoding="utf-8")
            command += ["--config", str(path)]
        return [*command, "--runs", str(folder), "--name", verb]

    def _checkpoint(self, cell: Cell, folder: Path) -> Path | None:
        """Return the checkpoint to test: its own, or that of the cell it depends on as a file of its own folder."""
        if cell.fit is not None:
            return folder / "checkpoints" / "best.ckpt"
        if cell.parent is None:
            return None
        found = cell.parent.read(self.root)
        assert found is not None  # noqa: S101 (a parent is made before)
        theirs, mine = cell.parent.folder(self.root) / found["checkpoint"], folder / "best.ckpt"
        mine.unlink(missing_ok=True)
        mine.symlink_to(os.path.relpath(theirs, folder))
        return mine


def _is_trained(cell: Cell, folder: Path) -> bool:
    """Return whether its training has ended: its test was begun, or its last checkpoint has all epochs or steps."""
    if (folder / "test.yaml").exists():
        return True
    last = folder / "checkpoints" / "last.ckpt"
    if not last.exists():
        return False
    trainer = merged(cell.spec["config"], cell.fit)["trainer"]
    limits = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    return limit_reached(read_checkpoint(last), *limits) is not None


def _results(folder: Path) -> Path:
    """Return where the latest test put what it found for each query.

    Raises:
        CommandError: it had no queries.
    """
    found = list(folder.rglob("odmap.parquet"))
    if not found:
        raise CommandError(
            f"its test had no queries: give `synthesis.queries` of the settings a split of the name `test` ({folder})"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent


def _scores(folder: Path) -> dict[str, float]:
    """Return the scores that the latest test logged."""
    path = max((folder / "test").glob("*/metrics.csv"), key=lambda one: one.stat().st_mtime)
    with path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return {name.removeprefix("test/"): float(value) for name, value in row.items() if name.startswith("test/")}
