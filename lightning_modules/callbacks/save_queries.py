"""What `validate` and `test` found for every query and every removed class, saved beside the checkpoint."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_modules.query_tables import QueryTable
from metrics import per_query
from metrics.breakdown import Breakdown


class SaveQueries(Callback):
    """Writes one Parquet file per kind of query: `odmap.parquet`, `i2t.parquet` and `t2i.parquet`.

    Extended positives have `NAME-i2t.parquet` and `NAME-t2i.parquet`.
    Beside `odmap.parquet` stand `removed_classes.csv` and `class_pairs.csv`, ODmAP and hallucinations broken down by
    removed class and by pair of a removed and a kept class, and `class_pairs_matrix.csv`, the hallucinations at the
    smallest cut as a matrix (a row per removed class, a column per kept class).

    They lie in a folder `CHECKPOINT-STAGE-RUN` beside the checkpoint, or in the run folder where no checkpoint was
    given. `python -m metrics show FOLDER` prints their means with intervals, `python -m metrics compare FOLDER OTHER`
    tests whether two models differ.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files of `validate`; in `fit` there are none."""
        if trainer.state.fn == "validate":
            _save(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files of `test`."""
        _save(trainer, pl_module, "test")


def _save(trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
    run = Path(trainer.log_dir or trainer.default_root_dir)  # asks rank zero: all ranks must do it
    tables: dict[str, QueryTable] = pl_module.evaluations[stage].tables  # type: ignore[index, union-attr]
    if not trainer.is_global_zero:
        return
    folder = _folder(run, stage, trainer.ckpt_path)
    names = trainer.datamodule.matcher.class_names  # type: ignore[attr-defined]
    for name, table in tables.items():
        columns: dict[str, Any] = dict(table.columns)
        columns |= {column: _named(columns[column], names) for column in table.classes}
        per_query.write(
            folder / f"{name}.parquet",
            columns,
            query_id="query_id",
            group=table.group,
            measures=table.measures,
            fixed=(*table.fixed, "stage", *table.about),
            about={"stage": stage, "checkpoint": str(trainer.ckpt_path or ""), **table.about},
        )
    if breakdowns := pl_module.evaluations[stage].breakdowns:  # type: ignore[index, union-attr]
        _save_breakdowns(folder, breakdowns, names)
    rank_zero_info(f"Results per query: {folder}")


def _save_breakdowns(folder: Path, breakdowns: tuple[Breakdown, Breakdown], names: Sequence[str]) -> None:
    by_class, by_pair = breakdowns
    for file, breakdown in (("removed_classes.csv", by_class), ("class_pairs.csv", by_pair)):
        rows = breakdown.rows(names)
        _write_csv(folder / file, [list(rows[0]) if rows else [], *(list(row.values()) for row in rows)])
    shares = by_pair.hallucinated[min(by_pair.hallucinated)]
    matrix = [["" if share != share else share for share in row] for row in shares.tolist()]  # NaN: no such query
    rows_of_matrix = ([name, *row] for name, row in zip(names, matrix, strict=True))
    _write_csv(folder / "class_pairs_matrix.csv", [["removed \\ kept", *names], *rows_of_matrix])


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _folder(run: Path, stage: str, checkpoint: Any) -> Path:
    """Return a new folder beside the checkpoint, or the run folder where there is none or nobody may write there."""
    if checkpoint is None:
        return run
    beside = Path(checkpoint).with_name(f"{Path(checkpoint).stem}-{stage}-{run.name}")
    try:
        beside.mkdir(exist_ok=True)
    except OSError as error:
        rank_zero_info(f"The results per query go to the run folder: {beside} cannot be made ({error.strerror}).")
        return run
    return beside


def _named(masks: Tensor, names: Sequence[str]) -> list[list[str]]:
    """Return the names of the classes that each row `[Q, C]` marks."""
    rows: list[list[str]] = [[] for _ in masks]
    for row, column in masks.nonzero().tolist():
        rows[row].append(names[column])
    return rows
