"""The guide to extensions, followed step by step in an empty folder; its classes do what it says of them."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from datamodules.batch import RetrievalBatch
from synth.__main__ import main as synth
from train import main as train

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^<!-- (\S+) -->\n```\w+\n(.+?\n)```$", PAGE, re.M | re.S))
MODULES = [Path(name).stem for name in FILES if name.endswith(".py")]
STEP = re.compile(r"^(?:<!-- \S+ -->\n)?```(?P<language>\w*)\n(?P<code>.+?\n)```$", re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a reader who has saved every file of the page; its modules can be imported."""
    folder = tmp_path_factory.mktemp("page")
    for name, code in FILES.items():
        (folder / name).write_text(code, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        for name in MODULES:
            patch.delitem(sys.modules, name, raising=False)
        yield folder
    for name in MODULES:
        sys.modules.pop(name, None)


def _steps() -> Iterator[tuple[str, str]]:
    """Yield the language and the code of what is to be run, in its order: commands, and python that is no file."""
    for step in STEP.finditer(PAGE):
        if not step.group(0).startswith("<!--"):
            yield step.group("language"), step.group("code")


def _run(command: str) -> None:
    words = shlex.split(command.removeprefix("PYTHONPATH=. "))
    assert words[0] == "python", command
    if words[1] == "train.py":
        assert train([*words[2:], "--trainer.enable_progress_bar", "false"]) == 0, command
    elif words[1:3] == ["-m", "synth"]:
        assert synth(words[3:]) == 0, command
    else:
        exec(compile(Path(words[1]).read_text(), words[1], "exec"), {})  # noqa: S102 (it is our own page)


@pytest.fixture(scope="module")
def followed(folder: Path) -> Path:
    """The folder after everything on the page was run from top to bottom."""
    for language, code in _steps():
        if language == "python":
            exec(compile(code, "docs/extending.md", "exec"), {})  # noqa: S102 (it is our own page)
        else:
            for command in code.splitlines():
                _run(command)
    return folder


def test_every_file_is_named_by_its_first_line() -> None:
    assert len(FILES) == 10
    assert all(code.startswith(f"# {name}\n") for name, code in FILES.items())
    assert len(re.findall(r"^```\w+$", PAGE, re.M)) == len(FILES) + sum(1 for language, _ in _steps() if language)


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(followed: Path) -> None:
    runs = sorted((followed / "runs" / "mine").iterdir())
    assert len(runs) == 4
    for run, model, data in zip(
        runs,
        ["my_siglip.MySigLIP", "my_loss.DecoupledCLIP", "CLIP", "CLIP"],
        ["ScenesDataModule", "ScenesDataModule", "my_data.ShapesDataModule", "ScenesDataModule"],
        strict=True,
    ):
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["model"]["class_path"].endswith(model)
        assert config["data"]["class_path"].endswith(data)
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert sum(bool(row["train/loss"]) for row in rows) == 2
        assert any(row["val/ODmAP@1"] for row in rows)


@pytest.mark.slow
def test_the_shapes_lose_a_class_of_their_own(followed: Path) -> None:
    lines = (followed / "shapes_counterfactuals" / "train" / "metadata.jsonl").read_text().splitlines()
    made = [json.loads(line) for line in lines]
    assert len(made) > 20
    for row in made:
        assert {*row["removed"], *row["kept"]} <= {"circle", "square", "triangle"}
        assert not any(name in row["text"] for name in row["removed"])
        assert any(name in row["text"] for name in row["kept"])


@pytest.mark.slow
def test_the_fill_is_in_the_protocol(followed: Path) -> None:
    protocol = (followed / "my_rims" / "protocol.json").read_text()
    assert "my_fill.RimFill" in protocol
    rows = (followed / "my_rims" / "train" / "metadata.jsonl").read_text().splitlines()
    assert {json.loads(row)["fill"] for row in rows} == {"rim"}


def test_the_fill_takes_the_colour_around_the_region(folder: Path) -> None:
    from my_fill import RimFill

    image = np.full((9, 9, 3), 50, np.uint8)
    image[2:7, 2:7] = [10, 20, 30]
    mask = np.zeros((9, 9), dtype=bool)
    mask[3:6, 3:6] = True
    assert (RimFill(width=1)(image, mask)[mask] == [10, 20, 30]).all()
    assert (RimFill(width=3)(image, mask)[mask] == 50).all()


def test_the_siglip_of_the_page_is_that_of_the_project(folder: Path) -> None:
    from my_siglip import MySigLIP

    from lightning_modules import SigLIP

    config: Any = yaml.safe_load(FILES["my_siglip.yaml"])["model"]["init_args"]["model_config"]
    torch.manual_seed(0)
    mine = MySigLIP(model_config=config).eval()
    ours = SigLIP(model_config=config).eval()
    ours.load_state_dict(mine.state_dict())
    ids = torch.arange(3)
    batch = RetrievalBatch(
        image_ids=ids,
        caption_ids=ids,
        source_ids=ids,
        source_caption_ids=ids,
        synthetic=ids < 0,
        pixel_values=torch.rand(3, 3, 32, 32),
        tokens=mine.processor.tokenize(["a dog", "", "two cats"]),
    )
    assert torch.equal(mine.training_loss(batch), ours.training_loss(batch))
