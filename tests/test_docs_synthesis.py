"""The page about counterfactual pairs, followed step by step in an empty folder."""

from __future__ import annotations

import re
import sys
from inspect import isabstract, isclass
from pathlib import Path
from types import ModuleType

import pytest

from synth import captions, fills
from synth.__main__ import main
from synth.captions import CaptionStrategy
from synth.fills import Fill
from synth.removal import SelectionConfig

PAGE = (Path(__file__).parents[1] / "docs" / "synthesis.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?:PYTHONPATH=\. )?python -m synth (.+)$", PAGE, re.M)


def _made(package: ModuleType, base: type) -> list[str]:
    """Return the names of the strategies that a package offers to configs."""
    found = {name: thing for name, thing in vars(package).items() if name in package.__all__ and isclass(thing)}
    return [name for name, thing in found.items() if issubclass(thing, base) and not isabstract(thing)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold the files that the page tells its readers to save."""
    folder = tmp_path_factory.mktemp("page")
    for name, code in re.findall(r"^<!-- (\S+) -->\n```\w+\n(.+?\n)```$", PAGE, re.M | re.S):
        (folder / name).write_text(code, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("HF_HOME", str(folder / "cache"))
    monkeypatch.delitem(sys.modules, "my_fill", raising=False)
    for command in COMMANDS:
        assert main(command.split()) == 0, command
    assert (folder / "my_noise" / "protocol.json").is_file()
    assert (folder / "my_counterfactuals_train.html").is_file()
    assert "Mean phi" in capsys.readouterr().out
    code = re.findall(r"^```python\n(from datasets .+?)```$", PAGE, re.M | re.S)[0]
    exec(compile(code, "docs/synthesis.md", "exec"), {})  # noqa: S102 (it is our own page)
    assert capsys.readouterr().out.strip().endswith("]")


def test_every_verb_is_shown() -> None:
    assert {"--config", "sheet", "stats"} <= {command.split()[0] for command in COMMANDS}


@pytest.mark.parametrize("strategy", [*_made(fills, Fill), *_made(captions, CaptionStrategy)])
def test_every_strategy_is_shown(strategy: str) -> None:
    assert f"| `{strategy}` |" in PAGE


def test_the_table_of_rules_has_every_key_with_its_default() -> None:
    shown = {key: default for default, key in re.findall(r"\| `?([\w.]+)`? \| `(\w+)", PAGE)}
    defaults = {key: str(value).lower() for key, value in vars(SelectionConfig()).items() if key != "multi"}
    assert shown == defaults
    assert "`multi: false`" in PAGE
    assert SelectionConfig().multi
