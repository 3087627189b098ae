"""`python -m experiments beyond`: what the paper does not try, on the same footing as Table 1, and whether it helps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experiments import table1
from experiments.study.command import study
from experiments.study.layout import change, signed
from experiments.study.lines import CONTROL, GAP, ORACLE, Line
from experiments.study.results import Results
from experiments.study.rows import rows as every_row
from experiments.study.settings import Settings
from experiments.study.summary import Difference, differences
from experiments.study.tables import Form

SYNTHETIC = "synthetic"
_OWN = ("paired", "per_batch", "querybank", "dilation")  # what names of rows beyond the paper start with


def verdicts(results: Results, found: Sequence[Line]) -> Iterator[str]:
    """Yield a sentence per row: whether it helps against the control, and against D + D' where it is something else.

    Args:
        results: of the rows, of their controls and of D + D'.
        found: rows of the table.
    """
    labels = {line.names[1]: line.labels[1] for line in found}
    for line in found:
        model, row = line.names
        gain = line.difference(GAP)
        if gain is None or row == ORACLE:
            continue
        said = [_against(gain, labels.get(CONTROL, CONTROL))]
        if row != SYNTHETIC and (other := _more(results, model, line)):
            said.append(_against(other, labels.get(SYNTHETIC, SYNTHETIC)))
        if rsum := line.difference("rsum"):
            said.append(f"rsum {signed(rsum.relative)} % ({rsum.verdict})")
        yield f"{', '.join(line.labels)}: {'; '.join(said)}."


def _more(results: Results, model: str, line: Line) -> Difference | None:
    synthetic = results.scores.get((model, SYNTHETIC))
    if synthetic is None:
        return None
    return differences(results.scores[line.names], synthetic).get(line.prefix + GAP)


def _against(difference: Difference, label: str) -> str:
    return f"{GAP} {change(difference)} against {label} ({difference.verdict})"


FORM = Form(name="beyond", title="Beyond the paper", columns=table1.FORM.columns, closing=verdicts)


def rows(settings: Settings) -> list[str]:
    """Return the names of the rows."""
    own = [name for name in every_row(settings) if name.startswith(_OWN)]
    return [*table1.rows(settings), *own]


def main(arguments: list[str]) -> int:
    """Run what the table needs, and write it.

    Args:
        arguments: what stands behind `python -m experiments beyond`.

    Raises:
        UserError: settings, data or cells cannot be used.
    """
    return study(FORM, rows, arguments)
