"""`python -m experiments table1`: ODmAP of every model, trained on D, on D + D', and without a correlation."""

from __future__ import annotations

from experiments.study import columns
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
