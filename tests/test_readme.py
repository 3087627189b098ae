"""What the README tells users to type works as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from datamodules.errors import ConfigError, MissingPathError
from experiments.__main__ import main as ask
from experiments.study import command as study
from lightning_modules.__main__ import main as export
from synth import load
from synth.__main__ import main as look
from train import main

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()
_STARTS = re.compile(r"(PYTHONPATH=\. )?python (train\.py|-m synth|-m lightning_modules|-m experiments) ")
COMMANDS = [line for line in README.splitlines() if _STARTS.match(line)]


def test_the_two_commands_stand_for_pip_and_for_uv() -> None:
    for tool in ("pip", "uv"):
        demo, test = (re.search(rf"<!-- {verb} with {tool} -->\n```\n(.+)\n```\n", README) for verb in ("demo", "test"))
        assert demo is not None
        assert test is not None
        assert "train.py fit --config configs/demo.yaml" in demo.group(1)
        assert test.group(1).endswith(".venv/bin/pytest -n 2 --dist loadfile")
        assert all("-c constraints.txt -e" in line.group(1) for line in (demo, test))


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", [line for line in COMMANDS if "train.py" in line])
def test_commands_of_the_door_are_valid(command: str, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_backbone.py").write_text(README.split("<!-- backbone -->\n```python\n")[1].split("\n```")[0])
    arguments = shlex.split(command)[shlex.split(command).index("train.py") + 1 :]
    with pytest.raises(SystemExit) as exit_info:
        main([*arguments, *([] if "--print_config" in arguments else ["--print_config"])])
    assert exit_info.value.code in (0, None)
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]


@pytest.mark.parametrize("command", [line for line in COMMANDS if "-m synth --" in line])
def test_commands_of_the_synthesis_are_valid(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    config = load(shlex.split(command)[3:])
    assert config.pairs
    assert config.queries


@pytest.mark.parametrize("command", [line for line in COMMANDS if re.search(r"-m synth [a-z]", line)])
def test_commands_that_look_at_a_synthesis_ask_for_its_data(command: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "configs").symlink_to(PROJECT / "configs")
    monkeypatch.chdir(tmp_path)  # no data lies here
    with pytest.raises(ConfigError, match="`output` data/coco_synthetic holds no finished synthetic set"):
        look(shlex.split(command)[3:])


@pytest.mark.parametrize("command", [line for line in COMMANDS if "-m lightning_modules" in line])
def test_the_export_asks_for_its_checkpoint(command: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert export(shlex.split(command)[3:]) == 1
    assert "best.ckpt is no file" in capsys.readouterr().err


@pytest.mark.parametrize("command", [line for line in COMMANDS if re.search("-m experiments (table|figure4)", line)])
def test_tables_are_understood(command: str, tmp_path, monkeypatch) -> None:
    def runs(*_, **__) -> None:
        raise InterruptedError

    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(study, "run", runs)
    with pytest.raises(InterruptedError):
        ask([*shlex.split(command)[3:], "--to", str(tmp_path), "--work", str(tmp_path)])


@pytest.mark.parametrize("command", [line for line in COMMANDS if "-m experiments report" in line])
def test_a_report_asks_for_its_runs(command: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "configs").symlink_to(PROJECT / "configs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no file BEFORE/odmap\.parquet"):
        ask(shlex.split(command)[3:])


@pytest.mark.parametrize("command", [line for line in COMMANDS if re.search("-m experiments (maps|spurious)", line)])
def test_experiments_ask_for_their_data(command: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "configs").symlink_to(PROJECT / "configs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingPathError, match=r"There is no file .*dataset_coco\.json"):
        ask(shlex.split(command)[3:])


def test_the_metric_alone_runs(capsys) -> None:
    block = next(code for code in re.findall(r"```python\n(.+?)\n```", README, re.DOTALL) if "metrics import" in code)
    exec(compile(block, "README.md", "exec"), {})  # noqa: S102 (it is our own README)
    assert "ODmAP@10" in capsys.readouterr().out


def test_every_folder_of_the_layout_is_there() -> None:
    for name in re.findall(r"^\| `([\w.]+)/?` \|", README, re.MULTILINE):
        assert (PROJECT / name).exists(), name
