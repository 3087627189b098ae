"""`python -m experiments table3`: what the caption and the fill of the counterfactuals contribute."""

from __future__ import annotations

from functools import partial

from experiments.study import columns
from experiments.study.command import study
from experiments.study.settings import Settings
from experiments.study.tables import Form
from experiments.table1 import ODMAP

FORM = Form(
    name="table3",
    title="Table 3: caption strategies and fills",
    columns=lambda paper: {
        **columns.scores(*ODMAP),
        **columns.against(),
        **columns.recall(),
        **columns.hubs(),
        **columns.printed(paper, *ODMAP),
    },
)


def rows(settings: Settings) -> list[str]:
    """Return the names of the rows."""
    fills, captions = (f"fill_{name}" for name in settings.fills), (f"caption_{name}" for name in settings.captions)
    return ["control", *fills, *captions, "synthetic"]


main = partial(study, FORM, rows)
"""Runs what the table needs, and writes it, given what stands behind `python -m experiments table3`."""
