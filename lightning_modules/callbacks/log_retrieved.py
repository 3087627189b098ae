"""Retrieved captions with images, as a table of Weights & Biases."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from lightning_modules.query_tables import QueryTable
from lightning_modules.retrieved import Retrieved


class LogRetrieved(Callback):
    """Logs what some counterfactual queries of `validate` or `test` retrieved, where a `WandbLogger` is there.

    The table is `val/retrieved` or `test/retrieved`: query image, source image, removed classes, and for each of the
    first captions whether it is right; after re-ranking, where the model does, the captions in that order.

    Args:
        queries: how many, evenly spread over all of them.
        captions: how many of each, at most as many as the largest cut of `top_k`.
    """

    def __init__(self, queries: int = 32, captions: int = 5) -> None:
        self.queries, self.captions = queries, captions

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the table of `validate`; in `fit` there is none."""
        if trainer.state.fn == "validate":
            self._log(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the table of `test`."""
        self._log(trainer, pl_module, "test")

    def _log(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        tables: dict[str, QueryTable] = pl_module.evaluations[stage].tables  # type: ignore[index, union-attr]
        table = tables.get("reranked-odmap", tables.get("odmap"))
        if not loggers or table is None or not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        some = _retrieved(table, data.matcher.class_names).some(self.queries, self.captions)
        for logger in loggers:
            logger.log_table(f"{stage}/retrieved", some.columns(), some.rows(data))


def _retrieved(table: QueryTable, names: Any) -> Retrieved:
    columns = {name: column.cpu().numpy() for name, column in table.columns.items()}
    removed = [[name for name, gone in zip(names, row, strict=True) if gone] for row in columns["removed"]]
    ids = columns["query_id"], columns["source_image_id"]
    return Retrieved(*ids, removed, columns["retrieved_ids"], columns["relevant"])
