"""The tables of `python -m metrics`, for a terminal and as CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from metrics.compare import Difference, Mean

if TYPE_CHECKING:
    from rich.table import Table

Row: TypeAlias = Mean | Difference


def print_means(rows: Sequence[Mean], confidence: float, note: str) -> None:
    """Print one table per file, and the note below the last."""
    columns = ["mean", f"{100 * confidence:g} % interval"]
    cells = [[f"{row.mean:.2f}", _interval(row.low, row.high)] for row in rows]
    _print(_tables(columns, list(zip(rows, cells, strict=True))), note)


def print_differences(rows: Sequence[Difference], confidence: float, note: str) -> None:
    """Print one table per file, and the note below the last."""
    columns = ["first", "second", "queries changed", "difference", f"{100 * confidence:g} % interval", "p", "p, Holm"]
    cells = [_difference_cells(row) for row in rows]
    _print(_tables(columns, list(zip(rows, cells, strict=True))), note)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows in full precision, with the names of their fields on top."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0]._fields)
        writer.writerows(rows)


def _difference_cells(row: Difference) -> list[str]:
    return [
        f"{row.first:.2f}",
        f"{row.second:.2f}",
        f"{row.changed:,}",
        f"{row.difference:+.2f}",
        _interval(row.low, row.high, sign="+"),
        _p_value(row.p_value),
        _p_value(row.p_holm) if row.changed else "-",
    ]


def _tables(columns: Sequence[str], rows: Sequence[tuple[Row, list[str]]]) -> list[Table]:
    from rich.table import Table

    tables: dict[str, Table] = {}
    for row, cells in rows:
        if row.file not in tables:
            title = f"{row.file}: {row.queries:,} queries in {row.groups:,} groups"
            tables[row.file] = Table("per cent", title=title, title_justify="left")
            for column in columns:
                tables[row.file].add_column(column, justify="right")
        tables[row.file].add_row(row.measure, *cells)
    return list(tables.values())


def _print(tables: list[Table], note: str) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    for table in tables:
        console.print(table)
    console.print(note, markup=False)


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "-" if low is None or high is None else f"{low:{sign}.2f} to {high:{sign}.2f}"


def _p_value(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"
