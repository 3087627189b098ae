"""`python -m synth stats --config configs/synth/NAME.yaml`: which classes occur together, before and after."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synth.cooccurrence import ORDERS, Change, Cooccurrence, Pair, measure, pairs
from synth.finished import FinishedSetParser, positive, writing_results
from synth.heat_map import conditional_figure

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("a", "b", "together", "P(b | a), %", "P(a | b), %", "phi", "lift")


def main(arguments: list[str]) -> int:
    """Write the matrices and all pairs, and print the most spurious pairs.

    Args:
        arguments: what stands behind `python -m synth stats`.

    Raises:
        SystemExit: after one sentence, if an option or a key is misspelled.
        UserError: the set is not there or broken, or a value cannot work.
    """
    options, config = _parser().read(arguments)
    folder = options.to or config.output.with_name(f"{config.output.name}_statistics")
    changes = measure(config)
    ranked = {what: pairs(change, options.min_count, options.by) for what, change in changes.items()}
    with writing_results(folder):
        write(folder, changes, ranked)
    _show(changes, ranked, options.top, options.by)
    print(f"Matrices, heat maps and all pairs: {folder}")
    return 0


def _parser() -> FinishedSetParser:
    parser = FinishedSetParser(
        "stats", "Count which classes occur together in images and captions, before and after the synthetic pairs."
    )
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where to write; default: beside the set")
    parser.add_argument("--top", type=positive, default=15, metavar="N", help="pairs to print; default: 15")
    parser.add_argument(
        "--min_count", type=positive, default=10, metavar="N", help="least originals with both classes; default: 10"
    )
    parser.add_argument("--by", choices=ORDERS, default="phi", help="what orders the pairs; default: phi")
    return parser


def write(folder: Path, changes: Mapping[str, Change], ranked: Mapping[str, Sequence[Pair]]) -> None:
    """Write, for images and for captions, two matrices of counts, all ranked pairs and a figure.

    Args:
        folder: where to; `images_before.csv`, `images_after.csv`, `images_pairs.csv` and `images.svg` appear there,
            and the same for captions.
        changes: what was counted, by "images" and "captions".
        ranked: the pairs of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for what, change in changes.items():
        for when, counts in (("before", change.before), ("after", change.after)):
            _write_csv(folder / f"{what}_{when}.csv", _matrix(counts, change.class_names))
        _write_csv(folder / f"{what}_pairs.csv", [Pair._fields, *ranked[what]])
        (folder / f"{what}.svg").write_text(conditional_figure(change, what), encoding="utf-8")


def _matrix(counts: Cooccurrence, names: Sequence[str]) -> list[Sequence[object]]:
    rows = zip(names, counts.together.tolist(), strict=True)
    return [[f"of {counts.total}", *names], *([name, *row] for name, row in rows)]


def _write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _show(changes: Mapping[str, Change], ranked: Mapping[str, Sequence[Pair]], top: int, by: str) -> None:
    import sys

    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    for what, change in changes.items():
        most = ranked[what][:top]
        console.print(table(what, change, most, by))
        console.print(_verdict(most), markup=False)


def table(what: str, change: Change, most: Sequence[Pair], by: str) -> Table:
    """Return a table of pairs: each value before and after, and the change of the conditional shares and of phi."""
    from rich.table import Table
    from rich.text import Text

    made = change.after.total - change.before.total
    title = f"{what}: {change.before.total:,} originals, {made:,} synthetic; most spurious pairs by {by}"
    shown = Table(title=title, title_justify="left", caption="before -> after (change)", caption_justify="left")
    for number, column in enumerate(_COLUMNS):
        shown.add_column(column, justify="left" if number < 2 else "right")
    for pair in most:
        shown.add_row(Text(pair.a), Text(pair.b), *_cells(pair))
    return shown


def _cells(pair: Pair) -> list[str]:
    return [
        f"{pair.together_before:,} -> {pair.together_after:,}",
        _moved(100 * pair.a_to_b_before, 100 * pair.a_to_b_after, 1),
        _moved(100 * pair.b_to_a_before, 100 * pair.b_to_a_after, 1),
        _moved(pair.phi_before, pair.phi_after, 3),
        f"{pair.lift_before:.2f} -> {pair.lift_after:.2f}",
    ]


def _moved(before: float, after: float, digits: int) -> str:
    """Return both values and their change.

    Example:
        >>> _moved(81.24, 74.3, 1)
        '81.2 -> 74.3 (-6.9)'
    """
    return f"{before:.{digits}f} -> {after:.{digits}f} ({after - before:+.{digits}f})"


def _verdict(most: Sequence[Pair]) -> str:
    """Say how far the correlation of these pairs came down, in one sentence."""
    if not most:
        return "No pair of classes occurs together often enough; lower --min_count."
    before, after = (
        sum(values) / len(most) for values in zip(*((p.phi_before, p.phi_after) for p in most), strict=True)
    )
    down = sum(pair.phi_after < pair.phi_before for pair in most)
    return f"Mean phi of these {len(most)} pairs: {before:.3f} before, {after:.3f} after; it fell for {down} of them.\n"
