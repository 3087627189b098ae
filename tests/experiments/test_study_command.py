"""The command of a table: what its options choose, and how a study that fails in part ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.errors import CommError

from datamodules.errors import ConfigError
from experiments import table1
from experiments.__main__ import main
from experiments.study import command, wandb_log

OWN = {
    "dataset": "Mine",
    "source": {"class_path": "datamodules.ScenesDataModule", "init_args": {"root": "$WORK/scenes"}},
    "synthesis": {"pairs": {"train": ["train"]}},
    "models": {"small": {"label": "Small", "config": "small.yaml"}, "large": {"label": "L", "config": "small.yaml"}},
}


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Path, int | None, str | None]]:
    """Settings of one's own in the working folder, and what a runner that fails every cell was asked to do."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text("model: {class_path: CLIP}\n")
    Path("own.yaml").write_text(yaml.safe_dump(OWN, sort_keys=False))
    asked = []

    def run(cells: Any, root: Path, jobs: int | None, wandb: str | None) -> list[str]:
        asked.append(([cell.name for cell in cells], root, jobs, wandb))
        return [f"{cell.name}: no memory (log.txt)" for cell in cells]

    monkeypatch.setattr(command, "run", run)
    return asked


def test_an_experiment_that_is_misspelled_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^There is no experiment `tabel1`, did you mean table1\?$"):
        main(["tabel1"])


def test_cells_of_a_table_are_run_and_failures_told(ran: list[Any], capsys: Any) -> None:
    assert table1.main(["--settings", "own.yaml", "--models", "large", "--seeds", "2", "--jobs", "3"]) == 1
    rows = [f"large/{row}/seed{seed}" for seed in (0, 1) for row in ("control", "synthetic")]
    assert ran == [(rows, Path("studies/own"), 3, None)]
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"error: {name}: no memory (log.txt)" for name in rows]
    assert "results/own/table1.md" in said.out
    assert "Missing, since their runs did not end: large/control/seed0" in Path("results/own/table1.md").read_text()


def test_failures_are_told_also_where_no_table_can_be_written(ran: list[Any], monkeypatch: Any, capsys: Any) -> None:
    def load(*_: Any) -> None:
        raise ConfigError("Results of a study cannot be used.")

    monkeypatch.setattr(command, "load", load)
    with pytest.raises(ConfigError):
        table1.main(["--settings", "own.yaml", "--models", "large"])
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_folders_can_be_chosen_and_all_models_are_taken(ran: list[Any]) -> None:
    table1.main(["--settings", "own.yaml", "--work", "here", "--to", "there"])
    names, root, jobs, _ = ran[0]
    assert (names, root, jobs) == (
        [f"{model}/{row}/seed0" for model in ("small", "large") for row in ("control", "synthetic")],
        Path("here"),
        None,
    )
    assert sorted(path.name for path in Path("there").iterdir()) == ["table1.csv", "table1.md", "table1.tex"]


def test_a_table_is_not_written_over_one_that_says_more(ran: list[Any]) -> None:
    path = Path("results/own/table1.csv")
    path.parent.mkdir(parents=True)
    path.write_text("model,row,seeds,mean\nsmall,control,2,40\nsmall,synthetic,2,44\n")
    again = ["--settings", "own.yaml", "--models", "small", "--seeds"]
    with pytest.raises(ConfigError, match=r"table1\.csv has 2 seed\(s\) of small/control, of which .* would leave 1"):
        table1.main([*again, "1"])
    with pytest.raises(ConfigError, match=r"would leave 0: .* name another folder with `--to`"):
        table1.main(["--settings", "own.yaml", "--models", "large", "--seeds", "3"])
    assert (ran, "small,control,2,40" in path.read_text()) == ([], True)
    table1.main([*again, "1", "--to", "mine"])
    with pytest.raises(ConfigError, match=r"has 2 seed\(s\) of small/control, of which .* would leave 0"):
        table1.main([*again, "2"])  # which fails
    assert "small,control,2,40" in path.read_text()
    path.write_text("my notes\n1\n")
    with pytest.raises(ConfigError, match=r"table1\.csv is no table of a study"):
        table1.main([*again, "2"])


@pytest.mark.parametrize("project", ["", "team/project", "a" * 129])
def test_a_project_of_wandb_is_checked_first(ran: list[Any], capsys: Any, project: str) -> None:
    with pytest.raises(SystemExit):
        table1.main(["--settings", "own.yaml", "--wandb", project])
    assert "--wandb: " in (said := capsys.readouterr().err)
    assert "is no name of a project of Weights & Biases: give 1 to 128 characters" in said
    assert ran == []


def test_a_table_that_wandb_does_not_take_is_kept(ran: list[Any], monkeypatch: Any) -> None:
    def log_study(*_: Any) -> None:
        raise CommError("no permission")

    monkeypatch.setattr(wandb_log, "log_study", log_study)
    with pytest.raises(ConfigError, match=r"--wandb mine`: no permission\); results/own/table1\.csv holds it"):
        table1.main(["--settings", "own.yaml", "--models", "small", "--wandb", "mine"])
    assert Path("results/own/table1.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--settings", "own.yaml", "--models", "smal"], "`--models` has 'smal', did you mean small"),
        (["--dataset", "coco", "--size", "full"], "`--size` is full, but coco has one size: leave it out"),
        (["--settings", "none.yaml"], "`--settings` is none.yaml, which is no file"),
    ],
)
def test_slips_are_told_before_anything_runs(ran: list[Any], arguments: list[str], said: str) -> None:
    with pytest.raises(Exception, match=said) as error:
        table1.main(arguments)
    assert isinstance(error.value, ConfigError | FileNotFoundError)
    assert ran == []


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--datset", "coco"], ["--dataset", "cocoo"]])
def test_misspelled_options_end_with_status_2(ran: list[Any], arguments: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        table1.main(arguments)
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert ran == []
