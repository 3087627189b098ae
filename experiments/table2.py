"""`python -m experiments table2`: recall of every model in both directions, as Table 1 has its ODmAP."""

from __future__ import annotations

from functools import partial

from experiments.study import columns
from experiments.study.command import study
from experiments.study.tables import Form
from experiments.table1 import rows

WAYS = {"i2t": ("i2t/R@1", "i2t/R@5", "i2t/R@10"), "t2i": ("t2i/R@1", "t2i/R@5", "t2i/R@10")}

FORM = Form(
    name="table2",
    title="Table 2: recall, image to text (i2t) and text to image (t2i)",
    columns=lambda paper: {
        **columns.scores(*WAYS["i2t"], *WAYS["t2i"]),
        **columns.recall(),
        **columns.printed(paper, *WAYS["i2t"]),
        **columns.printed(paper, *WAYS["t2i"]),
    },
)

main = partial(study, FORM, rows)
"""Runs what the table needs, and writes it, given what stands behind `python -m experiments table2`."""
