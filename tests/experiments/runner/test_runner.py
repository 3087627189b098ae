"""The runner of studies: what it calls, what it leaves alone, and how failures end."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import synth
from datamodules.errors import ConfigError
from experiments.study.commands import Commands
from experiments.study.runner import run


def test_cells_are_trained_tested_and_recorded(study: Any, capsys: Any) -> None:
    wanted = study.cells("zero_shot", "control", "querybank_control")
    assert run(wanted, study.work, jobs=1) == []
    assert study.verbs() == ["zero_shot test", "control fit", "control test", "querybank_control test"]
    assert {call["threads"] for call in study.calls()} == {str(len(os.sched_getaffinity(0)))}
    zero, control, bank = (cell.read(study.work) or {} for cell in wanted)
    assert control["scores"] == {"ODmAP@1": 40.5, "rsum": 200.25}
    assert (control["record"]["data"], zero["checkpoint"]) == ("abc", None)
    assert (wanted[1].folder(study.work) / control["results"] / "odmap.parquet").is_file()
    tested = (wanted[2].folder(study.work) / bank["checkpoint"]).resolve()
    assert tested == (wanted[1].folder(study.work) / "checkpoints" / "best.ckpt").resolve()
    assert (wanted[2].folder(study.work) / bank["results"]).parent == wanted[2].folder(study.work)
    log = (wanted[1].folder(study.work) / "log.txt").read_text()
    assert log.startswith(f"$ {sys.executable}")
    assert "--name fit" in log
    assert yaml.safe_load((wanted[1].folder(study.work) / "fit.yaml").read_text()) == wanted[1].fit
    assert "[3/3] clip/querybank_control/seed0: ODmAP@1 40.5, rsum 200.2" in capsys.readouterr().out


def test_finished_cells_are_left_alone(study: Any) -> None:
    run(study.cells("control"), study.work, jobs=1)
    before = {
        path: path.stat().st_mtime_ns for path in (study.work / "cells" / "clip").rglob("*") if "seed0" in path.parts
    }
    run(study.cells("control", seeds=2), study.work, jobs=2)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(study.calls()) == 4
    run(study.cells("control", seeds=2), study.work, jobs=2)
    assert len(study.calls()) == 4


def test_a_cell_that_fails_stops_no_other_and_what_hangs_on_it_says_so(study: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("ASKED", "control fit:fail")
    failed = run(study.cells("control", "querybank_control", "synthetic"), study.work, jobs=2)
    log = study.work / "cells" / "clip" / "control" / "seed0" / "log.txt"
    assert sorted(failed) == [
        f"clip/control/seed0: `model` is broken. ({log})",
        "clip/querybank_control/seed0: it tests the checkpoint of control, which failed",
    ]
    assert [cell.read(study.work) is None for cell in study.cells("control", "synthetic")] == [True, False]
    monkeypatch.delenv("ASKED")
    assert run(study.cells("control", "querybank_control", "synthetic"), study.work, jobs=1) == []


def test_a_set_that_cannot_be_made_fails_the_cells_that_need_it_alone(study: Any, monkeypatch: Any) -> None:
    def refuse(path: Path, alone: bool) -> Any:
        if path.stem == broken:
            raise ConfigError("`fill` cannot be had.")
        return SimpleNamespace(made=False)

    broken = "fill_zero"
    study.change({"fills": {"zero": {"class_path": "ZeroFill"}}})
    monkeypatch.setattr(synth, "run", refuse)
    wanted = study.cells("control", "fill_zero")
    assert run(wanted, study.work, jobs=1) == [
        "clip/fill_zero/seed0: its synthetic set `fill_zero` cannot be made: `fill` cannot be had."
    ]
    assert [cell.read(study.work) is None for cell in wanted] == [False, True]
    broken = "standard"
    with pytest.raises(ConfigError, match="`fill` cannot be had"):
        run(wanted, study.work, jobs=1)


def test_a_slip_in_a_fill_is_told_as_of_its_set(study: Any, monkeypatch: Any, capsys: Any) -> None:
    def slip(path: Path) -> Any:
        if path.stem == "fill_zero":
            sys.stderr.write("error: key `fill`: no class is named ZeroFil.\n")
            sys.exit(2)
        return path

    study.change({"fills": {"zero": {"class_path": "ZeroFil"}}})
    monkeypatch.setattr(synth, "load", slip)
    assert run(study.cells("control", "fill_zero"), study.work, jobs=1) == [
        "clip/fill_zero/seed0: its synthetic set `fill_zero` cannot be made: key `fill`: no class is named ZeroFil."
    ]
    said = capsys.readouterr().out
    assert said.index("Synthetic set `fill_zero` cannot be made") < said.index("[1/1] clip/control/seed0")


@pytest.mark.parametrize("key", ["data", "protocol"])
def test_cells_of_other_data_are_refused_before_more_are_trained(study: Any, key: str) -> None:
    run(study.cells("control"), study.work, jobs=1)
    path = study.cells("control")[0].folder(study.work) / "cell.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "record": {**told["record"], key: "other"}}))
    with pytest.raises(ConfigError, match=r"clip/control/seed0 and the synthetic set .*standard have other"):
        run(study.cells("control", "synthetic"), study.work, jobs=1)
    assert study.verbs() == ["control fit", "control test"]


def test_a_config_that_changes_meanwhile_is_not_taken_up(study: Any, monkeypatch: Any) -> None:
    wanted, call = study.cells("querybank_control", "control"), Commands.call

    def change(self: Commands, *arguments: Any) -> None:
        Path("clip.yaml").write_text("model: {class_path: SigLIP}\n")
        call(self, *arguments)

    monkeypatch.setattr(Commands, "call", change)
    assert run(wanted, study.work, jobs=1) == []
    assert [(cell.folder(study.work) / "model.yaml").read_text() for cell in wanted] == [
        "model: {class_path: CLIP}\n"
    ] * 2
    assert [(cell.read(study.work) or {})["spec"]["config"]["model"]["class_path"] for cell in wanted] == ["CLIP"] * 2


@pytest.mark.parametrize(
    ("moment", "again"),
    [
        ("control fit", ["control fit", "control test"]),
        ("control fit 1", ["control fit", "control test"]),
        ("control fit 2", ["control test"]),  # after its last epoch: there is nothing left to train
        ("control test", ["control test"]),
    ],
)
def test_a_cell_goes_on_where_it_was(study: Any, monkeypatch: Any, moment: str, again: list[str]) -> None:
    monkeypatch.setenv("ASKED", f"{moment}:fail")
    assert run(study.cells("control"), study.work, jobs=1)
    monkeypatch.delenv("ASKED")
    before = len(study.calls())
    assert run(study.cells("control"), study.work, jobs=1) == []
    assert study.verbs()[before:] == again
    if moment == "control fit 1":
        folder = study.cells("control")[0].folder(study.work)
        assert study.calls()[before]["from"] == str(folder / "checkpoints" / "last.ckpt")


def test_a_test_without_queries_is_told(study: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("ASKED", "no queries")
    control, synthetic = run(study.cells("control", "synthetic"), study.work, jobs=1)
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
    study: Any, monkeypatch: Any, limits: dict[str, Any], moment: str, again: list[str]
) -> None:
    study.change({"overlay": {"trainer": limits}})
    monkeypatch.setenv("ASKED", f"{moment}:fail")
    assert run(study.cells("control"), study.work, jobs=1)
    monkeypatch.delenv("ASKED")
    assert run(study.cells("control"), study.work, jobs=1) == []
    assert study.verbs()[1:] == again


def test_a_cell_begun_with_other_settings_is_refused_before_anything_runs(study: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("ASKED", "control fit 1:fail")
    run(study.cells("control"), study.work, jobs=1)
    study.change({"ratio": 0.5})
    with pytest.raises(ConfigError, match=r"clip/control/seed0 was made with other settings \(`fit` differs\)"):
        run(study.cells("synthetic", "control"), study.work, jobs=1)
    assert study.verbs() == ["control fit"]


def test_logs_of_weights_and_biases_decide_no_result(study: Any) -> None:
    assert run(study.cells("control"), study.work, jobs=1, wandb="mine") == []
    loggers = [call["trainer"]["logger"] for call in study.calls()]
    assert [logger["init_args"] for logger in loggers] == [
        {"project": "mine", "name": f"clip/control/seed0/{verb}"} for verb in ("fit", "test")
    ]
    assert run(study.cells("control"), study.work, jobs=1) == []
    assert len(study.calls()) == 2


def test_a_place_that_cannot_be_written_is_told(study: Any) -> None:
    with pytest.raises(ConfigError, match="`--work` /dev/null/x cannot be written"):
        run(study.cells("control"), Path("/dev/null/x"))
