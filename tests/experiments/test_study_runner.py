"""The runner of studies: what it calls, what it leaves alone, and how failures and interruptions end."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import synth
from datamodules.errors import ConfigError
from experiments.study import commands, making, runner
from experiments.study.cells import Cell, cells_of
from experiments.study.commands import CommandError, Commands
from experiments.study.runner import run
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


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a work folder whose synthetic set is there, with a command in place of train.py that trains nothing."""
    monkeypatch.chdir(tmp_path)
    Path("clip.yaml").write_text("model: {class_path: CLIP}\n")
    Path("mine.yaml").write_text(yaml.safe_dump(SETTINGS))
    Path("train.py").write_text(TRAIN)
    monkeypatch.setattr(making, "_TRAIN", tmp_path / "train.py")
    monkeypatch.setattr(making, "read_checkpoint", lambda path: json.loads(path.read_text()))
    monkeypatch.setattr(synth, "load", lambda path: path)
    monkeypatch.setattr(synth, "run", lambda path, alone: SimpleNamespace(made=False))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "work" / "synthetic" / "standard").mkdir(parents=True)
    protocol = {"config": {"data": {"fingerprint": "abc"}}}
    (tmp_path / "work" / "synthetic" / "standard" / "protocol.json").write_text(json.dumps(protocol))
    return tmp_path / "work"


def cells(study: Path, *names: str, seeds: int = 1) -> list[Cell]:
    return cells_of(read(study.parent / "mine.yaml"), ["clip"], names, seeds, study)


def calls(study: Path) -> list[dict[str, Any]]:
    path = study / "cells" / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def verbs(study: Path) -> list[str]:
    return [f"{call['row']} {call['verb']}" for call in calls(study)]


def stop_it(study: Path, when: int = 1, file: str = "") -> None:
    """Ask this process to end once so many commands run, and one of them has written a file."""

    def wait() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if len(calls(study)) >= when and (not file or list(study.rglob(file))):
                break
            time.sleep(0.05)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_cells_are_trained_tested_and_recorded(study: Path, capsys: Any) -> None:
    wanted = cells(study, "zero_shot", "control", "querybank_control")
    assert run(wanted, study, jobs=1) == []
    assert verbs(study) == ["zero_shot test", "control fit", "control test", "querybank_control test"]
    assert {call["threads"] for call in calls(study)} == {str(len(os.sched_getaffinity(0)))}
    zero, control, bank = (cell.read(study) or {} for cell in wanted)
    assert control["scores"] == {"ODmAP@1": 40.5, "rsum": 200.25}
    assert (control["record"]["data"], zero["checkpoint"]) == ("abc", None)
    assert (wanted[1].folder(study) / control["results"] / "odmap.parquet").is_file()
    tested = (wanted[2].folder(study) / bank["checkpoint"]).resolve()
    assert tested == (wanted[1].folder(study) / "checkpoints" / "best.ckpt").resolve()
    assert (wanted[2].folder(study) / bank["results"]).parent == wanted[2].folder(study)
    log = (wanted[1].folder(study) / "log.txt").read_text()
    assert log.startswith(f"$ {sys.executable}")
    assert "--name fit" in log
    assert yaml.safe_load((wanted[1].folder(study) / "fit.yaml").read_text()) == wanted[1].fit
    assert "[3/3] clip/querybank_control/seed0: ODmAP@1 40.5, rsum 200.2" in capsys.readouterr().out


def test_finished_cells_are_left_alone(study: Path) -> None:
    run(cells(study, "control"), study, jobs=1)
    before = {path: path.stat().st_mtime_ns for path in (study / "cells" / "clip").rglob("*") if "seed0" in path.parts}
    run(cells(study, "control", seeds=2), study, jobs=2)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(calls(study)) == 4
    run(cells(study, "control", seeds=2), study, jobs=2)
    assert len(calls(study)) == 4


