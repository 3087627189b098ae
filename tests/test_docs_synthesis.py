"""The page about counterfactual pairs, followed step by step in an empty folder."""

from __future__ import annotations

import re
import sys
from inspect import isabstract, isclass
from pathlib import Path
from types import ModuleType

import pytest

from datamodules import CocoDataModule
from datamodules.errors import ConfigError
from synth import captions, fills
from synth.__main__ import _VERBS, main
from synth.captions import CaptionStrategy
from synth.fills import Fill
from synth.removal import SelectionConfig

PAGE = (Path(__file__).parents[1] / "docs" / "synthesis.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?:PYTHONPATH=\. )?python -m synth (.+ --config .+|--config .+)$", PAGE, re.M)
DETECT = re.findall(r"^python -m synth (detect .+)$", PAGE, re.M)
SHARED = Path(__file__).parents[2] / "shared"


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


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="no photos and weights in ../shared")
def test_the_detector_makes_what_a_data_module_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(SHARED / "data" / "coco-sample" / "images")
    (tmp_path / "yolox_nano.onnx").symlink_to(SHARED / "weights" / "yolox_nano_coco" / "yolox_nano.onnx")
    names = sorted(path.name for path in (tmp_path / "photos").iterdir())[:3]
    (tmp_path / "said.csv").write_text("file,caption\n" + "".join(f"{name},a dog\n" for name in names))
    assert main(DETECT[0].split()) == 0
    data = CocoDataModule(image_root="photos", karpathy="boxes_karpathy.json", instances=["boxes.json"])
    data.prepare_data()
    assert list(data.tables.texts) == ["a dog"] * 3


def test_every_verb_is_shown() -> None:
    verbs = {command.split()[0] for command in [*COMMANDS, *DETECT]}
    assert verbs == {"--config", *_VERBS}


@pytest.mark.parametrize("strategy", [*_made(fills, Fill), *_made(captions, CaptionStrategy)])
def test_every_strategy_is_shown(strategy: str) -> None:
    assert f"| `{strategy}` |" in PAGE


def test_the_table_of_rules_has_every_key_with_its_default() -> None:
    shown = {key: default for default, key in re.findall(r"\| `?([\w.]+)`? \| `(\w+)", PAGE)}
    defaults = {key: str(value).lower() for key, value in vars(SelectionConfig()).items() if key != "multi"}
    assert shown == defaults
    assert "`multi: false`" in PAGE
    assert SelectionConfig().multi


def test_a_misspelled_command_is_told_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no command `statz`; known: stats, sheet, detect"):
        main(["statz", "--config", "my_synthesis.yaml"])
