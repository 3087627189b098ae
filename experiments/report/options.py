"""Options of the commands that look at what `train.py test` found."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli import FriendlyErrors
from synth.finished import from_zero


class _OneFolder(argparse.Action):
    """Take one folder, and say so of several, as a pattern of the shell that matches more than one gives them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        given: Sequence[Path] = values
        if len(given) > 1:
            parser.error(
                f"`{option}` is one folder, but {len(given)} are given: name one of {', '.join(map(str, given))}."
            )
        setattr(namespace, self.dest, given[0])


class RunsParser(FriendlyErrors, argparse.ArgumentParser):
    """Options that name one run or two; every option that it does not have is a key of the data.

    Args:
        name: of the experiment.
        description: what it does.
        two: whether the second run must be there.
    """

    def __init__(self, name: str, description: str, *, two: bool) -> None:
        super().__init__(
            prog=f"python -m experiments {name}",
            usage=f"%(prog)s --run FOLDER {'' if two else '['}--against FOLDER{'' if two else ']'} "
            "--data CONFIG.yaml [options] [keys of the data]",
            description=description,
            epilog="Keys of the data are given as to train.py, such as --data.init_args.root for where it lies.",
            allow_abbrev=False,
        )
        folder: dict[str, Any] = {"type": Path, "nargs": "+", "action": _OneFolder, "metavar": "FOLDER"}
        self.add_argument("--run", required=True, help="results of a run, as `train.py test` left them", **folder)
        self.add_argument("--against", required=two, help="results of a second run; changes are to these", **folder)
        self.add_argument("--names", nargs="+", metavar="NAME", help="what to call the runs; default: by their paths")
        self.add_argument(
            "--data", type=Path, required=True, metavar="FILE", help="config that they were tested with, of a run"
        )
        self.add_argument("--seed", type=from_zero, default=0, metavar="N", help="of what is drawn; default: 0")
