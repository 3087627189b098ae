"""The door, as users use it: every verb, what it leaves on disk, resuming, a backbone of one's own, and slips."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from train import main

PROJECT = Path(__file__).parents[1]


def readme_block(marker: str) -> str:
    """The code block of the README that follows a marker."""
    text = (PROJECT / "README.md").read_text().split(f"<!-- {marker} -->\n```", 1)[1]
    return text.split("\n", 1)[1].split("\n```", 1)[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configs of a small run over Scenes; the first `fit` draws and synthesises."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "my_backbone.py").write_text(readme_block("backbone"))
    sys.path.insert(0, str(folder))
    scenes = {"train": 24, "val": 10, "test": 12, "resolution": 64}
    source = {
        "class_path": "ScenesDataModule",
        "init_args": {"root": str(folder / "scenes"), "scenes": scenes, "cache_dir": str(folder / "cache")},
    }
    synthesis = {
        "data": source,
        "output": str(folder / "synthetic"),
        "pairs": {"train": ["train"]},
        "queries": {"val": ["val"], "test": ["test"]},
        "fill": {"class_path": "MeanFill"},
    }
    run = {
        "name": "tiny",
        "runs": str(folder / "runs"),
        "synthesis": str(folder / "synth.yaml"),
        "trainer": {
            "max_epochs": 2,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            "logger": {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "tests"}},
        },
        "model": {"class_path": "my_backbone.BagOfColours"},
        "data": {
            "class_path": "ScenesDataModule",
            "init_args": source["init_args"]
            | {"synthetic": str(folder / "synthetic"), "batch_size": 16, "eval_batch_size": 32, "num_workers": 0},
        },
    }
    (folder / "synth.yaml").write_text(yaml.safe_dump(synthesis))
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return folder


def _run(world: Path, verb: str, *arguments: str) -> tuple[int, Path]:
    """Run a verb and return its status and the folder that it made."""
    before = set((world / "runs" / "tiny").glob("*"))
    status = main([verb, "--config", str(world / "run.yaml"), *arguments])
    new = sorted(set((world / "runs" / "tiny").glob("*")) - before)
    assert len(new) <= 1
    return status, new[0] if new else world


@pytest.fixture(scope="module")
def fitted(world: Path) -> tuple[Path, str]:
    """The folder of a finished `fit`, and what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        page = io.StringIO()
        patch.setattr(sys, "stdout", page)
        status, folder = _run(world, "fit")
    assert status == 0
    return folder, page.getvalue()


def _columns(folder: Path) -> dict[str, list[float]]:
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows if row[key]] for key in rows[0]}


def test_fit_leaves_a_record(fitted: tuple[Path, str], world: Path) -> None:
    folder, _ = fitted
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_epochs"] == 2
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert (world / "synthetic" / "protocol.json").is_file()


def test_fit_logs_stable_keys(fitted: tuple[Path, str]) -> None:
    columns = _columns(fitted[0])
    for key in ("train/loss", "val/rsum", "val/i2t/R@1", "val/t2i/R@10", "val/ODmAP@1", "val/ODmAP@10"):
        assert columns[key], key
    for key in ("val/random/ODmAP@1", "val/own_captions/ODmAP@5", "val/ODmAP/queries", "val/ODmAP/gallery"):
        assert columns[key], key
    assert columns["val/ODmAP/gallery"] == [50.0, 50.0]
    assert columns["train/loss"][-1] < columns["train/loss"][0]


def test_fit_closes_with_a_table(fitted: tuple[Path, str]) -> None:
    _, printed = fitted
    for words in ("val scores in per cent", "random ranking", "own captions", "ODmAP@1/5/10", "epoch 1"):
        assert words in printed


def test_test_searches_the_captions_of_all_splits(world: Path, fitted: tuple[Path, str], capsys) -> None:
    status, folder = _run(world, "test", "--ckpt_path", str(fitted[0] / "checkpoints" / "best.ckpt"))
    columns = _columns(folder)
    assert status == 0
    assert columns["test/ODmAP/gallery"] == [(24 + 10 + 12) * 5]
    assert 0 <= columns["test/ODmAP@1"][0] <= 100
    assert "test scores in per cent" in capsys.readouterr().out


