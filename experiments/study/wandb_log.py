"""A study in Weights & Biases: its table, the curves of its trainings, and what its models retrieve."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from datamodules import RetrievalDataModule
from experiments.options import load_data
from experiments.study.lines import CONTROL
from lightning_modules.retrieved import Retrieved
from lightning_modules.run_folder import wandb_is_offline
from metrics import per_query

if TYPE_CHECKING:
    from experiments.study.cells import Cell

CURVES = ("val/ODmAP@1", "val/hubs/distinct@1", "val/i2t/R@1", "val/t2i/R@1", "val/rsum")
"""Scores by epoch that are drawn, with a line for every cell."""

_COMPARED = (CONTROL, "synthetic")


def log_study(
    project: str, name: str, table: Path, cells: Sequence[Cell], root: Path, queries: int = 32, captions: int = 5
) -> None:
    """Log a study as one run, which stays offline, below its folder, where Weights & Biases cannot be reached.

    The run has `table`, the lines of the csv; `curves/val/...`, a line per cell; and `retrieved`, a row per query and
    model: the edited image, its source, the removed classes, and the first captions before and after with their
    verdicts, those of the first seed of `control` and of `synthetic`.

    Args:
        project: of Weights & Biases.
        name: of the run.
        table: csv as a table of a study leaves it.
        cells: of the table; those that are not finished are left out.
        root: folder of the study.
        queries: in `retrieved`, per model, evenly spread over all of them.
        captions: of each query and training.

    Raises:
        UserError: the data of a test are not there any more.
    """
    import wandb

    done = [cell for cell in cells if cell.read(root) is not None]
    offline = wandb_is_offline()
    if offline:
        os.environ.setdefault("WANDB_SILENT", "true")
        print(f"Weights & Biases stays offline, below {root / 'wandb'}: {offline}.")
    # A run of its own, where the process has another open.
    mode: Literal["offline"] | None = "offline" if offline else None
    with wandb.init(project=project, name=name, dir=root, job_type="study", mode=mode, reinit="create_new") as run:
        run.log({"table": _table(table), **_curves(done, root), **_retrieved(done, root, queries, captions)})


def _table(path: Path) -> Any:
    import wandb
    from pyarrow import csv as typed

    found = typed.read_csv(path)
    return wandb.Table(columns=found.column_names, data=[list(row.values()) for row in found.to_pylist()])


def _curves(cells: Sequence[Cell], root: Path) -> dict[str, Any]:
    import wandb

    by_cell = {cell.name: _by_epoch(cell.folder(root) / "fit") for cell in cells}
    charts = {}
    for measure in CURVES:
        lines = {name: points for name, found in by_cell.items() if (points := sorted(found.get(measure, {}).items()))}
        if lines:
            xs, ys = zip(*(zip(*points, strict=True) for points in lines.values()), strict=True)
            charts[f"curves/{measure}"] = wandb.plot.line_series(
                [list(x) for x in xs], [list(y) for y in ys], keys=list(lines), title=measure, xname="epoch"
            )
    return charts


def _by_epoch(runs: Path) -> dict[str, dict[int, float]]:
    """Return every logged score by epoch, over the runs of a training that was resumed."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(runs.glob("*/metrics.csv"), key=lambda one: one.stat().st_mtime):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for measure in CURVES:
                    if row.get(measure):
                        found.setdefault(measure, {})[int(row["epoch"])] = float(row[measure])
    return found


def _retrieved(cells: Sequence[Cell], root: Path, queries: int, captions: int) -> dict[str, Any]:
    import wandb

    firsts = {(cell.model, cell.row.name): cell for cell in sorted(cells, key=lambda cell: cell.seed, reverse=True)}
    compared = [cell for (_, row), cell in firsts.items() if row in _COMPARED]
    if not compared:
        return {}
    data = load_data(compared[0].data(root), synthetic=True)
    assert isinstance(data, RetrievalDataModule)  # noqa: S101 (a study is of retrieval)
    data.prepare_data()
    columns: list[str | int] = []
    rows: list[list[Any]] = []
    for cell in sorted(compared, key=lambda cell: (cell.model, cell.row.name)):
        some = _of_cell(cell, root).some(queries, captions)
        columns = ["model", "trained on", *some.columns()]
        label = cell.settings.models[cell.model].label
        rows += [[label, cell.row.label, *row] for row in some.rows(data)]
    return {"retrieved": wandb.Table(columns=columns, data=rows)}


def _of_cell(cell: Cell, root: Path) -> Retrieved:
    """Return what a cell's queries retrieved, after re-ranking where the model does."""
    found = cell.read(root)
    assert found is not None  # noqa: S101 (it is finished)
    folder = cell.folder(root) / found["results"]
    again = folder / "reranked-odmap.parquet"
    table = per_query.read(again if again.exists() else folder / "odmap.parquet").table
    return Retrieved(
        query_ids=table["query_id"].to_numpy(),
        source_ids=table["source_image_id"].to_numpy(),
        removed=table["removed"].to_pylist(),
        caption_ids=np.stack(table["retrieved_ids"].to_numpy()),
        right=np.stack(table["relevant"].to_numpy()),
    )
