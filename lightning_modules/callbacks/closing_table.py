"""The table that closes `fit`, `validate` and `test`."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor

_GROUPS = ("i2t/R", "t2i/R", "ODmAP", "hallucinated")
_REFERENCES = {"random ranking": "random/", "own captions": "own_captions/"}
_FURTHER = {"mean over folds": "folds/", "re-ranked": "reranked/"}


class ClosingTable(Callback):
    """Prints recall and ODmAP beside the two reference rows that need no model; of other models, every score.

    After `fit` it shows the last epoch and, where that is another one, the epoch that is best by the model's `monitor`.
    """

    def __init__(self) -> None:
        self._epochs: dict[int, dict[str, float]] = {}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the validation table of the run."""
        if not self._epochs or not trainer.is_global_zero:
            return
        last = max(self._epochs)
        monitor = str(getattr(pl_module, "monitor", "val/rsum"))
        best = max(self._epochs, key=lambda epoch: self._epochs[epoch].get(monitor, 0.0))  # the first of equals
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

    Below an entry stand its 95 % interval, its mean over folds, and its scores after re-ranking with their interval,
    where they were logged. Where no recall was logged, every score has a row instead, and every entry a column.

    Args:
        stage: prefix of the logged keys, "val" or "test".
        rows: for each row's name the logged scores.
        console: where to print; None: standard output, 120 columns wide where that is no terminal.
    """
    prefix = f"{stage}/"
    scores = {
        name: {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
        for name, row in rows.items()
    }
    build = _retrieval_table if all("rsum" in row for row in scores.values()) else _plain_table
    table = build(scores)
    table.title = f"{stage} scores in per cent"
    (console or Console(width=None if sys.stdout.isatty() else 120)).print(table)


def _plain_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("")
    for name in rows:
        table.add_column(name, justify="right")
    for score in next(iter(rows.values())):
        table.add_row(score, *(_number(row.get(score)) for row in rows.values()))
    return table


def _retrieval_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    first = next(iter(rows.values()))
    groups = {name: cuts for name in _GROUPS if (cuts := _cut_offs(name, first))}
    table = Table("", caption=_caption(first))
    for name, cuts in groups.items():
        table.add_column(f"{name.replace('/', ' ')}@{'/'.join(map(str, cuts))}", justify="right")
    table.add_column("rsum", justify="right")
    for name, scores in rows.items():
        table.add_row(name, *_cells(groups, scores), _number(scores.get("rsum")))
        _add_rows(table, groups, scores, _interval(""))
        _add_rows(table, groups, scores, {name: (prefix, "") for name, prefix in _FURTHER.items()})
        _add_rows(table, groups, scores, _interval("reranked/"))
    table.add_section()
    _add_rows(table, groups, first, {name: (prefix, "") for name, prefix in _REFERENCES.items()})
    return table


def _interval(prefix: str) -> dict[str, tuple[str, str]]:
    return {"95 % from": (prefix, "/low"), "95 % to": (prefix, "/high")}


def _add_rows(
    table: Table, groups: Mapping[str, list[int]], scores: Mapping[str, float], rows: Mapping[str, tuple[str, str]]
) -> None:
    """Add those rows, given by what stands before and after the name of a score, that have any score."""
    for name, (prefix, suffix) in rows.items():
        cells = [*_cells(groups, scores, prefix, suffix), _number(scores.get(f"{prefix}rsum{suffix}"))]
        if any(cell != "-" for cell in cells):
            table.add_row(name, *cells)


def _cells(
    groups: Mapping[str, list[int]], scores: Mapping[str, float], prefix: str = "", suffix: str = ""
) -> list[str]:
    keys = [[f"{prefix}{name}@{k}{suffix}" for k in cuts] for name, cuts in groups.items()]
    return [" ".join(_number(scores.get(key)) for key in group) if group[0] in scores else "-" for group in keys]


def _cut_offs(name: str, scores: Mapping[str, float]) -> list[int]:
    cuts = (key.removeprefix(f"{name}@") for key in scores if key.startswith(f"{name}@"))
    return sorted(int(cut) for cut in cuts if cut.isdecimal())


def _caption(scores: Mapping[str, float]) -> str | None:
    lines = []
    if "i2t/median_rank" in scores:
        i2t, t2i = (f"{scores[f'{way}/median_rank']:,.0f} ({way})" for way in ("i2t", "t2i"))
        lines.append(f"median rank {i2t}, {t2i}")
    if "ODmAP/queries" in scores:
        queries, gallery = scores["ODmAP/queries"], scores["ODmAP/gallery"]
        first = scores["hubs/distinct@1"] * queries / 100
        lines.append(
            f"ODmAP: {queries:,.0f} queries, gallery of {gallery:,.0f} captions, {first:,.0f} of them first for a query"
        )
    return "\n".join(lines) or None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _floats(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
