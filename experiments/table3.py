"""`python -m experiments table3`: what the caption and the fill of the counterfactuals contribute."""

from __future__ import annotations

from experiments.study import columns
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
