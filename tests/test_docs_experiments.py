"""What the page about experiments tells users to run is there, and what it says of rows and settings is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datamodules.errors import ConfigError, MissingPathError
from experiments.__main__ import EXPERIMENTS, main
from experiments.study import command as commands
from experiments.study.settings import SHIPPED

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "experiments.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m experiments (.+)$", PAGE, re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing := re.search(r"--(settings|run) (\S+)", command):
        monkeypatch.chdir(tmp_path)
        with pytest.raises((ConfigError, MissingPathError), match=re.escape(f"`--{missing[1]}`")):
            main(command.split())  # every other word of the command was understood
        return
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(commands, "run", lambda *_, **__: _stop())
    with pytest.raises(InterruptedError):
        main([*command.split(), "--to", str(tmp_path / "results"), "--work", str(tmp_path / "work")])


def _stop() -> None:
    raise InterruptedError


def test_every_table_and_settings_file_is_explained() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M)) < set(EXPERIMENTS)
    for path in SHIPPED.glob("*.yaml"):
        assert f"`{path.stem}`" in PAGE
