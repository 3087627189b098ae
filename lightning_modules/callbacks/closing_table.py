"""The table that closes `fit`, `validate` and `test`."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor

_RECALLS = ("i2t/R", "t2i/R")


class ClosingTable(Callback):
    """Prints recall and ODmAP beside the two reference rows that need no model.

    After `fit` it shows the last epoch and, where that is another one, the epoch of the best rsum.
    """

    def __init__(self) -> None:
        self._epochs: dict[int, dict[str, float]] = {}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the validation table of the run."""
        if not self._epochs or not trainer.is_global_zero:
            return
        last = max(self._epochs)
        best = max(self._epochs, key=lambda epoch: self._epochs[epoch].get("val/rsum", 0.0))  # the first of equals
        rows = {f"epoch {last} (last)" if last != best else f"epoch {last} (last, best)": self._epochs[last]}
        if last != best:
            rows[f"epoch {best} (best)"] = self._epochs[best]
        print_scores("val", rows)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the scores of this epoch in `fit`, print the table of `validate`."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._epochs[trainer.current_epoch] = _floats(trainer.callback_metrics)
        elif trainer.state.fn == "validate" and trainer.is_global_zero:
            print_scores("val", {"this model": _floats(trainer.callback_metrics)})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table of a `test` run."""
        if trainer.is_global_zero:
            print_scores("test", {"this model": _floats(trainer.callback_metrics)})


def print_scores(stage: str, rows: Mapping[str, Mapping[str, float]], console: Console | None = None) -> None:
    """Print one row per entry, then the random-ranking and the own-captions row, all in per cent.

    Args:
        stage: prefix of the logged keys, "val" or "test".
        rows: for each row's name the logged scores.
        console: where to print; None: standard output, 120 columns wide where that is no terminal.
    """
    scores = next(iter(rows.values()))
    queries, gallery = scores.get(f"{stage}/ODmAP/queries", 0), scores.get(f"{stage}/ODmAP/gallery", 0)
    groups = {f"{name}@": _cut_offs(stage, name, scores) for name in (*_RECALLS, "ODmAP")}
    table = Table(title=f"{stage} scores in per cent", caption=_caption(queries, gallery))
    table.add_column()
    for group, cut_offs in groups.items():
        if cut_offs:
            table.add_column(group.replace("/", " ") + "/".join(map(str, cut_offs)), justify="right")
    table.add_column("rsum", justify="right")
    references = {"random ranking": "random/", "own captions": "own_captions/"} if queries else {}
    for name, values in rows.items():
        table.add_row(name, *_cells(stage, "", groups, values), _number(values.get(f"{stage}/rsum")))
    table.add_section()
    for name, prefix in references.items():
        table.add_row(name, *_cells(stage, prefix, groups, scores), "-")
    (console or Console(width=None if sys.stdout.isatty() else 120)).print(table)


def _cells(stage: str, prefix: str, groups: Mapping[str, list[int]], scores: Mapping[str, float]) -> list[str]:
    keys = [[f"{stage}/{prefix}{group}{k}" for k in cut_offs] for group, cut_offs in groups.items() if cut_offs]
    return [" ".join(_number(scores.get(key)) for key in group) if group[0] in scores else "-" for group in keys]


def _cut_offs(stage: str, name: str, scores: Mapping[str, float]) -> list[int]:
    start = f"{stage}/{name}@"
    return sorted(int(key.removeprefix(start)) for key in scores if key.startswith(start))


def _caption(queries: float, gallery: float) -> str | None:
    return f"ODmAP: {queries:,.0f} queries, gallery of {gallery:,.0f} captions" if queries else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _floats(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
