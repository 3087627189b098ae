"""The figures that the paper prints, from `experiments/paper.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class Paper(NamedTuple):
    """What the paper says where we have a table.

    Attributes:
        source: its table.
        dataset: the data set its figures are of.
        figures: in per cent, by name of model and of row, and by measure.
    """

    source: str
    dataset: str
    figures: dict[tuple[str, str], dict[str, float]]


def paper(table: str, dataset: str) -> Paper:
    """Return the paper's figures that stand beside ours.

    Args:
        table: name of our table.
        dataset: label of our data set; where the paper has not the same one, its figures of COCO are taken.

    Example:
        >>> source, dataset, figures = paper("table1", "Scenes")
        >>> source, dataset, figures["clip", "synthetic"]["ODmAP@1"]
        ('Table 1', 'COCO', 70.1)
    """
    held = _read()[table]
    measures = held["measures"]
    names = {name.casefold(): name for name in held.keys() - {"source", "measures"}}
    chosen = names.get(dataset.casefold(), "COCO")
    figures = {
        (model, row): {name: value for name, value in zip(measures, values, strict=True) if value is not None}
        for model, rows in held[chosen].items()
        for row, values in rows.items()
    }
    return Paper(held["source"], chosen, figures)


@cache
def _read() -> dict[str, Any]:
    held: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "paper.yaml").read_text(encoding="utf-8"))
    return held
