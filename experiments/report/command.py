"""`python -m experiments report --run FOLDER [--against FOLDER] --data CONFIG.yaml`: a page about one run or two."""

from __future__ import annotations

from argparse import BooleanOptionalAction
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.report.gallery import gallery
from experiments.report.headline import headline
from experiments.report.matrices import class_pairs, cooccurrence
from experiments.report.numbers import by_class, distinct, hubs
from experiments.report.options import RunsParser
from experiments.report.page import page
from experiments.report.record import record
from experiments.report.tested import Asked, Run, read_runs, states
from synth.finished import from_zero, writing_results


def main(arguments: list[str]) -> int:
    """Write the report.

    Args:
        arguments: what stands behind `python -m experiments report`.

    Raises:
        SystemExit: after one sentence, if an option or a key is misspelled.
        UserError: results or data are not there or broken, or do not belong together.
    """
    options, keys = _parser().parse_known_args(arguments)
    runs = read_runs(options)
    asked = Asked.load(options.data, keys, runs)
    text = report(runs, asked, options.images, options.seed)
    with writing_results(options.to):
        options.to.parent.mkdir(parents=True, exist_ok=True)
        options.to.write_text(text, encoding="utf-8")
    print(f"Report: {options.to} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0


def _parser() -> RunsParser:
    parser = RunsParser(
        "report", "Write one HTML file about a run, or about what changed from one to another.", two=False
    )
    parser.add_argument(
        "--images", type=from_zero, default=120, metavar="N", help="queries whose pictures are in it; default: 120"
    )
    parser.add_argument(
        "--reranked",
        action=BooleanOptionalAction,
        default=True,
        help="show what models that re-rank, of two runs both, have after that; default: yes",
    )
    parser.add_argument("--to", type=Path, default=Path("report.html"), metavar="FILE", help="default: report.html")
    return parser


def report(runs: Sequence[Run], asked: Asked, images: int, seed: int) -> str:
    """Return the report as HTML.

    Args:
        runs: one, or two that were asked the same.
        asked: the data.
        images: for how many queries the pictures are in it.
        seed: draws these.

    Raises:
        UserError: results and data do not belong together, or a picture cannot be read.
    """
    names = asked.data.tables.class_names
    held = gallery(runs, asked, images, seed)
    sections = {
        "pictured": _pictured(held),
        "headline": headline(runs),
        "classes": by_class(runs, names),
        "pairs": class_pairs(runs, names),
        "hubs": hubs(runs, asked),
        "together": cooccurrence(asked),
        "record": record(runs, asked),
    }
    title = " against ".join(run.name for run in reversed(runs))
    return page(title, _summary(runs, asked), sections, held)


def _pictured(held: Mapping[str, Any]) -> str:
    pictured, queries = len(held["pictures"]), len(held["queries"])
    if pictured == queries:
        return ""
    return (
        f"To keep the file small, pictures of {pictured:,} of the {queries:,} queries are in it, drawn as evenly over "
        "what became of queries as there are of each; these come first. Captions are in it for all."
    )


def _summary(runs: Sequence[Run], asked: Asked) -> str:
    counts = Counter(states(runs))
    became = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()))
    first = ", ".join(f"{distinct(run):,}" for run in runs)
    return (
        f"{len(asked.rows):,} images without an object (split {asked.split}) and the captions that are retrieved for "
        f"them. At the first caption: {became}. Different captions in first place: {first}."
    )
