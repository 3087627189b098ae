"""`python -m metrics {show,compare} ...`: means of per-query results with intervals, and whether two models differ."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from metrics.compare import Difference, Mean, Options

_UNKNOWN = "unrecognized arguments: "


class _Parser(argparse.ArgumentParser):
    """Answers a mistake in one sentence, with the nearest known option."""

    options: tuple[str, ...] = ("--resamples", "--confidence", "--seed", "--csv")

    def error(self, message: str) -> NoReturn:
        near = difflib.get_close_matches(message.removeprefix(_UNKNOWN).split()[0], self.options, n=1)
        hint = f"; did you mean {near[0]}?" if message.startswith(_UNKNOWN) and near else ""
        sys.stderr.write(f"error: {message}{hint}\n")
        raise SystemExit(2)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; a mistake of the user's ends with one sentence and status 2."""
    parser = _parser()
    given = parser.parse_args(arguments)
    from metrics.per_query import PerQueryError

    try:
        rows = given.run(given)
    except PerQueryError as error:
        parser.error(str(error))
    if given.csv:
        from metrics.report import write_csv

        try:
            write_csv(given.csv, rows)
        except OSError as error:
            parser.error(
                f"--csv {given.csv} cannot be written ({error.strerror}); make its folder, or name another file."
            )
    return 0


def _parser() -> _Parser:
    parser = _Parser(prog="python -m metrics", description="Look at per-query results.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="{show,compare}")
    show = _command(commands, "show", "means of all measures with bootstrap intervals")
    show.add_argument("path", type=Path, metavar="PATH", help="a file of per-query results, or a folder of them")
    compare = _command(commands, "compare", "differences of two models with intervals and p-values")
    compare.add_argument("first", type=Path, metavar="FIRST", help="a file or a folder, of the first model")
    compare.add_argument("second", type=Path, metavar="SECOND", help="the same queries, of the second model")
    for command, run in ((show, _show), (compare, _compare)):
        command.set_defaults(run=run)
        _add_options(command)
    return parser


def _command(commands: argparse._SubParsersAction[_Parser], name: str, description: str) -> _Parser:
    return commands.add_parser(name, help=description, description=description.capitalize(), allow_abbrev=False)


def _add_options(parser: _Parser) -> None:
    parser.add_argument("--resamples", type=_positive, default=10_000, metavar="N", help="default: 10000")
    parser.add_argument("--confidence", type=_share, default=0.95, metavar="C", help="of the intervals; default: 0.95")
    parser.add_argument("--seed", type=_from_0, default=0, metavar="N", help="of the resamples; default: 0")
    parser.add_argument("--csv", type=Path, metavar="PATH", help="write the rows to this file, too")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return int(text)


def _from_0(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer from 0, got {text}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, got {text}")
    return value


def _show(given: argparse.Namespace) -> list[Mean]:
    from metrics.compare import show
    from metrics.report import print_means

    rows = show(given.path, _options(given))
    print_means(rows, given.confidence, f"Intervals: percentile bootstrap of whole groups, {_drawn(given)}.")
    return rows


def _compare(given: argparse.Namespace) -> list[Difference]:
    from metrics.compare import compare
    from metrics.report import print_differences

    rows = compare(given.first, given.second, _options(given))
    changed = sum(row.changed > 0 for row in rows)
    note = (
        f"first: {given.first}\nsecond: {given.second}\n"
        f"Difference: second - first; its interval is a percentile bootstrap of whole groups, {_drawn(given)}.\n"
        "p: two-sided sign-flip test of whole groups, each measure for itself.\n"
        f"p, Holm: corrected for the number of measures that changed, {changed}."
    )
    print_differences(rows, given.confidence, note)
    return rows


def _options(given: argparse.Namespace) -> Options:
    return {"resamples": given.resamples, "confidence": given.confidence, "seed": given.seed}


def _drawn(given: argparse.Namespace) -> str:
    return f"{given.resamples:,} resamples, seed {given.seed}"


if __name__ == "__main__":
    raise SystemExit(main())
