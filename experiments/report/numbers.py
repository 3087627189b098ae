"""The tables of a report: ODmAP by removed class, and hubs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from experiments.report.tested import Asked, Run, caption_rows

_HUBS = 15
_NO_ITEM = -1


def by_class(runs: Sequence[Run], class_names: Sequence[str]) -> str:
    """Return ODmAP and hallucinations of every removed class, the most frequent first, shaded by their size."""
    removed = runs[0].masks("removed", class_names).astype(np.float64)
    queries = removed.sum(axis=0)
    order = [place for place in np.argsort(-queries, kind="stable").tolist() if queries[place]]
    measures = [*runs[0].cuts, *[name for name in runs[0].found.measures if name.startswith("hallucinated@")][:1]]
    values = [[_means(removed, run.found.values([name])[:, 0]) for run in runs] for name in measures]
    heads = ["removed", "queries"]
    for name in measures:
        heads += [f"{name}, {run.name}" for run in runs] if len(runs) > 1 else [name]
    body = []
    for place in order:
        numbers = [_shaded(of_run[place]) for of_measure in values for of_run in of_measure]
        body.append([f"<td>{escape(class_names[place])}</td>", f"<td>{queries[place]:.0f}</td>", *numbers])
    return _table(heads, body)


def _means(members: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over each class's queries `[C]`, NaN where it has none."""
    with np.errstate(invalid="ignore"):
        return np.asarray(members.T @ values / members.sum(axis=0))


def _shaded(value: float) -> str:
    return f'<td class="heat" style="--heat: {value:.0f}%">{value:.1f}</td>'


def hubs(runs: Sequence[Run], asked: Asked) -> str:
    """Return the captions that are most often in first place, and how often; per cent of the queries."""
    counts = [dict(zip(*_counted(run.retrieved[:, 0]), strict=True)) for run in runs]
    often = {key for each in counts for key in sorted(each, key=lambda key: (-each[key], key))[:_HUBS]}
    order = sorted(often, key=lambda key: (-max(each.get(key, 0) for each in counts), key))
    rows = caption_rows(asked, runs[0], np.array(order, dtype=np.int64))
    queries = len(runs[0].retrieved)
    heads = ["", "caption", *(run.name for run in runs)]
    cells = [
        [str(key), text, *(f"{each.get(key, 0)} ({100 * each.get(key, 0) / queries:.1f} %)" for each in counts)]
        for key, text in zip(order, asked.data.tables.texts.take(rows), strict=True)
    ]
    return table(heads, cells)


def _counted(ids: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    found, times = np.unique(ids[ids != _NO_ITEM], return_counts=True)
    return found.tolist(), times.tolist()


def distinct(run: Run) -> int:
    """Return how many captions are in first place for any query."""
    return len(_counted(run.retrieved[:, 0])[0])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML; every cell is text."""
    return _table(heads, [[f"<td>{escape(cell)}</td>" for cell in row] for row in rows])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
