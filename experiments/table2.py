"""`python -m experiments table2`: recall of every model in both directions, as Table 1 has its ODmAP."""

from __future__ import annotations

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


def main(arguments: list[str]) -> int:
    """Run what the table needs, and write it.

    Args:
        arguments: what stands behind `python -m experiments table2`.

    Raises:
        UserError: settings, data or cells cannot be used.
    """
    return study(FORM, rows, arguments)
