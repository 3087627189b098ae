"""A study whose trainings train nothing, but may fail, hang and refuse to end."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import synth
from experiments.study import making
from experiments.study.cells import Cell, cells_of
from experiments.study.settings import read

EPOCHS = 2
TRAIN = """
import json, os, pathlib, signal, sys, time, yaml
verb, given = sys.argv[1], sys.argv[2:]
value = lambda name: given[given.index(name) + 1] if name in given else None
configs = [yaml.safe_load(open(given[at + 1])) for at, name in enumerate(given) if name == "--config"]
runs = pathlib.Path(value("--runs"))
call = {"row": runs.parent.name, "verb": verb, "from": value("--ckpt_path"), "pid": os.getpid()}
call |= {"threads": os.environ.get("OMP_NUM_THREADS"), "trainer": configs[-1]["trainer"]}
with open(runs.parents[2] / "calls.jsonl", "a") as file:
    file.write(json.dumps(call) + "\\n")
asked = os.environ.get("ASKED", "").split(":")
def obey(moment):
    if asked[0] == f"{runs.parent.name} {verb}{moment}":
        if asked[1] == "fail":
            sys.exit("error: `model` is broken.")
        if asked[1] == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if asked[1] == "polite":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        time.sleep(60)
obey("")
folder = runs / verb / str(time.time_ns())
folder.mkdir(parents=True)
if verb == "fit":
    checkpoints = pathlib.Path(configs[-1]["checkpoint"]["dirpath"])
    checkpoints.mkdir(exist_ok=True)
    (checkpoints / "best.ckpt").touch()
    for epoch in (1, 2):
        done = {"loops": {"fit_loop": {"epoch_progress": {"current": {"processed": epoch}}}}, "global_step": 5 * epoch}
        (checkpoints / "last.ckpt").write_text(json.dumps(done))
        obey(f" {epoch}")
else:
    (folder / "metrics.csv").write_text("epoch,test/ODmAP@1,test/rsum\\n0,40.5,200.25\\n")
    results = pathlib.Path(value("--ckpt_path")).parent / "best-test" if value("--ckpt_path") else folder
    results.mkdir(exist_ok=True)
    if asked[0] != "no queries":
        (results / "odmap.parquet").touch()
"""
SETTINGS = {
    "dataset": "Scenes",
    "source": {"class_path": "datamodules.ScenesDataModule", "init_args": {"root": "$WORK/scenes"}},
    "synthesis": {"pairs": {"train": ["train"]}},
    "overlay": {"trainer": {"max_epochs": EPOCHS}},
    "models": {"clip": {"label": "CLIP", "config": "clip.yaml", "zero_shot": True}},
}


class Study:
    """A work folder whose synthetic set is there, and settings beside it.

    Args:
        work: the folder.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        standard = work / "synthetic" / "standard"
        standard.mkdir(parents=True)
        (standard / "protocol.json").write_text(json.dumps({"config": {"data": {"fingerprint": "abc"}}}))
        self.change({})

    def change(self, changes: dict[str, Any]) -> None:
        """Write the settings, with changes."""
        (self.work.parent / "mine.yaml").write_text(yaml.safe_dump({**SETTINGS, **changes}))

    def cells(self, *names: str, seeds: int = 1) -> list[Cell]:
        """Return the cells of these rows."""
        return cells_of(read(self.work.parent / "mine.yaml"), ["clip"], names, seeds, self.work)

    def calls(self) -> list[dict[str, Any]]:
        """Return how the command in place of train.py was called."""
        path = self.work / "cells" / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def verbs(self) -> list[str]:
        """Return of which row it did what."""
        return [f"{call['row']} {call['verb']}" for call in self.calls()]

    def stop(self, file: str) -> None:
        """Ask this process to end once a command has written a file."""

        def wait() -> None:
            deadline = time.monotonic() + 30
            while not (self.calls() and list(self.work.rglob(file))):
                if time.monotonic() > deadline:
                    return
                time.sleep(0.05)
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, daemon=True).start()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Return a study with a command in place of train.py."""
    monkeypatch.chdir(tmp_path)
    Path("clip.yaml").write_text("model: {class_path: CLIP}\n")
    Path("train.py").write_text(TRAIN)
    monkeypatch.setattr(making, "_TRAIN", tmp_path / "train.py")
    monkeypatch.setattr(making, "read_checkpoint", lambda path: json.loads(path.read_text()))
    monkeypatch.setattr(synth, "load", lambda path: path)
    monkeypatch.setattr(synth, "run", lambda path, alone: SimpleNamespace(made=False))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return Study(tmp_path / "work")