def test_validate_repeats_the_score_of_the_last_epoch(world: Path, fitted: tuple[Path, str]) -> None:
    status, folder = _run(world, "validate", "--ckpt_path", str(fitted[0] / "checkpoints" / "last.ckpt"))
    assert status == 0
    for key in ("val/rsum", "val/ODmAP@5"):
        assert _columns(folder)[key][-1] == pytest.approx(_columns(fitted[0])[key][-1], abs=1e-4)


def test_predict_runs(world: Path, fitted: tuple[Path, str]) -> None:
    assert _run(world, "predict", "--ckpt_path", str(fitted[0] / "checkpoints" / "last.ckpt"))[0] == 0


def test_same_seed_same_numbers_and_resuming_changes_nothing(world: Path, fitted: tuple[Path, str]) -> None:
    _, first = _run(world, "fit", "--trainer.max_epochs", "1")
    _, resumed = _run(world, "fit", "--ckpt_path", str(first / "checkpoints" / "last.ckpt"))
    whole, part = _columns(fitted[0]), _columns(resumed)
    assert part["val/rsum"] == whole["val/rsum"][1:]
    assert part["train/loss"] == whole["train/loss"][len(whole["train/loss"]) // 2 :]
    weights = [
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for path in (first, resumed)
    ]
    final = torch.load(fitted[0] / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(weights[1][key], final[key]) for key in final)
    assert any(not torch.equal(weights[0][key], final[key]) for key in final)


def _weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_ratio_zero_trains_on_original_pairs_alone(world: Path, fitted: tuple[Path, str]) -> None:
    status, folder = _run(world, "fit", "--data.init_args.ratio", "0", "--trainer.max_epochs", "1")
    assert status == 0
    assert len(_columns(folder)["train/loss"]) == 24 * 5 // 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.init_args.ratio", "-1"], ["ratio", "-1"]),
        (["--data.init_args.ratio", "5"], ["ratio", "5", "allow"]),
        (["--data.init_args.ratios", "5"], ["ratios", "did you mean ratio?"]),
        (["--data", "ScenesDataModul"], ["ScenesDataModul", "did you mean ScenesDataModule?"]),
        (["--trainer.max_epoch", "5"], ["did you mean trainer.max_epochs?"]),
        (["--data.init_args.synthetic", "nowhere", "--synthesis", "null"], ["nowhere", "python -m synth"]),
        (["--ckpt_path", "nowhere.ckpt"], ["nowhere.ckpt"]),
    ],
)
def test_slips_get_one_sentence(
    world: Path, fitted: tuple[Path, str], capfd, arguments: list[str], words: list[str]
) -> None:
    capfd.readouterr()
    try:
        status, _ = _run(world, "fit", *arguments)
    except SystemExit as exit_info:
        status = exit_info.code
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert status in (1, 2)
    assert len(errors) == 1
    for word in words:
        assert word in errors[0]


def test_help_needs_no_heavy_package(tmp_path: Path) -> None:
    code = (
        "import sys, train; assert train.main(['--help']) == 0;"
        "assert not {'torch', 'lightning', 'wandb', 'spacy'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for verb in ("fit", "validate", "test", "predict"):
        assert f"python train.py {verb}" in done.stdout


def test_a_backbone_of_ones_own_fits_20_lines() -> None:
    lines = readme_block("backbone").split("class BagOfColours")[1].splitlines()
    assert len([line for line in lines if line.strip()]) <= 20


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configs_that_users_see_are_valid(path: Path, capsys, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["fit", "--config", str(path), "--runs", str(tmp_path), "--print_config"])
    assert exit_info.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)
    given = yaml.safe_load(path.read_text())
    assert printed["model"]["init_args"].items() >= given["model"]["init_args"].items()
    assert printed["data"]["init_args"].keys() >= given["data"]["init_args"].keys()
