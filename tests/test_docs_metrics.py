"""What the page about the metrics tells users to run or to set is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from datamodules import CocoDataModule
from metrics.__main__ import main

PAGES = [Path(__file__).parents[1] / "docs" / "metrics.md"]


def _blocks(language: str) -> list[tuple[str, str]]:
    pattern = rf"^```{language}\n(.+?)\n```$"
    return [(page.name, code) for page in PAGES for code in re.findall(pattern, page.read_text(), re.M | re.S)]


@pytest.mark.parametrize(("page", "code"), _blocks("python"))
def test_python_runs(page: str, code: str, capsys) -> None:
    exec(compile(code, page, "exec"), {})  # noqa: S102 (they are our own pages)
    assert "ODmAP@10" in capsys.readouterr().out


@pytest.mark.parametrize(("page", "code"), _blocks("yaml"))
def test_yaml_holds_arguments_of_the_data_module(page: str, code: str) -> None:
    given = yaml.safe_load(code)["data"]["init_args"]
    module = CocoDataModule(image_root=".", karpathy="dataset.json", instances=["instances.json"], **given)
    assert module.eval_fold_size is None


@pytest.mark.parametrize(
    "command", re.findall(r"^python -m metrics (.+)$", "\n".join(map(Path.read_text, PAGES)), re.M)
)
def test_commands_ask_for_what_is_there(command: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_info:
        main(command.split())
    assert exit_info.value.code == 2
    assert "There is no file FOLDER" in capsys.readouterr().err  # every other word of the command was understood
