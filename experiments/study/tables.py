"""A table of a study: from what its cells found to files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from experiments.study import notes
from experiments.study.cells import Cell
from experiments.study.columns import Column
from experiments.study.layout import Table
from experiments.study.lines import CONTROL, ORACLE, Line, lines, write_csv
from experiments.study.paper import Paper
from experiments.study.results import Results

Labels: TypeAlias = Mapping[tuple[str, str], tuple[str, str]]


@dataclass(frozen=True)
class Form:
    """What a table is like.

    Attributes:
        name: of its files.
        title: what stands above it.
        columns: what every row says, given the paper's figures.
        closing: sentences below, given what was found and the rows of the table.
    """

    name: str
    title: str
    columns: Callable[[Paper], Mapping[str, Column]]
    closing: Callable[[Results, Sequence[Line]], Iterable[str]] = lambda _, __: ()


def render(form: Form, results: Results, rows: Labels, paper: Paper, about: Mapping[str, str], to: Path) -> list[Line]:
    """Write `NAME.md`, `NAME.tex` and `NAME.csv`.

    Args:
        form: of the table.
        results: of its cells.
        rows: labels of model and row by their names, in order.
        paper: its figures.
        about: what describes the study, to end the lines of the csv.
        to: folder, which is made where it is not there.

    Returns:
        The rows of the table.
    """
    found = lines(results, rows, paper)
    common = {**results.sizes, **recorded(results.records), **about}
    said = tuple(_notes(results, found, paper, common)), tuple(form.closing(results, found))
    table = _table(form, found, paper, *said)
    to.mkdir(parents=True, exist_ok=True)
    (to / f"{form.name}.md").write_text(table.markdown(), encoding="utf-8")
    (to / f"{form.name}.tex").write_text(table.latex(), encoding="utf-8")
    write_csv(to / f"{form.name}.csv", found, paper, common)
    return found


def labels_of(cells: Iterable[Cell]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return the labels of model and row by their names, in the order of the cells."""
    return {(cell.model, cell.row.name): (cell.settings.models[cell.model].label, cell.row.label) for cell in cells}


def recorded(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return on what and with which settings the cells of a study were made; where they differ, all of it.

    Args:
        records: of the cells.

    Example:
        >>> record = {"device": "cpu", "versions": {"torch": "2.11"}, "protocol": "ab", "hash": "0"}
        >>> recorded([record, {**record, "commit": "c0ffee"}])["commit"]
        'c0ffee; unknown'
    """
    hashes = "".join(sorted(record["hash"] for record in records))
    settings_hash = hashlib.sha256(hashes.encode()).hexdigest()[:16] if records else ""
    made = {name: _all_of(found(record) for record in records) for name, found in _RECORDED.items()}
    return {**made, "settings_hash": settings_hash}


_RECORDED: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "device": lambda record: record.get("device"),
    "torch": lambda record: record.get("versions", {}).get("torch"),
    "commit": lambda record: record.get("commit"),
    "protocol": lambda record: record.get("protocol"),
}


def _all_of(values: Iterable[Any]) -> str:
    found = set(values)
    return "; ".join(sorted(str(value or "unknown") for value in found)) if any(found) else ""


def _table(form: Form, found: Sequence[Line], paper: Paper, said: tuple[str, ...], closing: tuple[str, ...]) -> Table:
    columns = {"Model": lambda line: line.labels[0], "Trained on": lambda line: line.labels[1], **form.columns(paper)}
    rows = tuple(tuple(cell(line) for cell in columns.values()) for line in found)
    return Table(form.title, tuple(columns), rows, said, closing)


def _notes(results: Results, found: Sequence[Line], paper: Paper, common: Mapping[str, object]) -> Iterator[str]:
    labels = {line.names[1]: line.labels[1] for line in found}
    control, oracle = (labels.get(name, name) for name in (CONTROL, ORACLE))
    yield from notes.setting(results, found, common)
    yield from notes.mixed(common)
    yield from notes.comparisons(results, found, control)
    yield from notes.gap(found, control, oracle)
    yield from notes.references(found)
    yield from notes.beside(found, paper)
    yield from notes.missing(results)
