"""The matrices of a report: ODmAP by pair of classes, and which classes occur together in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.shown import shown_after_removal, shown_classes
from datamodules.synthetic_set import SyntheticSet, has_split
from experiments.report.tested import Asked, Run
from synth.cooccurrence import Change, Cooccurrence
from synth.heat_map import Panel, conditional_figure, draw


def class_pairs(runs: Sequence[Run], class_names: Sequence[str]) -> str:
    """Draw ODmAP@1 by removed class (row) and kept class (column), and the change from the first run to the second.

    Returns:
        An SVG; classes that no query lost or kept are left out, and pairs without a query are grey.
    """
    removed, kept = (runs[0].masks(role, class_names).astype(np.float64) for role in ("removed", "kept"))
    asked = np.flatnonzero(removed.any(axis=0) | kept.any(axis=0))
    removed, kept = removed[:, asked], kept[:, asked]
    values = [_by_pair(removed, kept, run.first) for run in runs]
    cell = "{row} removed, {column} kept: {value} %"
    panels = [Panel(f"ODmAP@1, {run.name}", each, 100.0, cell) for run, each in zip(runs, values, strict=True)]
    if len(values) == 2:
        change = "{row} removed, {column} kept: {value} points"
        panels.append(Panel("second - first", values[1] - values[0], 100.0, change))
    return draw(panels, [class_names[place] for place in asked.tolist()])


def _by_pair(
    removed: NDArray[np.float64], kept: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(removed.T @ (kept * values[:, None]) / (removed.T @ kept))


def cooccurrence(asked: Asked) -> str:
    """Draw P(column | row) of the training images, and where there are synthetic ones, after these are added.

    Returns:
        An SVG.
    """
    tables, splits = asked.data.tables, asked.data.train_splits
    before = Cooccurrence.of(shown_classes(tables)[tables.rows(*splits)])
    root = asked.made.root
    if not any(has_split(root, split) for split in splits):
        seen = np.flatnonzero(before.counts)
        values = np.where(np.eye(len(seen), dtype=bool), np.nan, before.conditional[np.ix_(seen, seen)])
        panel = Panel(f"P(column | row), {before.total:,} images", values, 1.0, "P({column} | {row}) = {value}")
        return draw([panel], [tables.class_names[place] for place in seen])
    made = SyntheticSet.read(root, splits, tables.class_names, tables.image_ids)
    _, left = shown_after_removal(tables, made, np.arange(len(made)))
    return conditional_figure(Change(before, before + Cooccurrence.of(left), tables.class_names), "images")
