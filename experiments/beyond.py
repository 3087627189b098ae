"""`python -m experiments beyond`: what the paper does not try, on the same footing as Table 1, and whether it helps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from experiments import table1
from experiments.study.command import study
from experiments.study.layout import change, signed
from experiments.study.lines import CONTROL, GAP, ORACLE, Line
from experiments.study.results import Results
from experiments.study.rows import rows as every_row
from experiments.study.settings import Settings
from experiments.study.summary import Difference, corrected, differences
from experiments.study.tables import Form

SYNTHETIC = "synthetic"
_OWN = ("paired", "per_batch", "querybank", "fill", "dilation")  # what names of rows beyond the paper start with


def verdicts(results: Results, found: Sequence[Line]) -> Iterator[str]:
    """Yield a sentence per row: whether it helps against the control, and against D + D' where it is something else.

    Nothing helps or hurts whose p-value, corrected for the number of rows, is 0.05 or more.

    Args:
        results: of the rows, of their controls and of D + D'.
        found: rows of the table.
    """
    labels = {line.names[1]: line.labels[1] for line in found}
    gains = [(line, gain) for line in found if (gain := line.difference(GAP)) and line.names[1] != ORACLE]
    more = _more(results, [line for line, _ in gains])
    for line, gain in gains:
        said = [_against(gain, labels.get(CONTROL, CONTROL))]
        if other := more.get(line.names):
            said.append(_against(other, labels.get(SYNTHETIC, SYNTHETIC)))
        if rsum := line.difference("rsum"):
            said.append(f"rsum {signed(rsum.relative)} % ({rsum.verdict})")
        yield f"{', '.join(line.labels)}: {'; '.join(said)}."


def _more(results: Results, found: Sequence[Line]) -> dict[tuple[str, str], Difference]:
    """Compare rows with D + D' of their model, corrected for the number of them."""
    gains = {}
    for line in found:
        model, row = line.names
        synthetic = results.scores.get((model, SYNTHETIC))
        if synthetic is None or row == SYNTHETIC:
            continue
        if gain := differences(results.scores[line.names], synthetic).get(line.prefix + GAP):
            gains[line.names] = gain
    changed = corrected([{GAP: gain} for gain in gains.values()])
    return {names: gain[GAP] for names, gain in zip(gains, changed, strict=True)}


def _against(difference: Difference, label: str) -> str:
    return f"{GAP} {change(difference)} against {label} ({difference.verdict})"


FORM = Form(name="beyond", title="Beyond the paper", columns=table1.FORM.columns, closing=verdicts)


def rows(settings: Settings) -> list[str]:
    """Return the names of the rows."""
    own = [name for name in every_row(settings) if name.startswith(_OWN)]
    return [*table1.rows(settings), *own]


main = partial(study, FORM, rows)
"""Runs what the table needs, and writes it, given what stands behind `python -m experiments beyond`."""
