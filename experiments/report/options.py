"""Options of the commands that look at what `train.py test` found."""

from __future__ import annotations

import argparse
from pathlib import Path

from cli import FriendlyErrors
from synth.finished import from_zero


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
        self.add_argument(
            "--run", type=Path, required=True, metavar="FOLDER", help="results of a run, as `train.py test` left them"
        )
        self.add_argument(
            "--against", type=Path, required=two, metavar="FOLDER", help="results of a second run; changes are to these"
        )
        self.add_argument("--names", nargs="+", metavar="NAME", help="what to call the runs; default: by their paths")
        self.add_argument(
            "--data", type=Path, required=True, metavar="FILE", help="config that they were tested with, of a run"
        )
        self.add_argument("--seed", type=from_zero, default=0, metavar="N", help="of what is drawn; default: 0")