def test_a_cell_that_fails_stops_no_other_and_what_hangs_on_it_says_so(study: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ASKED", "control fit:fail")
    failed = run(cells(study, "control", "querybank_control", "synthetic"), study, jobs=2)
    log = study / "cells" / "clip" / "control" / "seed0" / "log.txt"
    assert sorted(failed) == [
        f"clip/control/seed0: `model` is broken. ({log})",
        "clip/querybank_control/seed0: it tests the checkpoint of control, which failed",
    ]
    assert [cell.read(study) is None for cell in cells(study, "control", "synthetic")] == [True, False]
    monkeypatch.delenv("ASKED")
    assert run(cells(study, "control", "querybank_control", "synthetic"), study, jobs=1) == []


def test_a_set_that_cannot_be_made_fails_the_cells_that_need_it_alone(study: Path, monkeypatch: Any) -> None:
    def refuse(path: Path, alone: bool) -> Any:
        if path.stem == broken:
            raise ConfigError("`fill` cannot be had.")
        return SimpleNamespace(made=False)

    broken = "fill_zero"
    Path("mine.yaml").write_text(yaml.safe_dump({**SETTINGS, "fills": {"zero": {"class_path": "ZeroFill"}}}))
    monkeypatch.setattr(synth, "run", refuse)
    wanted = cells(study, "control", "fill_zero")
    assert run(wanted, study, jobs=1) == [
        "clip/fill_zero/seed0: its synthetic set `fill_zero` cannot be made: `fill` cannot be had."
    ]
    assert [cell.read(study) is None for cell in wanted] == [False, True]
    broken = "standard"
    with pytest.raises(ConfigError, match="`fill` cannot be had"):
        run(wanted, study, jobs=1)


def test_a_config_that_changes_meanwhile_is_not_taken_up(study: Path, monkeypatch: Any) -> None:
    wanted, call = cells(study, "querybank_control", "control"), Commands.call

    def change(self: Commands, *arguments: Any) -> None:
        Path("clip.yaml").write_text("model: {class_path: SigLIP}\n")
        call(self, *arguments)

    monkeypatch.setattr(Commands, "call", change)
    assert run(wanted, study, jobs=1) == []
    assert [(cell.folder(study) / "model.yaml").read_text() for cell in wanted] == ["model: {class_path: CLIP}\n"] * 2
    assert [(cell.read(study) or {})["spec"]["config"]["model"]["class_path"] for cell in wanted] == ["CLIP"] * 2


@pytest.mark.parametrize(
    ("moment", "again"),
    [
        ("control fit", ["control fit", "control test"]),
        ("control fit 1", ["control fit", "control test"]),
        ("control fit 2", ["control test"]),  # after its last epoch: there is nothing left to train
        ("control test", ["control test"]),
    ],
)
def test_a_cell_goes_on_where_it_was(study: Path, monkeypatch: Any, moment: str, again: list[str]) -> None:
    monkeypatch.setenv("ASKED", f"{moment}:fail")
    assert run(cells(study, "control"), study, jobs=1)
    monkeypatch.delenv("ASKED")
    before = len(calls(study))
    assert run(cells(study, "control"), study, jobs=1) == []
    assert verbs(study)[before:] == again
    if moment == "control fit 1":
        folder = cells(study, "control")[0].folder(study)
        assert calls(study)[before]["from"] == str(folder / "checkpoints" / "last.ckpt")


def test_a_test_without_queries_is_told(study: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ASKED", "no queries")
    control, synthetic = run(cells(study, "control", "synthetic"), study, jobs=1)
    assert control.startswith("clip/control/seed0: its test had no queries: give `synthesis.queries` of the settings")
    assert synthetic.startswith("clip/synthetic/seed0: its test had no queries")


@pytest.mark.parametrize(
    ("limits", "moment", "again"),
    [
        ({"max_epochs": -1, "max_steps": 10}, "control fit 1", ["control fit", "control test"]),
        ({"max_epochs": None, "max_steps": 10}, "control fit 2", ["control test"]),
        ({"max_epochs": 9, "max_steps": 10}, "control fit 2", ["control test"]),
        ({"max_epochs": -1}, "control fit 2", ["control fit", "control test"]),
    ],
)
def test_a_training_may_be_limited_by_steps(
    study: Path, monkeypatch: Any, limits: dict[str, Any], moment: str, again: list[str]
) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({**SETTINGS, "overlay": {"trainer": limits}}))
    monkeypatch.setenv("ASKED", f"{moment}:fail")
    assert run(cells(study, "control"), study, jobs=1)
    monkeypatch.delenv("ASKED")
    assert run(cells(study, "control"), study, jobs=1) == []
    assert verbs(study)[1:] == again


def test_a_cell_begun_with_other_settings_is_refused_before_anything_runs(study: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ASKED", "control fit 1:fail")
    run(cells(study, "control"), study, jobs=1)
    (study.parent / "mine.yaml").write_text(yaml.safe_dump({**SETTINGS, "ratio": 0.5}))
    with pytest.raises(ConfigError, match=r"clip/control/seed0 was made with other settings \(`fit` differs\)"):
        run(cells(study, "synthetic", "control"), study, jobs=1)
    assert verbs(study) == ["control fit"]


def test_a_file_system_without_locks_is_refused(study: Path, monkeypatch: Any) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(runner.fcntl, "flock", refuse)
    with pytest.raises(ConfigError, match=r"`--work` .* lies on a file system without locks \(No locks available\)"):
        run(cells(study, "control"), study, jobs=1)


def test_a_second_command_is_refused_also_where_a_training_outlived_the_first(study: Path) -> None:
    with runner._claimed(study) as lock:
        with pytest.raises(ConfigError, match="Another command, or a training that a killed one left, works on"):
            run(cells(study, "control"), study, jobs=1)
        running = Commands([lock])
        left = threading.Thread(target=_call, args=(running, ["sleep", "60"], study / "log.txt"))
        left.start()
        while not running._running:
            time.sleep(0.01)
    with pytest.raises(ConfigError, match="Another command"):
        run(cells(study, "control"), study, jobs=1)
    running.stop()
    left.join()
    assert run(cells(study, "control"), study, jobs=1) == []


def _call(running: Commands, arguments: list[str], log: Path) -> None:
    with pytest.raises(CommandError, match="stopped"):
        running.call(arguments, log, {})


@pytest.mark.parametrize("manner", ["sleep", "stubborn", "polite"])
def test_a_request_to_end_stops_all_commands(study: Path, monkeypatch: Any, capsys: Any, manner: str) -> None:
    monkeypatch.setattr(commands, "_GRACE", 1.0)
    monkeypatch.setenv("ASKED", f"control fit 1:{manner}")
    stop_it(study, file="last.ckpt")
    with pytest.raises(KeyboardInterrupt):
        run(cells(study, "control", "synthetic", seeds=2)[:2], study, jobs=1)
    assert verbs(study) == ["control fit"]
    assert not is_there(calls(study)[0]["pid"])
    assert "the same command goes on from here" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.delenv("ASKED")
    assert run(cells(study, "control"), study, jobs=1) == []
    assert verbs(study)[1:] == ["control fit", "control test"]


def test_a_second_request_to_end_waits_no_longer(study: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(commands, "_GRACE", 50.0)
    monkeypatch.setenv("ASKED", "control fit 1:stubborn")
    stop_it(study, file="last.ckpt")
    stop = Commands.stop

    def again(self: Commands) -> None:
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        stop(self)

    monkeypatch.setattr(Commands, "stop", again)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(cells(study, "control"), study, jobs=1)
    assert time.monotonic() - started < 30
    assert not is_there(calls(study)[0]["pid"])


def test_logs_of_weights_and_biases_decide_no_result(study: Path) -> None:
    assert run(cells(study, "control"), study, jobs=1, wandb="mine") == []
    loggers = [call["trainer"]["logger"] for call in calls(study)]
    assert [logger["init_args"] for logger in loggers] == [
        {"project": "mine", "name": f"clip/control/seed0/{verb}"} for verb in ("fit", "test")
    ]
    assert run(cells(study, "control"), study, jobs=1) == []
    assert len(calls(study)) == 2


def test_a_place_that_cannot_be_written_is_told(study: Path) -> None:
    with pytest.raises(ConfigError, match="`--work` /dev/null/x cannot be written"):
        run(cells(study, "control"), Path("/dev/null/x"))
