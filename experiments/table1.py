"""`python -m experiments table1`: ODmAP of every model, trained on D, on D + D', and without a correlation."""

from __future__ import annotations

from functools import partial

from experiments.study import columns
from experiments.study.command import study
from experiments.study.settings import Settings
from experiments.study.tables import Form

ODMAP = ("ODmAP@1", "ODmAP@5", "ODmAP@10")

FORM = Form(
    name="table1",
    title="Table 1: ODmAP",
    columns=lambda paper: {
        **columns.scores(*ODMAP),
        **columns.spread("ODmAP@1"),
        **columns.against(),
        **columns.gap_closed(),
        **columns.recall(),
        **columns.hubs(),
        **columns.printed(paper, *ODMAP),
    },
)


def rows(settings: Settings) -> list[str]:
    """Return the names of the rows."""
    return ["zero_shot", "control", "synthetic", *(["oracle"] if settings.oracle is not None else [])]


main = partial(study, FORM, rows)
"""Runs what the table needs, and writes it, given what stands behind `python -m experiments table1`."""
